"""A value written out so that two of them are equal only where nothing at all tells them apart."""

import dataclasses
from typing import Any


def exact(value: Any) -> object:
    """Types, order of keys, -0.0, NaN, fold, names of zones: what `==` passes over counts here."""
    kind = type(value)
    if kind is dict:
        return "dict", [(exact(key), exact(part)) for key, part in value.items()]
    if kind in (list, tuple):
        return kind.__name__, [exact(part) for part in value]
    if kind in (set, frozenset):
        return kind.__name__, sorted(repr(exact(part)) for part in value)
    if kind is int:
        return "int", hex(value)
    if (names := _fields(value)) is not None:
        return kind, [(name, exact(getattr(value, name))) for name in names if hasattr(value, name)]
    return kind, repr(value)


def exact_state(state: dict[str, Any]) -> object:
    """The same of a state, whose keys have no order."""
    return {key: exact(value) for key, value in state.items()}


def _fields(value: Any) -> list[str] | None:
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    if hasattr(value, "__struct_fields__"):
        return list(value.__struct_fields__)
    if hasattr(value, "model_fields_set"):
        return [*type(value).model_fields, *(value.model_extra or {})]
    return None
