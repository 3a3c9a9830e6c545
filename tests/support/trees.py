"""States to try the differ with: trees of JSON, trees that differ in one place, and values that JSON does not have."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
QUICK = settings(deadline=None, max_examples=100, suppress_health_check=SLOW)
LONG = settings(deadline=None, max_examples=2_000, suppress_health_check=SLOW)

TWINS = [0, 0.0, -0.0, False, "", None, 1, 1.0, True, "1", "null", "é", "è", "日本", "😀", "\x00", '"\\', [], {}]
"""Values that are easily taken for one another, or share a part of their bytes."""

SIZES = [(0, 0), (0, 100), (100, 0), (100, 100), (2_000, 3_000), (0, 5_000), (5_000, 0), (40_000, 100), (100, 40_000)]
"""Bytes before and after a change: the differ searches from 4 KB on, and folds in chunks of 32 KB."""

leaves = st.one_of(
    st.sampled_from(TWINS), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False)
)
leaves = leaves | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.sampled_from(["a", "b", "é", "", "long name", "$x", "a.b"])
trees = st.recursive(
    leaves, lambda part: st.lists(part, max_size=5) | st.dictionaries(names, part, max_size=4), max_leaves=12
)


@st.composite
def near(draw: st.DrawFn, tree: Any) -> Any:
    """A copy of a tree with one thing changed, somewhere in it."""
    if isinstance(tree, str) and draw(st.booleans()):
        at = draw(st.integers(0, len(tree)))
        return tree[:at] + draw(st.sampled_from(["x", "é", "😀"])) + tree[at + draw(st.integers(0, 1)) :]
    if not isinstance(tree, (list, dict)) or not tree:
        return draw(leaves)
    key = draw(st.sampled_from(range(len(tree)) if isinstance(tree, list) else list(tree)))
    change = draw(st.sampled_from([_removed, _added, _moved, None, None, None]))
    changed = deepcopy(tree)
    if change is None:
        changed[key] = draw(near(tree[key]))
    else:
        change(changed, key, draw(leaves))
    return changed


def _removed(tree: Any, key: Any, _new: object) -> None:
    del tree[key]


def _added(tree: Any, key: Any, new: object) -> None:
    if isinstance(tree, list):
        tree.insert(key, new)
    else:
        tree[f"{key}+"] = new


def _moved(tree: Any, key: Any, _new: object) -> None:
    """To the end: in a dict, nothing but the order of the keys changes."""
    moved = tree.pop(key)
    if isinstance(tree, list):
        tree.append(moved)
    else:
        tree[key] = moved


def filler(size: int) -> list[object]:
    """Some `size` bytes of JSON with every kind of value in it."""
    return [{"id": number, "name": "né", "ok": number % 2 == 0, "x": [1.5, None, {}]} for number in range(size // 50)]


def wrapped(shape: str, inner: object, before: int, after: int) -> object:
    """A tree with about so many bytes before and after `inner`."""
    shapes: dict[str, Callable[[], object]] = {
        "bare": lambda: inner,
        "list": lambda: [*filler(before), inner, *filler(after)],
        "dict": lambda: {**_named("b", before), "it": inner, **_named("a", after)},
        "text": lambda: ["é" * (before // 2), inner, "x" * after],
        "deep": lambda: {"o": [[filler(before), {"one": {"only": [inner]}}], filler(after)]},
    }
    return shapes[shape]()


SHAPES = ["bare", "list", "dict", "text", "deep"]


def _named(prefix: str, size: int) -> dict[str, object]:
    return {f"{prefix}{number}": part for number, part in enumerate(filler(size))}


@st.composite
def near_states(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two states that differ in very little: in one place of one value, in a key, or in nothing."""
    tree = draw(trees)
    other = draw(near(tree))
    shape, (before, after) = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(SIZES))
    first: dict[str, Any] = {"kept": draw(leaves), "it": wrapped(shape, tree, before, after)}
    second: dict[str, Any] = {"kept": deepcopy(first["kept"]), "it": wrapped(shape, other, before, after)}
    for state in (first, second):
        state.update(draw(st.dictionaries(names, leaves, max_size=2)))
    return first, second


CET = timezone(timedelta(hours=1))

RARE: list[Any] = [
    *(float("nan"), float("inf"), float("-inf")),
    *(2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**30, -(10**30), 2**200),
    *(b"", b"\x00\xff", bytearray(b"ab"), bytearray()),
    *((), (1,), (1, (2, [3, (4,)])), ([],), {1, 2}, set(), frozenset(), frozenset({1}), {(1, 2), frozenset({b"x"})}),
    *map(
        Decimal,
        ["0", "-0", "NaN", "-NaN", "sNaN", "NaN12", "Infinity", "-Infinity", "1.10", "0E+7", "1E-999", "1E+999"],
    ),
    *(datetime(2024, 2, 29, 1, 2, 3, 4), datetime(1, 1, 1, tzinfo=UTC), datetime.max, datetime(2024, 1, 1, tzinfo=CET)),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("UTC")),
    datetime(2024, 10, 27, 2, 30, fold=1),
    datetime(2024, 1, 1, tzinfo=timezone(-timedelta(hours=3, minutes=30, seconds=7, microseconds=9))),
    *(date(2024, 2, 29), date.min, time(1, 2, 3, 4), time(), time(2, 30, tzinfo=UTC, fold=1)),
    *(time(2, tzinfo=ZoneInfo("Europe/Paris")), timedelta(), timedelta(-1, 5, 7), timedelta.max, timedelta.min),
    *(UUID(int=0), UUID("12345678-1234-5678-1234-567812345678")),
    *("\ud800", "a\udfff", "\ud83d\ude00", {"\ud800": 1}),
    *(
        {1: "a"},
        {None: 1, True: 2, 1.5: 3},
        {(1, 2): 3},
        {b"k": {frozenset({1}): 1}},
        {date(2024, 1, 1): 1},
        {2**70: 0},
    ),
    *(
        {"$set": [1]},
        {"$dict": []},
        {"$": 1},
        {"$ref": 1, "x": 2},
        {"$tuple": ({"$set": [1]},)},
        {"$object": ["a", {}]},
    ),
    {"$int": float("nan"), "$str": (1,)},
]
"""Values that JSON does not have, or that look like tags."""

rare = st.sampled_from(RARE)
