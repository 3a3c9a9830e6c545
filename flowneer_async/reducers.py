"""Ready reducers, for what several lanes made of one key: `append`, `sum`, `union` and `last`.

Each takes the value before the lanes (None if there was none) and the values of the lanes, in their order. A lane that
left the value as it was has no say; where only one changed it, its value is taken as it is.
"""

import builtins
from collections.abc import Callable, Hashable, Iterable, Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation, localcontext
from functools import cache
from math import fsum
from typing import Any, TypeAlias, cast

from flowneer_async.encoding import plain_json
from flowneer_async.errors import CannotReduce
from flowneer_async.look import is_plain
from flowneer_async.state import Items, named_types

_Join: TypeAlias = Callable[[Any, list[Any]], object]

_NUMBERS: list[set[type]] = [{int, float}, {int, Decimal}]
_COLLECTIONS: list[set[type]] = [{dict}, {set}, {frozenset}, {list}]
_OWN_IDENTITY = frozenset({str, int, type(None)})
_DECIMALS = Context(prec=1000, traps=[Inexact, InvalidOperation])  # as exact as can be, or refused


def append(before: object, values: Sequence[object]) -> object:
    """Lists: the one before, and what each lane has added behind it, lane by lane.

    Raises CannotReduce for anything else, and where one of several lanes did more to the list than add behind it.
    """
    return _reduced("append", "lists", [{list}], before, values, _append)


def sum(before: object, values: Sequence[object]) -> object:
    """Numbers: the one before, and by how much each lane has changed it.

    Integers and Decimals are added exactly, floats as if they were, rounded once. Raises CannotReduce for anything else
    (a bool is no number), for a Decimal and a float together, and where the sum is no number.
    """
    return _reduced("sum", "int with float, or int with Decimal", _NUMBERS, before, values, _sum)


def union(before: object, values: Sequence[object]) -> object:
    """Dicts, sets or lists: what was there before and no lane has removed, and what lanes have added.

    In a dict also the values that lanes have changed; where several set or removed one key, the last of them counts. To
    a list, each item is added once, in the order of lanes. Raises CannotReduce for anything else.
    """
    return _reduced("union", "dict, set, frozenset or list, all alike", _COLLECTIONS, before, values, _union)


def last(before: object, values: Sequence[object]) -> object:
    """Anything: the value of the last lane that changed it."""
    moved = _moved(before, values)
    return moved[-1] if moved else before


def _reduced(
    name: str, takes: str, kinds: Sequence[set[type]], before: object, values: Sequence[object], join: _Join
) -> object:
    moved = _moved(before, values)
    given = {type(value) for value in (moved if before is None else [before, *moved])}
    if moved and not any(given <= together for together in kinds):
        found = ", ".join(sorted(kind.__qualname__ for kind in given))
        raise CannotReduce(name, f"it takes {takes}, and was given {found}")
    if len(moved) > 1:
        return join(before, moved)
    return moved[0] if moved else before


def _append(before: list[object] | None, moved: list[list[object]]) -> list[object]:
    result = list(before or ())
    size, start = len(result), _identity(result)
    for value in moved:
        if _identity(value[:size]) != start:
            raise CannotReduce("append", "a lane has changed or removed what was in the list before")
        result.extend(value[size:])
    return result


def _sum(before: Any, moved: list[Any]) -> object:
    start = 0 if before is None else before
    try:
        if float in map(type, (start, *moved)):
            # Not by differences, which are rounded.
            return fsum([start, *(part for value in moved for part in (value, -start))])
        with localcontext(_DECIMALS):
            return builtins.sum((value - start for value in moved), start)
    except (ArithmeticError, ValueError):  # a message of theirs may hold a number
        raise CannotReduce("sum", "its numbers are too large, too long or too infinite to be added") from None


def _union(before: Any, moved: list[Any]) -> object:
    if isinstance(moved[0], dict):
        return _union_of_pairs(before or {}, moved)
    kind = cast(Callable[[Any], object], type(moved[0]))
    return kind(_union_of_items(before or (), moved))


def _union_of_items(before: Iterable[object], moved: Iterable[Iterable[object]]) -> list[object]:
    old = [(_identity(item), item) for item in before]
    kept = known = frozenset(identity for identity, _ in old)
    added: dict[Hashable, object] = {}
    for value in moved:
        items = {_identity(item): item for item in value}
        kept = kept.intersection(items)
        for identity, item in items.items():
            if identity not in known:
                added.setdefault(identity, item)
    return [*(item for identity, item in old if identity in kept), *added.values()]


def _union_of_pairs(before: dict[object, object], moved: Iterable[dict[object, object]]) -> dict[object, object]:
    old = {key: _identity(item) for key, item in before.items()}
    result, removable = dict(before), set(before)
    for value in moved:
        # Only keys that are still there: each is looked for in vain but once.
        for key in [key for key in removable if key not in value]:
            removable.discard(key)
            del result[key]
        for key, item in value.items():
            if key not in old:
                result[key] = item
            elif _identity(item) != old[key]:
                result[key] = item
                removable.add(key)
    return result


def _moved(before: object, values: Sequence[object]) -> list[object]:
    """The values that are not what was there before."""
    kind, start = type(before), _identity(before)
    return [value for value in values if type(value) is not kind or _identity(value) != start]


def _identity(value: object) -> Hashable:
    """What is equal only for values that are the same to a byte: not for 1 and True, but for NaN and NaN."""
    if type(value) in _OWN_IDENTITY:
        return value
    text = plain_json(value)
    return text if text is not None and is_plain(value) else _taken_apart(value)


def _taken_apart(value: object) -> Hashable:
    """The same of a value that is more than its plain JSON says."""
    kind = cast(type, type(value))
    if kind in _OWN_IDENTITY:
        return value
    if kind in (list, tuple):
        return kind, tuple(map(_taken_apart, cast(Iterable[object], value)))
    if kind is dict:
        pairs = cast(Items, value).items()
        return kind, tuple((_taken_apart(key), _taken_apart(part)) for key, part in pairs)
    if kind in (set, frozenset):
        return kind, frozenset(map(_taken_apart, cast(Iterable[object], value)))
    items = _items_of(kind)
    # What has no fields is a float, a date, a member of an Enum…: these say all that they are.
    return kind, repr(value) if items is None else _taken_apart(items(value))


@cache
def _items_of(kind: type) -> Callable[[object], Items] | None:
    shape = named_types(kind)[0].get(kind.__qualname__)
    return None if shape is None else shape.items
