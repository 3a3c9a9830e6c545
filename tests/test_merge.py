"""What lanes made of one state is merged key by key, or refused by name."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async import reducers
from flowneer_async.encoding import JSON, Codec
from flowneer_async.errors import CannotReduce, FlowneerError, MergeConflict
from flowneer_async.merge import Changes, Merge, changes_of, merged
from flowneer_async.steps import Reducer
from tests.support.trees import QUICK, trees

SECRET = "hunter2"
Texts = dict[str, bytes]
Given = Reducer | Mapping[str, Reducer] | None


def texts_of(**state: object) -> Texts:
    return {key: JSON.tagged_json(value, "$") for key, value in state.items()}


def merge_of(before: Texts, *lanes: Texts, reducer: Given = None) -> Merge:
    """The merge of lanes fan[0], fan[1] and so on."""
    changes = {f"fan[{number}]": changes_of(before, lane) for number, lane in enumerate(lanes)}
    return merged("fan", before, changes, reducer, JSON)


def state_of(before: Texts, merge: Merge) -> Texts:
    """All keys after a merge, as texts."""
    kept = {key: text for key, text in before.items() if key not in merge.removed}
    return {**kept, **merge.texts, **texts_of(**merge.values)}


keys = st.sampled_from(["a", "b", "c", "d"])
states = st.dictionaries(keys, st.sampled_from([b"1", b"2", b"[]", b'"x"']), max_size=4)

# What a lane has changed ----------------------------------------------------------------------------------------------


@QUICK
@given(states, states)
def test_changes_turn_what_was_before_into_what_a_lane_has(before: Texts, lane: Texts) -> None:
    """They name each key that has another text or is gone, and no more."""
    changes = changes_of(before, lane)
    after = {key: text for key, text in {**before, **changes}.items() if text is not None}
    assert after == lane
    assert all(before.get(key) != text for key, text in changes.items())


def test_texts_that_are_equal_are_no_change() -> None:
    """A lane that changed a value and changed it back has another object of the same bytes."""
    text = b"[1,2,3]"
    assert changes_of({"a": text}, {"a": bytes(bytearray(text))}) == {}


class Compared(bytes):
    """Bytes that count how often they are compared."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return bytes.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        Compared.times += 1
        return bytes.__ne__(self, other)

    __hash__ = bytes.__hash__


def test_texts_that_are_one_object_are_not_compared() -> None:
    """A lane that left a big value alone has the very text that it began with."""
    text = Compared(b"[1,2,3]")
    Compared.times = 0
    assert changes_of({"a": text, "b": b"1"}, {"a": text, "b": b"2"}) == {"b": b"2"}
    assert Compared.times == 0


# What becomes of a key ------------------------------------------------------------------------------------------------

BEFORE = texts_of(number=1, list=[0], gone=None, kept={"x": 1})


def test_keys_that_one_lane_each_has_changed_are_taken() -> None:
    """New, changed and removed ones, whatever the others changed."""
    merge = merge_of(
        BEFORE, {**BEFORE, "number": b"2"}, {**BEFORE, "new": b"[]"}, {k: v for k, v in BEFORE.items() if k != "gone"}
    )
    assert merge == Merge({"number": b"2", "new": b"[]"}, {}, ["gone"])
    assert merge.changed(JSON) == {"number": 2, "new": []}
    assert merge.changed(JSON)["new"] is not merge.changed(JSON)["new"]


def test_a_key_that_one_lane_has_changed_needs_no_reducer() -> None:
    """It is taken as it is, and the reducer that there is for it is not called."""

    def reducer(before: Any, values: list[Any]) -> Any:
        raise AssertionError

    assert merge_of(BEFORE, {**BEFORE, "number": b"2"}, BEFORE, reducer=reducer) == Merge({"number": b"2"}, {}, [])


@pytest.mark.parametrize("reducer", [None, {"list": reducers.append}, {}], ids=["none", "for another", "empty"])
def test_what_lanes_agree_on_is_a_conflict_too(reducer: Given) -> None:
    """Byte for byte the same value from several lanes may be a coincidence: of two that add 1, one would be lost."""
    agreed = {**BEFORE, "number": b"7"}
    with pytest.raises(MergeConflict) as caught:
        merge_of(BEFORE, agreed, BEFORE, agreed, reducer=reducer)
    assert caught.value.key == "number"


@pytest.mark.parametrize("reducer", [reducers.sum, {"number": reducers.sum}], ids=["for all", "by key"])
def test_lanes_that_each_add_one_have_added_two(reducer: Given) -> None:
    """Where there is a reducer, the same value from several lanes is given to it: it is no more than a coincidence."""
    one_more = {**BEFORE, "number": b"2"}
    assert merge_of(BEFORE, one_more, one_more, reducer=reducer).values == {"number": 3}


