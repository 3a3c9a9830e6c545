"""The ready reducers: what they make of the values of several lanes, and what they refuse."""

import builtins
import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from types import FrameType
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async.errors import CannotReduce, RunError
from flowneer_async.reducers import append, last, sum, union
from tests.support.exact import exact, exact_state
from tests.support.trees import QUICK, rare, trees

SECRET = "hunter2"
NAN = float("nan")
FEW = settings(QUICK, max_examples=25)
Reduce = Callable[[Any, list[Any]], Any]

numbers = st.integers() | st.floats(-1e300, 1e300)
decimals = st.integers(-(10**9), 10**9) | st.decimals(-(10**9), 10**9, places=3)
items = trees | rare
dicts = st.dictionaries(st.sampled_from(["a", "b", "c", 1, None]), items, max_size=4)
KINDS: dict[str, tuple[Reduce, st.SearchStrategy[Any]]] = {
    "append": (append, st.lists(items, max_size=3)),
    "sum": (sum, numbers),
    "sum of decimals": (sum, decimals),
    "union of dicts": (union, dicts),
    "union of sets": (union, st.sets(st.integers(0, 5) | st.just(0.5))),
    "union of frozen sets": (union, st.frozensets(st.sampled_from("abc"))),
    "union of lists": (union, st.lists(items, max_size=4)),
    "last": (last, items),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


# Laws of all ----------------------------------------------------------------------------------------------------------


@each_kind
@FEW
@given(data=st.data())
def test_one_lane_alone_gives_its_value(kind: str, data: st.DataObject) -> None:
    """Type for type, with or without a value before, and however many lanes left that as it was."""
    reduce, values = KINDS[kind]
    before, value = data.draw(st.none() | values), data.draw(values)
    assert exact(reduce(before, [copy.deepcopy(value)])) == exact(value)
    idle = [copy.deepcopy(before)]
    assert exact(reduce(before, [*idle, copy.deepcopy(value), *idle])) == exact(value)


@each_kind
@FEW
@given(data=st.data())
def test_lanes_that_changed_nothing_give_what_was_before(kind: str, data: st.DataObject) -> None:
    """None of them, some or many."""
    reduce, values = KINDS[kind]
    before = data.draw(st.none() | values)
    assert exact(reduce(before, [copy.deepcopy(before) for _ in range(data.draw(st.integers(0, 3)))])) == exact(before)


@st.composite
def changed(draw: st.DrawFn, kind: str, before: Any) -> Any:
    """What a lane may make of a value: for `append`, something behind it."""
    value = draw(KINDS[kind][1])
    return [*copy.deepcopy(before or []), *value] if kind == "append" else value


GROUPED = [kind for kind in KINDS if kind != "sum"] + ["sum of integers"]


@pytest.mark.parametrize("kind", GROUPED)
@FEW
@given(data=st.data())
def test_lanes_may_be_merged_in_groups(kind: str, data: st.DataObject) -> None:
    """Merging what some of them come to with the rest gives what all of them give; a dict in another order, perhaps."""
    reduce, values = (sum, st.integers()) if kind == "sum of integers" else KINDS[kind]
    before = data.draw(st.none() | values)
    lane = values if kind == "sum of integers" else changed(kind, before)
    lanes = data.draw(st.lists(lane, min_size=1, max_size=4))
    cut = data.draw(st.integers(1, len(lanes)))
    group = reduce(copy.deepcopy(before), copy.deepcopy(lanes[:cut]))
    told: Any = exact_state if kind == "union of dicts" else exact
    assert told(reduce(before, [group, *lanes[cut:]]) or {}) == told(reduce(before, lanes) or {})


@each_kind
@FEW
@given(data=st.data())
def test_what_is_given_is_left_as_it_is(kind: str, data: st.DataObject) -> None:
    """A reducer called by hand changes none of its arguments."""
    reduce, values = KINDS[kind]
    before = data.draw(st.none() | values)
    lanes = data.draw(st.lists(changed(kind, before), max_size=3))
    was = exact([before, lanes])
    reduce(before, lanes)
    assert exact([before, lanes]) == was


# append ---------------------------------------------------------------------------------------------------------------


@QUICK
@given(st.lists(items, max_size=3), st.lists(st.lists(items, max_size=3), max_size=4))
def test_append_puts_what_lanes_added_behind_what_was_there(before: list[Any], added: list[list[Any]]) -> None:
    """Lane by lane, in their order, whatever stands in the lists."""
    result = append(before, [[*copy.deepcopy(before), *more] for more in added])
    assert exact(result) == exact([*before, *(item for more in added for item in more)])


@pytest.mark.parametrize(
    ("before", "value"),
    [([1, 2], [1]), ([1, 2], [2, 1, 3]), ([1], [True, 2]), ([[1]], [[1.0]]), ([0.0], [-0.0, 1]), ([1], [0, 1])],
)
def test_append_refuses_a_lane_that_did_more_than_append(before: list[Any], value: list[Any]) -> None:
    """Its change to what was there would be lost: a removed, moved or changed item, 1 that became True."""
    assert append(before, [value]) == value
    with pytest.raises(CannotReduce, match="list before"):
        append(before, [[*before, 9], value])


# sum ------------------------------------------------------------------------------------------------------------------


@QUICK
@given(st.none() | st.integers(), st.lists(st.integers()))
def test_sum_adds_what_each_lane_added(before: int | None, added: list[int]) -> None:
    """Integers come to an integer, of any length, in any order of lanes."""
    start = before or 0
    result = sum(before, [start + more for more in added])
    if any(added):
        assert exact(result) == exact(builtins.sum(added, start))
    assert result == sum(before, [start + more for more in reversed(added)])


@pytest.mark.parametrize(
    ("before", "values", "total"),
    [
        (0, [1, 1], 2),
        (10, [9, 12, 8], 9),
        (None, [2, 3], 5),
        (1, [1.5, 2], 2.5),
        (0.1, [0.2, 0.3], 0.4),
        (1e16, [1e16 + 2, 1e16 + 4], 1e16 + 6),
        (0.0, [math.inf, 1.0], math.inf),
        (2**64, [2**64 + 1, 2**70], 2**70 + 1),
        (Decimal("1.10"), [Decimal("2.20"), 3], Decimal("4.10")),
        (Decimal("0.00"), [1, 2], Decimal(3)),
        (None, [Decimal("0.1"), Decimal("0.2")], Decimal("0.3")),
        (Decimal(0), [Decimal("1E+50"), Decimal("1E-50")], Decimal("1" + "0" * 50 + "." + "0" * 49 + "1")),
    ],
)
def test_sum_of_numbers_of_all_kinds(before: Any, values: list[Any], total: Any) -> None:
    """Exact where the kind of number is; else rounded once, not at every lane."""
    result = sum(before, values)
    assert (type(result), result) == (type(total), total)


@QUICK
@given(numbers, st.lists(numbers, min_size=2, max_size=6))
def test_the_order_of_lanes_does_not_count_in_a_sum(before: float, values: list[float]) -> None:
    """Not even by a bit in the last place."""
    try:
        result = sum(before, values)
    except CannotReduce:
        return
    assert exact(sum(before, values[::-1])) == exact(result)


@pytest.mark.parametrize(
    ("before", "values"),
    [
        (0.0, [math.inf, -math.inf]),
        (math.inf, [1.0, 2.0]),
        (0.0, [1.7e308, 1.6e308]),
        (0, [10**400, 0.5]),
        (Decimal(0), [Decimal("Infinity"), Decimal("-Infinity")]),
        (Decimal(0), [Decimal("1E+5000"), Decimal("1E-5000")]),
    ],
)
def test_sum_refuses_numbers_that_have_no_sum(before: Any, values: list[Any]) -> None:
    """It gives no NaN and no rounded Decimal in its place, and shows no number."""
    with pytest.raises(CannotReduce, match="to be added") as caught:
        sum(before, values)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# union ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "values", "expected"),
    [
        ({"a": 1}, [{"a": 1, "b": 2}, {"a": 1, "c": 3}], {"a": 1, "b": 2, "c": 3}),
        ({"a": 1}, [{"a": 2}, {"a": 3}], {"a": 3}),
        ({"a": 1, "b": 1}, [{"a": 2, "b": 1}, {"a": 1, "b": 2}], {"a": 2, "b": 2}),
        ({"a": 1, "b": 1}, [{"b": 1}, {"a": 1, "b": 2}], {"b": 2}),
        ({"a": 1, "b": 1}, [{"b": 1}, {"a": 2, "b": 1}], {"b": 1, "a": 2}),
        ({"a": 1, "b": 1}, [{"a": 2, "b": 1}, {"b": 1}], {"b": 1}),
        ({"a": 1, "b": 1}, [{"b": 1}, {"a": 2, "b": 1}, {"b": 1, "c": 1}], {"b": 1, "c": 1}),
        ({"a": 1}, [{"a": True}, {"a": 1, "b": 1}], {"a": True, "b": 1}),
        (None, [{"a": 1}, {"a": 2, "b": 2}], {"a": 2, "b": 2}),
        ({1, 2, 3}, [{1, 2, 4}, {2, 3, 5}], {2, 4, 5}),
        (None, [{1}, {2}], {1, 2}),
        (frozenset({1}), [frozenset({1, 2}), frozenset({3})], frozenset({2, 3})),
        ([1, 2], [[1, 2, 3], [1, 2, 4, 3]], [1, 2, 3, 4]),
        ([1, 2], [[2, 5], [1, 2, 4]], [2, 5, 4]),
        ([1], [[1, True], [1, 1.0, True]], [1, True, 1.0]),
        ([{"id": 1}], [[{"id": 1}, {"id": 2}], [{"id": 1}, {"id": 2}, {"id": 3}]], [{"id": 1}, {"id": 2}, {"id": 3}]),
        ([1, 1], [[1, 1, 2, 2], [1, 1, 3]], [1, 1, 2, 3]),
    ],
)
def test_union_has_what_was_there_and_what_lanes_added(before: Any, values: list[Any], expected: Any) -> None:
    """Less what any of them removed; of one key, what the last lane that touched it made of it."""
    assert exact(union(before, values)) == exact(expected)


