"""The kinds of state: a dict, or an object whose fields are read and written like the keys of one.

dict and TypedDict, dataclasses, pydantic models and msgspec Structs. A `Shape` says how one type is taken apart and put
together; `named_types` finds the types that a state type names in its annotations, for these may stand in the state.
"""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

import dataclasses
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from inspect import getattr_static
from typing import Any, cast, get_args, get_origin, get_type_hints, is_typeddict

from flowneer_async.errors import BadState, StateNotSerializable

Items = Mapping[str, object]

_KINDS = "a state is a dict, a dataclass, a pydantic model or a msgspec Struct"


@dataclass(frozen=True, slots=True)
class Shape:
    """How values of `type` are taken apart into named items and put together from them."""

    type: type
    items: Callable[..., Items]
    """Given a value, and its path where it is not the state itself; raises StateNotSerializable."""
    build: Callable[[dict[str, object]], object]
    write: Callable[[Any, str, object], None] = setattr
    remove: Callable[[Any, str], None] = delattr
    strays: Callable[[Any], Iterable[str]] = lambda state: ()
    """Attributes that are no items, and would be lost."""


def _itself(state: dict[str, object], path: str = "$") -> dict[str, object]:
    return state


DICT = Shape(dict, _itself, _itself, operator.setitem, operator.delitem)


def shape_of(kind: type) -> Shape:
    """The shape of a state of type `kind`, which may be an alias like `dict[str, Order]`; raises BadState."""
    base = get_origin(kind) or kind
    if not isinstance(base, type):
        raise BadState(kind, _KINDS)
    if base is dict or is_typeddict(base):
        return DICT
    if _is_a(base, Mapping):
        raise BadState(base, "only a plain dict comes back as what it was: use dict(…)")
    found = _object_shape(base)
    if found is None:
        raise BadState(base, _KINDS)
    if _is_frozen(base):
        raise BadState(base, "it is frozen, and steps change the state in place")
    return found


def named_types(kind: type) -> tuple[dict[str, Shape], dict[str, type[Enum]]]:
    """The objects and the enums that may stand in a state of type `kind`, by their qualified names."""
    shapes: dict[str, Shape] = {}
    enums: dict[str, type[Enum]] = {}
    for found in _reachable(kind):
        known = enums if issubclass(found, Enum) else shapes
        if found.__qualname__ in known:
            raise BadState(kind, f"it names two types called {found.__qualname__}: rename one of them")
        if issubclass(found, Enum):
            enums[found.__qualname__] = found
        elif (shape := _object_shape(found)) is not None:
            shapes[found.__qualname__] = shape
    return shapes, enums


def _reachable(kind: type) -> Iterator[type]:
    """Every class that the annotations of `kind` lead to, itself included, each once."""
    seen: set[type] = set()
    waiting: list[object] = [kind]
    while waiting:
        hint = waiting.pop()
        if (origin := get_origin(hint)) is not None:
            waiting.extend((origin, *get_args(hint)))
        if isinstance(hint, type) and hint not in seen:
            seen.add(hint)
            yield hint
            waiting.extend(_annotations(hint))


def _annotations(kind: type) -> Iterable[object]:
    if _is_model(kind):
        return [field.annotation for field in cast(Any, kind).model_fields.values()]
    if not (is_typeddict(kind) or _is_dataclass(kind) or _is_struct(kind)):
        return ()
    try:
        return get_type_hints(kind).values()
    except Exception as error:  # an annotation may be any text
        raise BadState(kind, f"its annotations cannot be read at run time: {error}") from error


def _is_a(kind: type, base: Any) -> bool:
    return issubclass(kind, base)


def _is_model(kind: type) -> bool:
    pydantic = sys.modules.get("pydantic")  # its models exist only where it is imported
    return pydantic is not None and _is_a(kind, pydantic.BaseModel)


def _is_struct(kind: type) -> bool:
    msgspec = sys.modules.get("msgspec")
    return msgspec is not None and _is_a(kind, msgspec.Struct)


