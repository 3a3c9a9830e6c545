"""The payload of a signal: written as states are, and checked by a schema."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, cast

from flowneer_async.encoding import Codec
from flowneer_async.errors import BadSignal
from flowneer_async.steps import Schema, Wait
from flowneer_async.versions import Signal

_PLAIN = (str, int, float, bool, list, dict, type(None))


def received(codec: Codec, schema: Schema[Any] | None, signal: Signal) -> object:
    """What a signal brings, as `schema` has it; raises BadSignal, which shows no value."""
    value = codec.load(signal.payload)
    if schema is None:
        return value
    try:
        return _checked(schema, value)
    except Exception as error:
        reason = f"it is no {getattr(schema, '__qualname__', 'valid value')} ({type(error).__qualname__})"
        raise BadSignal(signal.name, signal.run_id, reason) from error


def _checked(schema: Any, value: Any) -> object:
    """Pydantic and msgspec check their own types; of plain types a value is one, any other schema is called."""
    if isinstance(schema, type) and isinstance(value, schema) and schema is not bool:
        return value if type(value) is not bool or schema is not int else _refuse()
    if schema in _PLAIN:
        return value if type(value) is schema else _refuse()
    # Their types exist only where they are imported.
    pydantic: Any = sys.modules.get("pydantic")
    msgspec: Any = sys.modules.get("msgspec")
    if pydantic is not None and isinstance(schema, type) and issubclass(schema, pydantic.BaseModel):
        return cast(Any, schema).model_validate(value)
    if msgspec is not None and isinstance(schema, type) and issubclass(schema, msgspec.Struct):
        return msgspec.convert(value, schema)
    make: Any = schema
    if dataclasses.is_dataclass(cast(object, schema)) and isinstance(value, dict):
        return make(**cast(dict[str, Any], value))
    return make(value)


def _refuse() -> object:
    raise TypeError


def sent(codec: Codec, waits: Sequence[Wait[Any]], run_id: str, name: str, payload: object) -> bytes:
    """A payload as it is stored; raises BadSignal where no step waits for it, StateNotSerializable."""
    if not waits:
        raise BadSignal(name, run_id, "the flow waits for no signal of this name")
    text = codec.tagged_json(payload, "$")
    for wait in waits:
        received(codec, wait.schema, Signal(run_id, 0, name, text, 0))
    return text