@QUICK
@given(st.sets(st.integers(0, 9)), st.lists(st.sets(st.integers(0, 9)), max_size=4))
def test_union_of_sets_is_additions_less_removals(before: set[int], lanes: list[set[int]]) -> None:
    """In any order of lanes."""
    added = set[int]().union(*(lane - before for lane in lanes))
    removed = set[int]().union(*(before - lane for lane in lanes))
    assert union(before, lanes) == union(before, lanes[::-1]) == (before | added) - removed


@QUICK
@given(st.lists(items, max_size=3), st.lists(st.lists(items, max_size=3), min_size=2, max_size=4))
def test_union_adds_no_item_twice(before: list[Any], added: list[list[Any]]) -> None:
    """Of items that were not there before."""
    result: Any = union(before, [[*copy.deepcopy(before), *more] for more in added])
    if len([more for more in added if more]) < 2:
        return
    seen = [repr(exact(item)) for item in result[len(before) :]]
    assert exact(result[: len(before)]) == exact(before)
    assert len(seen) == len(set(seen))
    assert {repr(exact(item)) for more in added for item in more} <= set(seen) | {repr(exact(item)) for item in before}


# What is the same -----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Plain:
    number: Any


@dataclass
class Note:
    number: Any

    def __repr__(self) -> str:
        return "Note"


