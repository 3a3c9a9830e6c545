"""States as JSON, for clients: by their type where that can be done, and always somehow."""

import dataclasses
from collections.abc import Iterable
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, from_json, to_json

from flowneer_async.fastapi.types import is_struct

_DEEPEST = 190  # levels: pydantic writes 255, and reads 200
_LONGEST = 10_000  # bits; Python reads 4300 digits


def written(value: object) -> bytes:
    """The JSON of a state, or of anything that may stand in one; what JSON cannot say is written as text.

    Objects are written as their own type has it. Then and in dicts, bytes become base64, times ISO 8601, NaN and the
    infinities "NaN", "Infinity" and "-Infinity", sets and tuples lists, and keys texts.
    """
    if not _is_object(value):
        return _by_value(value)
    try:
        return _by_type(value)
    except (PydanticUserError, AttributeError, TypeError, ValueError, OverflowError):
        return _by_value(value)


def plain(value: object) -> Any:
    """The same, read again: of the types of JSON."""
    try:
        return from_json(written(value))
    except ValueError:  # an integer of more digits than Python reads
        return from_json(_mended_json(value))


def _is_object(value: object) -> bool:
    kind = type(value)
    return dataclasses.is_dataclass(kind) or is_struct(kind) or hasattr(kind, "model_fields")


def _by_type(value: object) -> bytes:
    kind: Any = type(value)
    if is_struct(kind):
        import msgspec

        return msgspec.json.encode(value)
    return _adapter(kind).dump_json(value, by_alias=True, warnings="none")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _by_value(value: object) -> bytes:
    try:
        return _json(value)
    except PydanticSerializationError:  # a lone surrogate, a dataclass that lacks a field, or too many levels
        return _mended_json(value)


def _json(value: object) -> bytes:
    return to_json(value, bytes_mode="base64", inf_nan_mode="strings", fallback=_fields)


def _fields(value: object) -> object:
    """The fields of an object that pydantic does not know, such as a Struct; of any other no more than its type."""
    if not _is_object(value):
        return type(value).__qualname__
    names: Iterable[str] = getattr(value, "__struct_fields__", None) or vars(value)
    return {name: getattr(value, name) for name in names}


def _mended_json(value: object) -> bytes:
    return _json(_mended(value, 0))


def _mended(value: object, depth: int) -> object:
    """The same with '?' for what is no Unicode, '…' for what is nested too deeply, and hexadecimal for huge numbers."""
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if type(value) is int and value.bit_length() > _LONGEST:
        return hex(value)
    if isinstance(value, dict):
        whole = cast(dict[object, object], value)
        return {_mended_key(key): _mended(part, depth + 1) for key, part in whole.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_mended(part, depth + 1) for part in cast(list[object], value)]
    return _mended(_fields(value), depth) if _is_object(value) else value


def _mended_key(key: Any) -> object:
    if isinstance(key, str):
        return _mended(key, 0)
    return repr(key) if type(key) in (tuple, frozenset) or _is_object(key) else key
