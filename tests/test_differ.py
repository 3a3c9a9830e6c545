"""The differ: what it says of two states, and that both of its forms make the second state of the first."""

import string
from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async import StateNotSerializable, diff
from flowneer_async.differ import Diff, Mirror, Patch
from flowneer_async.encoding import JSON
from flowneer_async.versions import Head, fold, grow
from tests.support.exact import exact_state
from tests.support.trees import LONG, QUICK, near_states, trees

State = dict[str, Any]
SECRET = "hunter2"


def mirror_of(state: State) -> Mirror:
    mirror = Mirror(JSON)
    mirror.advance(state)
    return mirror


def plain_texts(texts: dict[str, bytes]) -> dict[str, bytes]:
    """The JSON of each key without the tags of what only looks like one."""
    return {key: orjson.dumps(JSON.load(text)) for key, text in texts.items()}


def texts_of(state: State) -> dict[str, bytes]:
    return {key: orjson.dumps(value) for key, value in state.items()}


def folded(before: State, change: Diff | None) -> dict[str, bytes]:
    """The second state by way of what a store keeps: a keyframe of the first, then the encoded diff."""
    root, head = grow(Head("run"), mirror_of(before).whole().encode(), True, -1, "", 0)
    version, _ = grow(head, b"" if change is None else change.encode(), False, 0, "step", 0)
    return fold([root, version])


def check_round_trip(before: State, after: State) -> None:
    change = diff(before, after)
    applied = before if change is None else change.apply(before)
    assert exact_state(applied) == exact_state(after)
    assert texts_of(applied) == texts_of(after)
    assert plain_texts(folded(before, change)) == texts_of(after)


@QUICK
@given(near_states())
def test_a_diff_makes_the_second_state_of_the_first(pair: tuple[State, State]) -> None:
    """Byte for byte and type for type, applied as it is and by way of its stored form, in both directions."""
    before, after = pair
    check_round_trip(before, after)
    check_round_trip(after, before)


@pytest.mark.torture
@LONG
@given(near_states())
def test_a_diff_makes_the_second_state_of_the_first_for_long(pair: tuple[State, State]) -> None:
    """The same law for many more pairs."""
    check_round_trip(*pair)


@QUICK
@given(st.dictionaries(st.text(string.printable), trees, max_size=4))
def test_equal_states_have_no_diff(state: State) -> None:
    """A copy of a state is no change, and neither is another order of its keys."""
    assert diff(state, deepcopy(state)) is None
    assert diff(state, dict(reversed(state.items()))) is None


TWINS = [0, 0.0, -0.0, False, "", None, [], {}, "0", "null", [0], [None]]


@pytest.mark.parametrize("before", TWINS, ids=repr)
@pytest.mark.parametrize("after", TWINS, ids=repr)
def test_values_that_python_calls_equal_are_told_apart(before: object, after: object) -> None:
    """0, 0.0, -0.0 and False are four values."""
    change = diff({"at": before}, {"at": after})
    assert (change is None) == (repr(before) == repr(after))
    check_round_trip({"at": before}, {"at": after})


def test_order_of_keys_counts_below_the_top_level() -> None:
    """A nested dict comes back in its own order."""
    check_round_trip({"at": {"a": 1, "b": 2}}, {"at": {"b": 2, "a": 1}})
    assert diff({"at": {"a": 1, "b": 2}}, {"at": {"b": 2, "a": 1}}) is not None


def test_a_removed_key_is_removed() -> None:
    """A key that is gone is no key with None."""
    change = diff({"a": 1, "b": 2}, {"b": 2})
    assert change is not None
    assert (change.changed, change.removed) == ({}, ("a",))
    assert change.apply({"a": 1, "b": 2}) == {"b": 2}


def test_the_plain_reading_names_what_changed() -> None:
    """`changed` holds whole new values, each time fresh ones, and `apply` leaves its argument as it is."""
    before: State = {"list": [1], "same": 1}
    change = diff(before, {"list": [1, 2], "same": 1, "new": {}})
    assert change is not None
    assert change.changed == {"list": [1, 2], "new": {}}
    assert change.changed["new"] is not change.changed["new"]
    assert change.apply(before) == {"list": [1, 2], "same": 1, "new": {}}
    assert before == {"list": [1], "same": 1}


