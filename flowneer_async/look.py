"""Does a value hold anything that orjson would write as something else?

orjson writes tuples, UUIDs, Enum members, NaN and infinities without asking its `default` hook, so the objects have
to be looked at: all of them where a value is new, else only those whose JSON overlaps the bytes that changed. Finding
those costs one serialisation of what lies between them and the nearer end of the value, a quarter of it on average.
"""

import gc
from collections.abc import Iterator
from math import isfinite
from typing import TypeAlias, cast

import orjson

Container: TypeAlias = dict[str, object] | list[object]

PLAIN = frozenset({dict, list, str, int, float, bool, type(None)})
"""The types that come back from JSON as what they were."""

SMALL = 4096
"""Bytes of JSON up to which a look at every object costs less than a search."""

SCALARS = PLAIN - {dict, list}
"""Those of them that never change, and have nothing inside."""

_WINDOWS = 32  # parts into which a search splits a container


def is_plain(value: object) -> bool:
    """Is `value`, which orjson could serialise, made of exactly JSON's types and finite numbers?"""
    level: list[object] = [value]
    while level:
        kinds = set(map(type, level))
        if not kinds <= PLAIN:
            return False
        if float in kinds and not all(isfinite(number) for number in level if type(number) is float):
            return False
        # The children of a whole level in one call; no cycles here, for orjson came to an end.
        level = gc.get_referents(*level)
    return True


def is_plain_within(value: object, size: int, start: int, end: int) -> bool:
    """The same of those nodes only that overlap bytes `start` to `end` of the value's JSON, `size` bytes long."""
    if type(value) not in (dict, list):
        return is_plain(value)
    if start == end:  # something was taken out: what it stood in may be another thing now
        start, end = start - 1, end + 1
    if size <= SMALL or 2 * (end - start) > size:
        return is_plain(value)
    container = cast(Container, value)
    if len(container) == 1:
        child, offset = _only_child(container)
        return is_plain_within(child, size - offset - 1, start - offset, end - offset)
    from_end = start + end > size
    for part, first, last in _windows(container, size, from_end=from_end):
        # A part's own JSON has a bracket before its first byte: hence the 1.
        if (
            first < end
            and start < last
            and not is_plain_within(part, last - first + 2, start - first + 1, end - first + 1)
        ):
            return False
        if (last <= start) if from_end else (first >= end):
            break
    return True


def _only_child(container: Container) -> tuple[object, int]:
    """The one child, and where its JSON begins."""
    if isinstance(container, list):
        return container[0], 1
    ((key, child),) = container.items()
    return child, 2 + len(orjson.dumps(key))


def _windows(container: Container, size: int, *, from_end: bool) -> Iterator[tuple[Container, int, int]]:
    """Parts of a container from its nearer end on, each with the bytes, first to last, that it takes of the JSON."""
    edge = size - 1 if from_end else 1
    for part in _parts(container, from_end=from_end):
        length = len(orjson.dumps(part)) - 2
        first = edge - length if from_end else edge
        yield part, first, first + length
        edge = first - 1 if from_end else first + length + 1


def _parts(container: Container, *, from_end: bool) -> Iterator[Container]:
    step = len(container) // _WINDOWS + 1
    starts = range(0, len(container), step)
    order = reversed(starts) if from_end else starts
    if isinstance(container, list):
        return (container[start : start + step] for start in order)
    items = list(container.items())
    return (dict(items[start : start + step]) for start in order)