class Struct(msgspec.Struct):
    number: Any


class Model(pydantic.BaseModel):
    number: Any = pydantic.Field(repr=False)


class Level(IntEnum):
    ONE = 1


TYPES: list[Callable[[Any], Any]] = [Plain, Note, Struct, lambda number: Model(number=number), lambda number: [number]]


@pytest.mark.parametrize("made", TYPES, ids=["no __eq__", "own repr", "Struct", "model", "list"])
@pytest.mark.parametrize("number", [1, NAN, (1, NAN), Decimal("sNaN")], ids=repr)
def test_a_value_that_was_loaded_again_is_no_change(made: Callable[[Any], Any], number: Any) -> None:
    """Though Python calls it another one: an object without __eq__, or NaN. An earlier lane's change is kept."""
    before, same = {"a": made(number)}, {"a": made(copy.deepcopy(number))}
    new = made(7)
    assert union(before, [{"a": new}, {**same, "b": 1}]) == {"a": new, "b": 1}
    items: Any = append([made(number)], [[made(number), 1], [made(number), 2]])
    assert items[1:] == [1, 2]


def test_sets_of_the_same_items_are_the_same() -> None:
    """In whatever order their items come out."""
    one, same = {0, 8}, {8, 0}
    assert list(one) != list(same)
    assert union({"a": one}, [{"a": {1}}, {"a": same, "b": 1}]) == {"a": {1}, "b": 1}


