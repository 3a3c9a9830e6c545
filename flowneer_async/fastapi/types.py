"""The types of states and of signals, as FastAPI reads them and its OpenAPI page shows them."""

import sys
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from pydantic import PlainValidator, StringConstraints, TypeAdapter, WithJsonSchema
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from flowneer_async import BadState

Hint: TypeAlias = Any
"""What may stand in an annotation."""

_KEY = r"^($|[^\x00])"

PLAIN: Hint = Annotated[
    dict[Annotated[str, StringConstraints(pattern=_KEY)], object],
    WithJsonSchema({"type": "object", "additionalProperties": True, "propertyNames": {"pattern": _KEY}}),
]
"""A state without a type of its own; keys that begin with NUL are the engine's own."""

_MODES: tuple[Literal["validation", "serialization"], ...] = ("validation", "serialization")


def state_hint(kind: type | None) -> Hint:
    """What FastAPI is to read a state of this type as; raises BadState where it cannot."""
    return PLAIN if kind is None else _checked(kind)


def shown_hint(kind: type | None) -> Hint:
    """What its OpenAPI page shows for a state of this type: any object where the type cannot be shown."""
    try:
        return state_hint(kind)
    except BadState:
        return PLAIN


def payload_hint(schemas: Sequence[object]) -> Hint:
    """What FastAPI is to read the payload of a signal as: anything where a function of the user's is to judge it."""
    if not schemas or any(not (isinstance(each, type) or get_origin(each)) for each in schemas):
        return object
    try:
        return _union([_checked(cast(type, each)) for each in schemas])
    except (BadState, TypeError):
        return object


def _union(hints: Sequence[Hint]) -> Hint:
    union: Any = Union
    return union[tuple(hints)]


def is_struct(kind: object) -> bool:
    """Is it a msgspec Struct? These exist only where msgspec is imported."""
    msgspec = sys.modules.get("msgspec")
    return msgspec is not None and isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _checked(kind: type) -> Hint:
    hint = _known(kind, ())
    try:
        adapter: TypeAdapter[object] = TypeAdapter(hint)
    except PydanticUserError as error:
        raise BadState(kind, f"it cannot be read from JSON: {str(error).splitlines()[0]}") from error
    try:
        for mode in _MODES:
            adapter.json_schema(mode=mode)
    except PydanticInvalidForJsonSchema:
        return Annotated[hint, WithJsonSchema({"type": "object"})]
    return hint


def _known(hint: Hint, around: tuple[Hint, ...]) -> Hint:
    """The same type with what pydantic does not know replaced: Structs, and, before Python 3.12, TypedDicts."""
    if is_struct(hint):
        return _struct_hint(hint)
    if is_typeddict(hint) and type(hint).__module__ == "typing" and sys.version_info < (3, 12):
        return PLAIN if hint in around else _typed_dict(hint, (*around, hint))
    origin: Any = get_origin(hint)
    args: tuple[Any, ...] = get_args(hint)
    known: tuple[Any, ...] = tuple([_known(each, around) for each in args])
    if known == args:
        return hint
    if origin in (Union, UnionType):
        return _union(known)
    return origin[known[0] if len(known) == 1 else known]


def _typed_dict(kind: Hint, around: tuple[Hint, ...]) -> Hint:
    fields: dict[str, Hint] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if get_origin(hint) in (Required, NotRequired):
            (hint,) = get_args(hint)
        known = _known(hint, around)
        fields[name] = Required[known] if name in kind.__required_keys__ else NotRequired[known]
    make: Any = TypedDict
    return make(kind.__name__, fields)


def _struct_hint(kind: Hint) -> Hint:
    import msgspec

    def read(value: object) -> object:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:  # whose message may quote the value
            _, _, path = str(error).rpartition(" - at ")
            where = f" at {path.strip('`')}" if path.startswith("`$") else ""
            raise PydanticCustomError(
                "struct", "It is no valid {kind}{where}", {"kind": kind.__name__, "where": where}
            ) from None

    (schema,), parts = msgspec.json.schema_components([kind])
    return Annotated[kind, PlainValidator(read), WithJsonSchema(cast(Any, _inlined(schema, parts)))]


def _inlined(schema: object, parts: Mapping[str, object], around: tuple[str, ...] = ()) -> object:
    """A JSON schema with its references replaced by what they refer to; one to itself may be anything."""
    if isinstance(schema, list):
        return [_inlined(each, parts, around) for each in cast(list[object], schema)]
    if not isinstance(schema, dict):
        return schema
    whole = cast(dict[str, object], schema)
    if isinstance(reference := whole.get("$ref"), str):
        name = reference.rpartition("/")[2]
        return {} if name in around else _inlined(parts[name], parts, (*around, name))
    return {key: _inlined(value, parts, around) for key, value in whole.items()}
