"""Nothing is lost silently: each value comes back as it was, or is refused with its path."""

import inspect
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from io import BytesIO
from typing import Any, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async import StateNotSerializable, StateTypeUnknown, diff
from flowneer_async.differ import Mirror, Patch
from flowneer_async.encoding import JSON, Codec
from flowneer_async.state import named_types
from flowneer_async.versions import Head, fold, grow
from tests.support.exact import exact_state
from tests.support.trees import LONG, QUICK, RARE, SHAPES, near, rare, trees, wrapped

State = dict[str, Any]
SECRET = "hunter2"
NAMES = [f"{number}-{type(value).__name__}" for number, value in enumerate(RARE)]


def stored(codec: Codec, *states: State) -> State:
    """The last of some states, each given as the next version of one run, as a resolve would give it back."""
    mirror, head, rows = Mirror(codec), Head("run"), []
    for state in states:
        change = mirror.advance(state)
        body = b"" if change is None else change.encode()
        row, head = grow(head, body if rows else mirror.whole().encode(), not rows, 0, "step", 0)
        rows.append(row)
    return {key: codec.load(text) for key, text in fold(rows).items()}


def check_exact(before: State, after: State, codec: Codec = JSON) -> None:
    change = diff(before, after, codec)
    applied = before if change is None else change.apply(before)
    assert exact_state(applied) == exact_state(after)
    assert exact_state(stored(codec, before, after)) == exact_state(after)


def refused(state: State, codec: Codec = JSON, before: State | None = None) -> StateNotSerializable:
    with pytest.raises(StateNotSerializable) as caught:
        diff(before or {}, state, codec)
    return caught.value


# What comes back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", RARE, ids=NAMES)
def test_a_rare_value_comes_back_as_it_was(value: object) -> None:
    """With its type and all that it says: by itself, nested, and as one item beside others."""
    for state in ({"at": value}, {"at": [value]}, {"at": {"a": [1, {"b": value}], "c": 2}}, {"at": (value, [value])}):
        check_exact({}, state)
        check_exact({"at": None}, state)
        assert diff(state, deepcopy(state)) is None


@pytest.mark.parametrize("value", RARE, ids=NAMES)
def test_a_rare_value_goes_away_again(value: object) -> None:
    """A value that needed tags becomes a plain one, and the other way round."""
    plain, tagged = {"at": [1, [2] * 50, {"x": "plain"}]}, {"at": [1, [2] * 50, {"x": value}]}
    for states in ((plain, tagged, plain), (tagged, plain, tagged), (tagged, plain, {}, tagged)):
        assert exact_state(stored(JSON, *states)) == exact_state(states[-1])


PLACED: dict[str, Callable[[Any], object]] = {
    "replaced": lambda new: [1, "x", {"k": new}],
    "put first": lambda new: [new, 1, "x", {"k": 2}],
    "put last": lambda new: [1, "x", {"k": 2}, new],
    "under a new key": lambda new: [1, "x", {"k": 2, "new": new}],
    "around": lambda new: [1, "x", {"k": [new, 2]}],
}
sizes = st.sampled_from([0, 30, 3_000, 9_000])


def check_appears(shape: str, placed: str, value: object, around: tuple[int, int]) -> None:
    before, after = ({"at": wrapped(shape, inner, *around)} for inner in ([1, "x", {"k": 2}], PLACED[placed](value)))
    check_exact(before, after)


@QUICK
@given(st.sampled_from(SHAPES), st.sampled_from(list(PLACED)), rare, st.tuples(sizes, sizes))
def test_a_rare_value_that_appears_in_a_big_plain_one_is_seen(
    shape: str, placed: str, value: object, around: tuple[int, int]
) -> None:
    """In whatever place of whatever container."""
    check_appears(shape, placed, value, around)


@pytest.mark.torture
@LONG
@given(st.sampled_from(SHAPES), st.sampled_from(list(PLACED)), rare, st.tuples(sizes, sizes))
def test_a_rare_value_that_appears_in_a_big_plain_one_is_seen_for_long(
    shape: str, placed: str, value: object, around: tuple[int, int]
) -> None:
    """The same law for many more places."""
    check_appears(shape, placed, value, around)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kept", [slice(1, None), slice(-1), slice(1, 2), slice(0, 0)], ids=str)
def test_a_list_that_becomes_a_shorter_tuple_is_seen(shape: str, kept: slice) -> None:
    """Though bytes are only taken out, and none put in."""
    before, after = [1, 2, 3], (1, 2, 3)[kept]
    check_exact({"at": wrapped(shape, before, 9_000, 9_000)}, {"at": wrapped(shape, after, 9_000, 9_000)})


