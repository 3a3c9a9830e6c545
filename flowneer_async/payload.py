"""The payload of a signal: written as states are, and checked by a schema."""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast, get_origin
from uuid import UUID

from flowneer_async.encoding import Codec
from flowneer_async.errors import BadOption, BadSignal
from flowneer_async.steps import Schema, Wait
from flowneer_async.versions import Signal

_PLAIN = (str, int, bool, list, dict, type(None), bytes, tuple, set, frozenset, Decimal, datetime, date, time, UUID)
"""Types whose values come back from JSON as what they were."""


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


def check_schema(schema: object) -> None:
    """Raises BadOption where nothing at hand can check a payload by `schema`."""
    if not callable(schema) and get_origin(schema) is None:
        raise BadOption("schema", schema, "it is a type, or a function of the payload")
    if get_origin(schema) is not None and _converter() is None:
        raise BadOption("schema", schema, "a type like this is checked by pydantic or msgspec: install one of them")


def _checked(schema: Any, value: Any) -> object:
    """Of plain types a value is one; pydantic and msgspec check whatever they know; anything else is called."""
    if schema is float and type(value) is int:
        return float(value)
    if schema is float or schema in _PLAIN:
        return value if type(value) is schema else _refuse()
    convert = _converter()
    if convert is not None and (not callable(schema) or isinstance(schema, type) or get_origin(schema)):
        return convert(schema, value)
    make: Any = schema
    if dataclasses.is_dataclass(cast(object, schema)) and isinstance(value, dict):
        return make(**cast(dict[str, Any], value))
    return make(value)


def _refuse() -> object:
    raise TypeError


@cache
def _converter() -> Callable[[Any, Any], object] | None:
    """What can check any type: pydantic knows the types of msgspec not, and msgspec those of pydantic not."""
    pydantic = import_module("pydantic") if find_spec("pydantic") else None
    msgspec = import_module("msgspec") if find_spec("msgspec") else None
    if pydantic is None and msgspec is None:
        return None

    def convert(schema: Any, value: Any) -> object:
        is_struct = msgspec is not None and isinstance(schema, type) and issubclass(schema, msgspec.Struct)
        if msgspec is not None and (is_struct or pydantic is None):
            return msgspec.convert(value, schema)
        assert pydantic is not None
        return pydantic.TypeAdapter(schema).validate_python(value, strict=False)

    return convert


def sent(codec: Codec, waits: Sequence[Wait[Any]], run_id: str, name: str, payload: object) -> bytes:
    """A payload as it is stored; raises BadSignal where no step waits for it, StateNotSerializable."""
    if not waits:
        raise BadSignal(name, run_id, "the flow waits for no signal of this name")
    text = codec.tagged_json(payload, "$")
    refused = [bad for wait in waits if (bad := _refused(codec, wait, Signal(run_id, 0, name, text, 0))) is not None]
    if len(refused) == len(waits):
        raise refused[0]
    return text


def _refused(codec: Codec, wait: Wait[Any], signal: Signal) -> BadSignal | None:
    try:
        received(codec, wait.schema, signal)
    except BadSignal as bad:
        return bad
    return None