@pytest.mark.parametrize("made", TYPES, ids=["no __eq__", "own repr", "Struct", "model", "list"])
@pytest.mark.parametrize("other", [True, 1.0, Level.ONE, Decimal(1)], ids=repr)
def test_a_value_that_python_calls_equal_is_a_change(made: Callable[[Any], Any], other: Any) -> None:
    """1 is not True, and not 1.0, however deep."""
    result: Any = union({"a": made(1), "b": 0}, [{"a": made(other), "b": 0}, {"a": made(1), "b": 1}])
    assert repr(exact(result["a"])) == repr(exact(made(other)))
    with pytest.raises(CannotReduce):
        append([made(1)], [[made(other)], [made(1), 2]])


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduce", "before", "values", "types"),
    [
        (append, [], [[1], (2,)], "list, tuple"),
        (append, SECRET, [[1]], "list, str"),
        (append, None, [{SECRET: 1}], "dict"),
        (append, (1,), [(1, 2), (1, 3)], "tuple"),
        (sum, 0, [1, SECRET], "int, str"),
        (sum, 0, [True, 2], "bool, int"),
        (sum, 0.5, [Decimal(1), Decimal(2)], "Decimal, float"),
        (sum, [1], [[1, 2], [1, 3]], "list"),
        (sum, 1, [None, 2], "NoneType, int"),
        (union, {}, [{"a": 1}, [SECRET]], "dict, list"),
        (union, {1}, [frozenset({2}), {3}], "frozenset, set"),
        (union, (1,), [(1, 2)], "tuple"),
        (union, None, ["a", "b"], "str"),
    ],
)
def test_values_of_other_types_are_refused(reduce: Reduce, before: Any, values: list[Any], types: str) -> None:
    """The error names the reducer and the types, and no value; it is one of a run."""
    with pytest.raises(CannotReduce) as caught:
        reduce(before, values)
    error = caught.value
    assert isinstance(error, RunError)
    assert (error.reducer, error.step, error.key) == (reduce.__name__, None, None)
    assert f"was given {types}" in str(error)
    assert SECRET not in str(error)
    assert error.__cause__ is None


def test_last_takes_anything() -> None:
    """Lanes of any types: the last that changed it."""
    assert last([1], [{"a": 1}, "x", [1]]) == "x"


# Many lanes -----------------------------------------------------------------------------------------------------------


def steps(reduce: Reduce, before: Any, values: list[Any]) -> int:
    """How many instructions a call takes."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> object:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before_that = sys.gettrace()
    sys.settrace(trace)  # pyright: ignore[reportArgumentType]
    try:
        reduce(before, values)
    finally:
        sys.settrace(before_that)
    return count


MANY: dict[str, tuple[Reduce, Callable[[int], Any], Callable[[int], Any]]] = {
    "append": (append, lambda lanes: [0], lambda lane: [0, lane]),
    "sum": (sum, lambda lanes: 0, lambda lane: lane + 1),
    "sum of floats": (sum, lambda lanes: 0.5, lambda lane: lane + 1),
    "keys of their own": (union, lambda lanes: {}, lambda lane: {lane: 1}),
    "one key": (union, lambda lanes: {"a": 1}, lambda lane: {"a": -lane}),
    "each clears a dict": (union, lambda lanes: dict.fromkeys(range(-lanes, 0)), lambda lane: {lane: 1}),
    "each clears a list": (union, lambda lanes: list(range(-lanes, 0)), lambda lane: [lane]),
    "each clears a set": (union, lambda lanes: set(range(-lanes, 0)), lambda lane: {lane}),
    "last": (last, lambda lanes: 0, lambda lane: lane),
}


@pytest.mark.parametrize("kind", MANY)
def test_ten_times_the_lanes_take_ten_times_the_steps(kind: str) -> None:
    """Not a hundred times, whatever lanes add or remove."""
    reduce, before, made = MANY[kind]
    steps(reduce, before(1), [made(0)])  # Python 3.12.1 counts from the second call on
    few, many = (steps(reduce, before(lanes), [made(lane) for lane in range(lanes)]) for lanes in (40, 400))
    assert many <= 11 * few