@pytest.mark.parametrize("reducer", [None, reducers.last], ids=["without", "with reducer"])
def test_what_all_lanes_remove_is_removed(reducer: Given) -> None:
    """No reducer is asked, for there is nothing to merge."""
    less = {key: text for key, text in BEFORE.items() if key != "gone"}
    assert merge_of(BEFORE, less, BEFORE, less, reducer=reducer) == Merge({}, {}, ["gone"])


def test_a_reducer_is_given_what_was_before_and_what_each_lane_made_of_it() -> None:
    """In the order of lanes, without those that changed nothing; None for a key that was not there."""
    seen: list[tuple[Any, list[Any]]] = []

    def reducer(before: Any, values: list[Any]) -> str:
        seen.append((before, values))
        return "merged"

    lanes = [{**BEFORE, "list": orjson.dumps([0, lane]), "new": orjson.dumps([lane])} for lane in (1, 2)]
    merge = merge_of(BEFORE, lanes[1], BEFORE, lanes[0], reducer=reducer)
    assert seen == [([0], [[0, 2], [0, 1]]), (None, [[2], [1]])]
    assert (merge.values, merge.texts, merge.removed) == ({"list": "merged", "new": "merged"}, {}, [])


def test_a_reducer_may_change_what_it_is_given() -> None:
    """All of it was loaded for this call alone."""

    def reducer(before: list[Any], values: list[list[Any]]) -> list[Any]:
        before.extend(value.pop() for value in values)
        return before

    lanes = [{"list": b"[0,1]"}, {"list": b"[0,2]"}]
    base = texts_of(list=[0])
    assert merge_of(base, *lanes, reducer=reducer).values == merge_of(base, *lanes, reducer=reducer).values
    assert base == texts_of(list=[0])


def test_each_key_has_its_own_reducer() -> None:
    """Of a mapping, the one that stands for the key."""
    lanes = [
        {**BEFORE, "list": orjson.dumps([0, lane]), "number": orjson.dumps(lane), "kept": orjson.dumps({"x": lane})}
        for lane in (5, 6)
    ]
    each = {"list": reducers.append, "number": reducers.sum, "kept": reducers.union}
    assert merge_of(BEFORE, *lanes, reducer=each).values == {"list": [0, 5, 6], "number": 10, "kept": {"x": 6}}


# Conflicts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reducer", [None, {"list": reducers.append}], ids=["none", "for another key"])
def test_a_key_that_lanes_disagree_on_is_a_conflict(reducer: Given) -> None:
    """It names step, key and the lanes that changed it, shows no value, and says what to do."""
    lanes = [{**BEFORE, "number": b'"%s"' % word} for word in (SECRET.encode(), b"other")]
    with pytest.raises(MergeConflict) as caught:
        merge_of(BEFORE, lanes[0], BEFORE, lanes[1], reducer=reducer)
    error = caught.value
    assert (error.step, error.key, error.lanes, error.removed) == ("fan", "number", ("fan[0]", "fan[2]"), ())
    for word in ("'fan'", "'number'", "[fan[0], fan[2]]", "reducer={'number': …}"):
        assert word in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize("reducer", [None, reducers.last], ids=["without", "with reducer"])
def test_a_key_that_one_lane_removes_and_another_changes_is_a_conflict(reducer: Given) -> None:
    """Even with a reducer, which could not tell; the error says who did what."""
    less = {key: text for key, text in BEFORE.items() if key != "number"}
    with pytest.raises(MergeConflict) as caught:
        merge_of(BEFORE, {**BEFORE, "number": b"2"}, less, BEFORE, less, reducer=reducer)
    assert (caught.value.lanes, caught.value.removed) == (("fan[0]", "fan[1]", "fan[3]"), ("fan[1]", "fan[3]"))
    assert "[fan[1], fan[3]] of step 'fan' removed key 'number', which [fan[0]] changed" in str(caught.value)


def test_a_reducer_for_other_values_names_step_and_key() -> None:
    """A ready reducer does not know them when it refuses."""
    lanes = [{**BEFORE, "kept": b'"%s"' % word} for word in (SECRET.encode(), b"other")]
    with pytest.raises(CannotReduce) as caught:
        merge_of(BEFORE, *lanes, reducer=reducers.sum)
    error = caught.value
    assert (error.reducer, error.step, error.key) == ("sum", "fan", "kept")
    for word in ("'sum'", "'fan'", "'kept'", "dict, str"):
        assert word in str(error)
    assert SECRET not in str(error)
    assert isinstance(error, FlowneerError)


