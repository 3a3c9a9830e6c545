"""The closed set of tags for single values: `{"$bytes": "AAE="}` and its kind.

A writer gives what stands in the JSON for a value, or raises ValueError with the reason why nothing can; a reader takes
what stands behind its tag.
"""

import base64
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

_Zone: TypeAlias = list[str | float] | None


def _write_str(value: str) -> object:
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return {"$str": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}
    return value


def _write_int(value: int) -> object:
    # Hexadecimal, for Python limits the length of decimal ones.
    return value if -(2**63) <= value < 2**64 else {"$int": hex(value)}


def _write_float(value: float) -> object:
    return value if math.isfinite(value) else {"$float": str(value)}


def _write_base64(tag: str) -> Callable[[bytes], object]:
    return lambda value: {tag: base64.b64encode(value).decode()}


def _write_datetime(value: datetime) -> object:
    return {"$datetime": [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value.tzinfo)]}


def _write_time(value: time) -> object:
    return {"$time": [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value.tzinfo)]}


def _zone(zone: tzinfo | None) -> _Zone:
    if zone is None:
        return None
    if type(zone) is ZoneInfo and _key(zone):
        return ["zone", zone.key]
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        if repr(zone) in (repr(timezone(offset)), repr(UTC)):
            return ["offset", offset.total_seconds()]
    raise ValueError("has a time zone that cannot be written: use timezone.utc, an offset without a name, or ZoneInfo")


def _key(zone: ZoneInfo) -> str | None:
    """The name of a zone; one read from a file has none, which its annotation does not say."""
    return zone.key


def _read_zone(zone: _Zone) -> tzinfo | None:
    if zone is None:
        return None
    kind, value = zone
    return ZoneInfo(str(value)) if kind == "zone" else timezone(timedelta(seconds=float(value)))


WRITERS: dict[type, Callable[[Any], object]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    str: _write_str,
    int: _write_int,
    float: _write_float,
    bytes: _write_base64("$bytes"),
    bytearray: _write_base64("$bytearray"),
    Decimal: lambda value: {"$decimal": str(value)},
    UUID: lambda value: {"$uuid": str(value)},
    datetime: _write_datetime,
    date: lambda value: {"$date": value.isoformat()},
    time: _write_time,
    timedelta: lambda value: {"$timedelta": [value.days, value.seconds, value.microseconds]},
}

READERS: dict[str, Callable[[Any], object]] = {
    "$str": lambda text: base64.b64decode(text).decode("utf-8", "surrogatepass"),
    "$int": lambda text: int(text, 16),
    "$float": float,
    "$bytes": base64.b64decode,
    "$bytearray": lambda text: bytearray(base64.b64decode(text)),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$datetime": lambda parts: datetime.fromisoformat(parts[0]).replace(fold=parts[1], tzinfo=_read_zone(parts[2])),
    "$date": date.fromisoformat,
    "$time": lambda parts: time.fromisoformat(parts[0]).replace(fold=parts[1], tzinfo=_read_zone(parts[2])),
    "$timedelta": lambda parts: timedelta(*parts),
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$dict": dict,
}

SEQUENCES: dict[type, str] = {list: "", tuple: "$tuple"}
SETS: dict[type, str] = {set: "$set", frozenset: "$frozenset"}