def _is_dataclass(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


def _is_frozen(kind: Any) -> bool:
    if _is_model(kind):
        return bool(kind.model_config.get("frozen"))
    return bool(kind.__struct_config__.frozen if _is_struct(kind) else kind.__dataclass_params__.frozen)


def _object_shape(kind: Any) -> Shape | None:
    if _is_model(kind):
        return _model_shape(kind)
    if _is_struct(kind):
        return _fields_shape(kind, kind.__struct_fields__, _struct_builder(kind))
    if _is_dataclass(kind):
        return _dataclass_shape(kind)
    return None


def _dataclass_shape(kind: Any) -> Shape:
    def build(items: dict[str, object]) -> object:
        # Past __init__ and __post_init__, which have done their work once.
        built: object = object.__new__(kind)
        for name, value in {**_defaults(kind, items), **items}.items():
            object.__setattr__(built, name, value)
        return built

    return _fields_shape(kind, tuple(field.name for field in dataclasses.fields(kind)), build)


def _defaults(kind: Any, items: Items) -> dict[str, object]:
    """What the fields of a dataclass that are not stored begin with, for they may be newer than what is stored."""
    made: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        if field.name in items:
            continue
        if field.default_factory is not dataclasses.MISSING:
            made[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            made[field.name] = field.default
    return made


def _fields_shape(kind: Any, names: tuple[str, ...], build: Callable[[dict[str, object]], object]) -> Shape:
    def strays(state: Any) -> list[str]:
        held: Items = getattr(state, "__dict__", {})
        return [name for name in held if name not in names and not _is_cached_property(kind, name)]

    def items(state: Any, path: str = "$") -> Items:
        for name in strays(state):
            raise StateNotSerializable(f"{path}.{name}", f"is no field of {kind.__qualname__}: declare it as one")
        # A field without a value is an absent key: a dataclass may have one.
        return {name: getattr(state, name) for name in names if hasattr(state, name)}

    return Shape(kind, items, build, strays=strays)


def _is_cached_property(kind: Any, name: str) -> bool:
    """It is no state, but made again."""
    return isinstance(getattr_static(kind, name, None), cached_property)


def _model_shape(kind: Any) -> Shape:
    if kind.__private_attributes__:
        raise BadState(kind, "it has private attributes, which are no fields and would be lost")

    fields = frozenset(kind.model_fields)

    def items(state: Any, path: str = "$") -> Items:
        # Not all of __dict__ is fields: cached properties are kept there too.
        own = {name: value for name, value in state.__dict__.items() if name in fields}
        return {**own, **(state.__pydantic_extra__ or {})}

    # Past the validators, which have done their work once.
    def build(items: dict[str, object]) -> object:
        built = kind.__new__(kind)
        newer = [(name, info) for name, info in kind.model_fields.items() if name not in items]
        defaults = {name: info.get_default(call_default_factory=True) for name, info in newer if not info.is_required()}
        extra = {name: value for name, value in items.items() if name not in fields}
        own = {name: value for name, value in items.items() if name in fields}
        object.__setattr__(built, "__dict__", {**defaults, **own})
        object.__setattr__(built, "__pydantic_fields_set__", fields.intersection(items) | extra.keys())
        object.__setattr__(built, "__pydantic_extra__", extra if kind.model_config.get("extra") == "allow" else None)
        object.__setattr__(built, "__pydantic_private__", None)
        return built

    def place(state: Any, name: str) -> Any:
        return state.__dict__ if name in fields else state.__pydantic_extra__

    def write(state: Any, name: str, value: object) -> None:
        place(state, name)[name] = value

    def remove(state: Any, name: str) -> None:
        del place(state, name)[name]

    return Shape(kind, items, build, write, remove)


def _struct_builder(kind: Any) -> Callable[[dict[str, object]], object]:
    from msgspec.structs import force_setattr

    def build(items: dict[str, object]) -> object:
        # Its __post_init__ cannot be passed by: it is given copies, and what it does to the fields is undone.
        try:
            built = kind(**(deepcopy(items) if hasattr(kind, "__post_init__") else items))
        except TypeError as error:
            raise BadState(kind, "what is stored lacks a field that has no default: give it one") from error
        for name, value in items.items():
            force_setattr(built, name, value)
        return built

    return build