def test_an_empty_diff_changes_nothing() -> None:
    """What the root of an empty state is can be stored like any other."""
    nothing = mirror_of({}).whole()
    assert nothing.apply({"a": 1}) == {"a": 1}
    assert Patch.decode(nothing.encode()) == Patch({}, (), {})


LONG_LIST: list[object] = [{"id": number, "text": "word " * 10} for number in range(2_000)]
CHANGES = {
    "appended": lambda items: items.append({"id": -1}),
    "inserted": lambda items: items.insert(1_000, None),
    "removed": lambda items: items.pop(1_500),
    "one number": lambda items: items[700].update(id=0),
    "one letter": lambda items: items[3].update(text="word " * 5 + "ä" + "word " * 5),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_small_change_costs_few_bytes(kind: str) -> None:
    """However big the value that it is made in."""
    after = deepcopy(LONG_LIST)
    CHANGES[kind](after)
    change = diff({"items": LONG_LIST}, {"items": after})
    assert change is not None
    assert len(change.encode()) < 150
    check_round_trip({"items": LONG_LIST}, {"items": after})


@QUICK
@given(st.dictionaries(st.text(string.printable), trees, max_size=4))
def test_the_whole_of_a_mirror_makes_the_state_of_nothing(state: State) -> None:
    """It is the diff to the state from an empty one."""
    assert exact_state(mirror_of(state).whole().apply({})) == exact_state(state)


def test_a_value_changed_in_place_is_seen() -> None:
    """The same object is looked at again where it could have changed."""
    state: State = {"list": [1], "dict": {"a": [1]}}
    mirror = mirror_of(state)
    state["dict"]["a"].append(2)
    change = mirror.advance(state)
    assert change is not None
    assert change.changed == {"dict": {"a": [1, 2]}}


@QUICK
@given(st.lists(near_states(), min_size=1, max_size=2))
def test_a_mirror_made_of_stored_texts_goes_on_like_the_old_one(pairs: list[tuple[State, State]]) -> None:
    """A resumed run writes the very diffs that it would have written without the crash; and sizes add up."""
    old = mirror_of({})
    for state in [state for pair in pairs for state in pair]:
        resumed = Mirror(JSON, old.texts)
        change, again = old.advance(state), resumed.advance(deepcopy(state))
        assert (change and change.encode()) == (again and again.encode())
        assert old.texts == resumed.texts
        assert plain_texts(old.texts) == texts_of(state)
        assert old.size == resumed.size == sum(map(len, old.texts.values()))


def test_a_refused_state_is_not_taken_in_part() -> None:
    """After StateNotSerializable the mirror is what it was, and goes on from there."""
    mirror = mirror_of({"a": 1, "b": [1], "gone": 1})
    texts, size = dict(mirror.texts), mirror.size
    with pytest.raises(StateNotSerializable):
        mirror.advance({"a": 2, "b": [object()], "new": 1})
    assert (mirror.texts, mirror.size) == (texts, size)
    change = mirror.advance({"a": 2, "b": [1]})
    assert change is not None
    assert (change.changed, change.removed) == ({"a": 2}, ("gone",))


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("key", [1, None, True, ("a",), b"a", Text("a"), "\ud800"], ids=repr)
def test_the_keys_of_a_state_are_strings(key: object) -> None:
    """Any other key is refused at the root, not turned into a string."""
    with pytest.raises(StateNotSerializable) as caught:
        diff({}, {key: 1})  # pyright: ignore[reportArgumentType]
    assert caught.value.path == "$"


def test_damaged_bytes_are_no_patch() -> None:
    """Reading a stored diff that is too short, too long or none at all raises ValueError."""
    change = diff({"old": 1}, {"key": [1, 2, 3]})
    assert change is not None
    body = change.encode()
    for damaged in (b"", b"{}", body[:-1], body + b" ", b"x" + body):
        with pytest.raises(ValueError):  # noqa: PT011
            Patch.decode(damaged)


def test_a_diff_and_its_patch_do_not_print_values() -> None:
    """A log line about a diff gives no secret away."""
    change = diff({"key": "x" * 80, "a": 1}, {"key": "x" * 80 + SECRET, "new": SECRET})
    assert change is not None
    patch = Patch.decode(change.encode())
    assert SECRET not in repr((change, change.changes, patch, patch.splices))