def test_what_a_reducer_of_the_user_raises_is_raised() -> None:
    """As it is."""

    def reducer(before: Any, values: list[Any]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        merge_of(BEFORE, {"number": b"2"}, {"number": b"3"}, reducer=reducer)


def test_a_merge_does_not_print_values() -> None:
    """A log line about one gives no secret away."""
    lanes = [{"b": orjson.dumps([SECRET, lane])} for lane in range(2)]
    merge = merge_of({}, {"a": orjson.dumps(SECRET)}, *lanes, reducer={"b": reducers.last})
    assert (set(merge.texts), set(merge.values)) == ({"a"}, {"b"})
    assert SECRET not in repr(merge)


# Laws -----------------------------------------------------------------------------------------------------------------


@QUICK
@given(states, st.lists(states, max_size=4))
def test_a_merge_is_a_conflict_or_has_each_change_and_no_other(before: Texts, lanes: list[Texts]) -> None:
    """A key is in the merge as every lane that changed it has it, and all other keys are as they were."""
    changes = [changes_of(before, lane) for lane in lanes]
    made: dict[str, list[bytes | None]] = {}
    for change in changes:
        for key, text in change.items():
            made.setdefault(key, []).append(text)
    conflicts = [key for key, each in made.items() if len(each) > 1 and any(text is not None for text in each)]
    if conflicts:
        with pytest.raises(MergeConflict) as caught:
            merge_of(before, *lanes)
        assert caught.value.key in conflicts
        return
    expected = {**before, **{key: texts[0] for key, texts in made.items()}}
    after = {key: text for key, text in expected.items() if text is not None}
    assert state_of(before, merge_of(before, *lanes)) == after


@QUICK
@given(states, st.lists(states, max_size=3).flatmap(lambda lanes: st.tuples(st.just(lanes), st.permutations(lanes))))
def test_without_a_reducer_the_order_of_lanes_does_not_count(
    before: Texts, orders: tuple[list[Texts], list[Texts]]
) -> None:
    """They come to the same, or to a conflict, in any order."""
    results: list[object] = []
    for lanes in orders:
        try:
            results.append(state_of(before, merge_of(before, *lanes)))
        except MergeConflict:
            results.append(None)
    assert results[0] == results[1]


READY: dict[str, tuple[Reducer, st.SearchStrategy[Any]]] = {
    "append": (reducers.append, st.lists(st.integers(0, 3), max_size=3)),
    "sum": (reducers.sum, st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
    "union": (reducers.union, st.dictionaries(st.sampled_from("ab"), trees, max_size=2)),
    "last": (reducers.last, trees),
}


@pytest.mark.parametrize("name", READY)
@QUICK
@given(data=st.data())
def test_for_one_lane_a_ready_reducer_makes_what_is_made_without_it(name: str, data: st.DataObject) -> None:
    """So it is not asked."""
    reducer, values = READY[name]
    before, after = texts_of(key=data.draw(values)), texts_of(key=data.draw(values))
    made = reducer(JSON.load(before["key"]), [JSON.load(after["key"])])
    assert texts_of(key=made) == state_of(before, merge_of(before, after, before, reducer=reducer)) == after


# Many lanes -----------------------------------------------------------------------------------------------------------

MANY = 10_000


class Counting(Codec):
    """A codec that counts what it loads."""

    count = 0

    def load(self, text: bytes) -> object:
        self.count += 1
        return super().load(bytes(text))


def test_ten_thousand_lanes_are_merged_in_as_many_steps() -> None:
    """One look at each text, and with a reducer one load; keys of their own and keys in common."""
    Compared.times = 0
    base = {"list": b"[]", "sum": b"0"}
    lanes: dict[str, Changes] = {
        f"fan[{number}]": {
            f"key {number}": b"%d" % number,
            "list": Compared(b"[%d]" % number),
            "sum": Compared(b"1"),
        }
        for number in range(MANY)
    }
    codec = Counting({}, {})
    merge = merged("fan", base, lanes, {"list": reducers.append, "sum": reducers.sum}, codec)
    assert merge.values == {"list": list(range(MANY)), "sum": MANY}
    assert len(merge.texts) == MANY
    assert codec.count == 2 * (MANY + 1)
    assert Compared.times <= 3 * MANY


def test_a_conflict_of_ten_thousand_lanes_fits_in_a_message() -> None:
    """It names the first and the last of them, and holds them all."""
    lanes: dict[str, Changes] = {f"fan[{number}]": {"a": b"%d" % number} for number in range(MANY)}
    with pytest.raises(MergeConflict) as caught:
        merged("fan", {}, lanes, None, JSON)
    assert len(str(caught.value)) < 300
    assert len(caught.value.lanes) == MANY
    lanes["fan[7]"] = {"a": None}
    with pytest.raises(MergeConflict) as caught:
        merged("fan", {}, lanes, reducers.last, JSON)
    assert len(str(caught.value)) < 300
    assert caught.value.removed == ("fan[7]",)