ALIKE: list[tuple[Any, Any]] = [
    (None, float("nan")),
    (None, float("-inf")),
    ([1, 2], (1, 2)),
    ("12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
    ([{"a": [[]]}], [{"a": [()]}]),
]


@pytest.mark.parametrize(("plain", "other"), ALIKE, ids=repr)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_value_of_another_type_with_the_same_json_is_seen(plain: object, other: object, shape: str) -> None:
    """In a value of up to 4 KB, though not one byte that orjson writes has changed."""
    for before, after in ((plain, other), (other, plain)):
        check_exact({"at": wrapped(shape, before, 900, 900)}, {"at": wrapped(shape, after, 900, 900)})


@QUICK
@given(trees, st.data())
def test_a_tree_beside_a_rare_value_changes_like_any_other(tree: Any, data: st.DataObject) -> None:
    """Where tags are written, the rest is as exact as without them."""
    value, other = data.draw(rare), data.draw(near(tree))
    check_exact({"at": [tree, value]}, {"at": [other, value]})


@QUICK
@given(st.recursive(rare | st.integers(), lambda part: st.lists(part) | st.lists(part).map(tuple), max_leaves=6), trees)
def test_rare_values_in_rare_values_come_back(value: object, tree: object) -> None:
    """Tags stand in tags."""
    check_exact({"at": tree}, {"at": value})


def test_an_int_may_have_more_digits_than_python_prints() -> None:
    """The limit that Python puts on decimal digits is no limit for a state."""
    check_exact({}, {"at": [10**5000, -(10**5000), {10**5000: ()}]})


def test_a_state_key_may_look_like_a_tag() -> None:
    """The keys of a state are no place where tags are read."""
    for key in ("$set", "$ref", "$dict", "", "a.b", '"', "\n", "é"):
        check_exact({}, {key: [1]})
        check_exact({key: [1]}, {key: [1, (2,)]})


def test_sets_give_the_same_bytes_in_any_order() -> None:
    """Two equal sets that were built differently are no change."""
    one, other = {0, 8}, {8, 0}
    assert list(one) != list(other), "built so that they are gone through in two orders"
    assert diff({"at": one}, {"at": other}) is None


# Types that the state's type names ------------------------------------------------------------------------------------


class Color(Enum):
    RED = "red"
    BOTH = ("a", 1)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Rights(Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Point:
    x: object
    y: int = 0


@dataclass(slots=True)
class Order:
    items: list[Any] = field(default_factory=list)
    next: "Order | None" = None


class Model(pydantic.BaseModel):
    name: str
    point: Point


class Struct(msgspec.Struct):
    values: list[Any]


class Whole(TypedDict):
    color: Color | Level
    words: dict[str, tuple[Word, ...]]
    rights: Rights
    order: Order
    models: list[Model]
    struct: Struct


KNOWING = Codec(*named_types(Whole))
NAMED: list[Any] = [
    *(Color.RED, Color.BOTH, Level.LOW, Word.YES, Rights.READ | Rights.WRITE, Rights(0)),
    *(Point(1), Point((1, float("nan")), 2), Order(), Order([1, Point({1})], Order([Color.RED]))),
    *(Model(name="a", point=Point(1)), Struct([Struct([b"x"])]), {Point(1): {Color.RED}}, (Level.LOW, True, 1)),
]


@pytest.mark.parametrize("value", NAMED, ids=repr)
def test_a_value_of_a_named_type_comes_back(value: object) -> None:
    """Wherever it stands, also where orjson would have written it as something else."""
    for state in ({"at": value}, {"at": [1, {"a": value}]}, {"at": wrapped("deep", value, 6_000, 6_000)}):
        check_exact({}, state, KNOWING)
        check_exact({"at": wrapped("deep", "before", 6_000, 6_000)}, state, KNOWING)
        assert diff(state, deepcopy(state), KNOWING) is None


@pytest.mark.parametrize(
    "value", [Color.RED, Level.LOW, Word.YES, Rights.READ, Point(1), Order(), Struct([])], ids=repr
)
def test_a_value_of_a_type_that_is_not_named_is_refused(value: object) -> None:
    """At once, even where orjson writes it without asking; the message says what to do."""
    for at, state in {"$.at": value, "$.at[1]": [1, value], "$.at.a[0]": {"a": (value,)}}.items():
        error = refused({"at": state})
        assert error.path == at
        assert type(value).__qualname__ in error.reason
        assert "name it in the state's type" in error.reason


def test_another_type_of_a_named_type_s_name_is_refused() -> None:
    """It would come back as the one that is named."""
    for other in (Enum("Color", {"RED": "red"}), dataclass(type("Order", (), {}))):
        value = other("red") if issubclass(other, Enum) else other()
        assert other.__qualname__ in ("Color", "Order")
        assert refused({"at": [value]}, KNOWING).path == "$.at[0]"


def test_a_stored_type_that_is_not_named_any_more_is_an_error() -> None:
    """It is never imported by its name, and never given as a dict."""
    for value in (Color.RED, Order()):
        change = diff({}, {"at": [value]}, KNOWING)
        assert change is not None
        with pytest.raises(StateTypeUnknown) as caught:
            JSON.load(Patch.decode(change.encode()).sets["at"])
        assert caught.value.type_name == type(value).__qualname__


def test_a_subclass_of_a_named_type_is_refused() -> None:
    """It would come back as its base."""

    @dataclass
    class Special(Order):
        more: int = 0

    assert refused({"at": [Special()]}, KNOWING).path == "$.at[0]"


# What is refused ------------------------------------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Whim(tzinfo):
    def utcoffset(self, dt: datetime | None) -> timedelta:
        assert dt is not None
        return timedelta(hours=dt.hour)


Pair = namedtuple("Pair", "a b")


class Typed(NamedTuple):
    a: int


def zone_without_a_name() -> ZoneInfo:
    """One read from a file: the shortest there is, of version 1."""
    return ZoneInfo.from_file(BytesIO(b"TZif" + bytes(35) + b"\x01" + bytes(3) + b"\x04" + bytes(6) + b"UTC\0"))


REFUSED: dict[str, Any] = {
    "a function": lambda state: None,
    "a method": [].append,
    "a class": int,
    "a module": sys,
    "a generator": iter([1]),
    "a range": range(3),
    "an object": object(),
    "a view of bytes": memoryview(b""),
    "a complex number": 1j,
    "an exception": ValueError(SECRET),
    "a str of its own kind": Text(SECRET),
    "an int of its own kind": type("Int", (int,), {})(7),
    "a float of its own kind": type("Float", (float,), {})(7.5),
    "a dict of its own kind": OrderedDict(a=SECRET),
    "a list of its own kind": type("List", (list,), {})([SECRET]),
    "a tuple of its own kind": Pair(1, SECRET),
    "a typed tuple": Typed(7),
    "a Decimal of its own kind": type("Money", (Decimal,), {})("7"),
    "a UUID of its own kind": type("Id", (UUID,), {})(int=7),
    "a datetime of its own kind": type("Day", (datetime,), {})(2024, 1, 1),
    "a zone with a name of its own": datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), SECRET)),
    "a zone of its own kind": datetime(2024, 1, 1, tzinfo=Whim()),
    "a zone read from a file": datetime(2024, 1, 1, tzinfo=zone_without_a_name()),
    "a time in a zone of its own kind": datetime(2024, 1, 1, tzinfo=Whim()).timetz(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_would_not_come_back_is_refused(name: str) -> None:
    """With the path of the very value, and without a word of what is in it."""
    value = REFUSED[name]
    places = {
        "$.at": value,
        "$.at.items[3]": {"items": [1, 2, 3, value]},
        "$.at[0][1].a": [({}, {"a": value})],
        "$.at[5].a": {5: {"a": value}},
        "$.at[tuple][0]": {(1, 2): [value]},
    }
    for path, state in places.items():
        error = refused({"at": state})
        assert error.path == path
        assert SECRET not in str(error)
        assert str(error).startswith(f"the state cannot be stored: {path} ")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_refused_too_where_it_appears_in_a_big_plain_value(name: str, shape: str) -> None:
    """The step that put it there fails, not one much later."""
    before, after = (wrapped(shape, inner, 6_000, 9_000) for inner in ([0, 0], [0, REFUSED[name]]))
    assert refused({"at": after}, before={"at": before}).path.endswith("[1]")


def test_a_key_that_would_not_come_back_is_refused() -> None:
    """Keys of any kind are values like others."""
    assert refused({"at": {Text("a"): 1}}).path == "$.at.keys()[0]"
    assert refused({"at": [{1: 0, (1, Pair(1, 2)): 1}]}).path == "$.at[0].keys()[1][1]"


def test_a_cycle_is_refused_where_it_closes() -> None:
    """Through lists, dicts and objects alike; a value that only stands in two places is none."""
    items: list[Any] = [1]
    items.append({"again": items})
    assert refused({"at": items}).path == "$.at[1].again"
    order = Order()
    order.items.append((order,))
    assert refused({"at": order}, KNOWING).path == "$.at.items[0][0]"
    shared = [1, (2,)]
    check_exact({}, {"at": [shared, shared]})


def nested(levels: int, inner: object) -> object:
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize("inner", [1, (1,), float("nan"), b"x"], ids=repr)
def test_a_value_is_stored_up_to_a_depth_and_then_refused(inner: object) -> None:
    """150 levels come back; 10,000 raise nothing but StateNotSerializable."""
    check_exact({}, {"at": nested(150, inner)})
    for levels in (199, 255, 10_000):
        with suppress(StateNotSerializable):
            check_exact({}, {"at": nested(levels, inner)})


def test_a_deep_value_is_refused_with_the_same_error_deep_in_a_program() -> None:
    """How deep the caller's own stack is decides when, but never what is raised."""
    value = nested(190, (1,))

    def below(frames: int) -> None:
        if frames:
            below(frames - 1)
        else:
            diff({}, {"at": value})

    with pytest.raises(StateNotSerializable):
        below(sys.getrecursionlimit() - len(inspect.stack(0)) - 300)


def test_the_path_names_the_step_only_where_there_is_one() -> None:
    """The error is built from its datum: path, reason and step."""
    error = StateNotSerializable("$.order.items[3]", "is of type lock", step="pay")
    assert str(error) == "the state cannot be stored after step 'pay': $.order.items[3] is of type lock"
    assert (error.path, error.reason, error.step) == ("$.order.items[3]", "is of type lock", "pay")
