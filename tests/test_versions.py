"""The chain: what it folds to, what it costs, and how damage to it is named."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async import BadName, BrokenChain, CorruptVersion, StoreError, UnknownVersion, Version
from flowneer_async.differ import Mirror
from flowneer_async.encoding import JSON
from flowneer_async.versions import (
    FLOOR,
    Head,
    check_run_id,
    checked,
    fold,
    grow,
    head_of,
    parse_version_id,
    resolved,
    version_id,
    weight_of,
)
from tests.support.trees import LONG, QUICK, RARE, near_states, wrapped

State = dict[str, Any]
Chosen = Callable[[Head, bytes, int], bool]


class Chain:
    """The versions of some states, and what each of them ought to fold to."""

    def __init__(self, states: Sequence[State], wants_keyframe: Chosen, run_id: str = "run") -> None:
        mirror, self.head = Mirror(JSON), Head(run_id)
        self.rows: list[Version] = []
        self.heads: list[Head] = []
        self.texts: list[dict[str, bytes]] = []
        self.diffs: list[int] = []
        """What each diff would have weighed as a row, kept as one or not."""
        self.keyframes: list[int] = []
        """The bytes of each keyframe."""
        for state in states:
            change = mirror.advance(state)
            body = b"" if change is None else change.encode()
            if keyframe := wants_keyframe(self.head, body, mirror.size) or not self.rows:
                self.keyframes.append(len(body := mirror.whole().encode()))
            self.diffs.append(weight_of(body))
            row, self.head = grow(self.head, body, keyframe, len(self.rows) - 1, "step", len(self.rows))
            self.rows.append(row)
            self.heads.append(self.head)
            self.texts.append(dict(mirror.texts))

    def of(self, seq: int) -> list[Version]:
        """What a store gives for version `seq`: the rows from its keyframe on."""
        return self.rows[self.rows[seq].base : seq + 1]


# Folding --------------------------------------------------------------------------------------------------------------

histories = st.lists(near_states(), min_size=1, max_size=4).map(
    lambda pairs: [state for pair in pairs for state in pair]
)


def check_spacing(states: list[State], flags: list[bool]) -> None:
    given_flags = iter(flags)
    chain = Chain(states, lambda *_: next(given_flags, False))
    for seq, expected in enumerate(chain.texts):
        assert resolved(f"run@{seq}", chain.of(seq)) == expected
        assert fold(chain.rows[: seq + 1]) == expected
        assert head_of(chain.of(seq)) == chain.heads[seq]


@QUICK
@given(histories, st.lists(st.booleans(), max_size=8))
def test_any_spacing_of_keyframes_folds_to_the_same_states(states: list[State], flags: list[bool]) -> None:
    """Each version, from its last keyframe or from the root; and the head is found again from the rows."""
    check_spacing(states, flags)


@pytest.mark.torture
@LONG
@given(histories, st.lists(st.booleans(), max_size=8))
def test_any_spacing_of_keyframes_folds_to_the_same_states_for_long(states: list[State], flags: list[bool]) -> None:
    """The same law for many more histories."""
    check_spacing(states, flags)


def test_many_splices_of_one_long_value_fold() -> None:
    """A value of many chunks, changed a thousand times, in all its places."""
    rng, items, states = random.Random(7), ["word"] * 20_000, list[State]()
    for number in range(300):
        at = rng.randrange(len(items))
        items[at : at + rng.choice([0, 1, 1, 3, 500])] = [str(number)] * rng.choice([0, 1, 1, 3, 500])
        states.append({"items": list(items)})
    chain = Chain(states, lambda *_: False)
    for seq in (1, 150, 299):
        assert resolved(f"run@{seq}", chain.of(seq)) == chain.texts[seq]


def test_an_empty_state_is_a_state() -> None:
    """It has a keyframe that is no marker, and folds to no keys; a state may become empty and grow again."""
    chain = Chain([{}, {}, {"a": [1]}, {}], lambda *_: False)
    assert [row.is_marker for row in chain.rows] == [False, True, False, False]
    assert [resolved(f"run@{seq}", chain.of(seq)) for seq in range(4)] == [{}, {}, {"a": b"[1]"}, {}]


def test_a_keyframe_forgets_what_was_before() -> None:
    """A key that is not in it is gone, also where a chain begins before it."""
    chain = Chain([{"a": 1, "b": 1}, {"a": 2}], lambda *_: True)
    assert fold(chain.rows) == {"a": b"2"}


# What it costs --------------------------------------------------------------------------------------------------------


def growing(number: int, rng: random.Random) -> State:
    return {"log": [{"n": n, "text": "word " * 8} for n in range(number * 3)]}


def shrinking(number: int, rng: random.Random) -> State:
    return growing(max(0, 60 - number), rng)


def constant(number: int, rng: random.Random) -> State:
    return {"big": wrapped("list", number, 5_000, 5_000), "counter": number}


def replaced(number: int, rng: random.Random) -> State:
    return {"big": rng.randbytes(5_000).hex(), "small": 1}


def alternating(number: int, rng: random.Random) -> State:
    return {"big": rng.randbytes(20_000).hex()} if number % 2 else {"small": number}


def idle(number: int, rng: random.Random) -> State:
    return {"a": 1}


KINDS = [growing, shrinking, constant, replaced, alternating, idle]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kept(request: pytest.FixtureRequest) -> Chain:
    """A chain with the keyframes that the engine chooses."""
    rng = random.Random(3)
    return Chain([request.param(number, rng) for number in range(150)], Head.wants_keyframe)


def test_a_resolve_reads_a_keyframe_and_rows_of_twice_the_state(kept: Chain) -> None:
    """However long the chain, and whatever becomes of the state; the lowest bound is FLOOR."""
    for seq, texts in enumerate(kept.texts):
        weight = sum(weight_of(row.body) for row in kept.of(seq)[1:])
        assert weight <= max(2 * sum(map(len, texts.values())), FLOOR)
        assert resolved(f"run@{seq}", kept.of(seq)) == texts


def test_keyframes_cost_half_as_much_as_the_changes_at_most(kept: Chain) -> None:
    """So that a chain weighs in proportion to what changed."""
    assert sum(kept.keyframes[1:]) <= sum(kept.diffs) / 2 + kept.keyframes[0]


def test_a_list_that_only_grows_needs_few_keyframes() -> None:
    """Each row is a small part of a state that grows with it."""
    chain = Chain([growing(number, random.Random(3)) for number in range(300)], Head.wants_keyframe)
    assert len(chain.keyframes) <= 16


# Damage ---------------------------------------------------------------------------------------------------------------

STATES: list[State] = [{"n": number, "log": list(range(number * 10))} for number in range(8)]
CHAIN = Chain(STATES, lambda head, *_: head.seq == 1)
"""Versions 0 to 7, with keyframes 0 and 2."""


def test_a_whole_chain_is_given_as_it_is() -> None:
    """Of any version: of one that is a keyframe, and of one far from its keyframe."""
    for seq in range(8):
        assert checked(f"run@{seq}", CHAIN.of(seq)) == CHAIN.of(seq)


def flipped(row: Version, name: str) -> Version:
    value = getattr(row, name)
    changed: object = "x"
    if isinstance(value, int):
        changed = value ^ 1
    elif isinstance(value, bytes):
        changed = bytes([value[0] ^ 1]) + value[1:] if value else b"x"
    elif isinstance(value, str):
        changed = value + "x"
    return row._replace(**{name: changed})


@pytest.mark.parametrize("name", ["fork_of", "step_index", "path", "timestamp", "body", "digest"])
@pytest.mark.parametrize("at", range(6))
def test_a_changed_field_is_named_with_its_version(name: str, at: int) -> None:
    """The version that was changed, not only the one that was asked for."""
    rows = CHAIN.of(7)
    rows[at] = flipped(rows[at], name)
    with pytest.raises(CorruptVersion) as caught:
        checked("run@7", rows)
    assert caught.value.version == rows[at].id


@pytest.mark.parametrize("name", ["run_id", "seq", "base"])
@pytest.mark.parametrize("at", range(6))
def test_a_changed_place_in_the_chain_is_damage(name: str, at: int) -> None:
    """A row that says it is another version is missing where it was, or not what was stored."""
    rows = CHAIN.of(7)
    rows[at] = flipped(rows[at], name)
    with pytest.raises((CorruptVersion, BrokenChain)):
        checked("run@7", rows)


def test_a_changed_parent_of_a_keyframe_is_damage() -> None:
    """The digest that a keyframe keeps of its parent ties it to the chain before it."""
    rows = CHAIN.of(7)
    rows[0] = flipped(rows[0], "parent_digest")
    with pytest.raises(CorruptVersion) as caught:
        checked("run@7", rows)
    assert caught.value.version == "run@2"


@QUICK
@given(st.integers(0, 5), st.integers(0, 10**6), st.integers(0, 7))
def test_no_flipped_bit_of_a_body_goes_unseen(at: int, byte: int, bit: int) -> None:
    """Whichever it is."""
    rows = CHAIN.of(7)
    body = bytearray(rows[at].body)
    body[byte % len(body)] ^= 1 << bit
    rows[at] = rows[at]._replace(body=bytes(body))
    with pytest.raises(CorruptVersion):
        resolved("run@7", rows)


@pytest.mark.parametrize("at", range(6))
def test_a_missing_row_is_named(at: int) -> None:
    """At the start, in the middle and at the end."""
    rows = CHAIN.of(7)
    missing = rows.pop(at)
    with pytest.raises(BrokenChain) as caught:
        checked("run@7", rows)
    assert (caught.value.version, caught.value.missing) == ("run@7", missing.id)


def other_run(states: Sequence[State]) -> Chain:
    return Chain(states, lambda head, *_: head.seq == 1, "other")


DAMAGED: dict[str, list[Version]] = {
    "no row at all": [],
    "one row too many": CHAIN.rows[2:] + Chain([*STATES, {}], lambda *_: False).rows[8:],
    "the chain of another version": CHAIN.of(6),
    "two swapped rows": [CHAIN.rows[index] for index in (2, 4, 3, 5, 6, 7)],
    "a row twice": [CHAIN.rows[index] for index in (2, 3, 3, 4, 5, 6, 7)],
    "backwards": CHAIN.of(7)[::-1],
    "another run": other_run(STATES).of(7),
    "a row of another run": [*CHAIN.of(6), other_run(STATES).rows[7]],
    "a row of another history": [*CHAIN.of(6), Chain([*STATES[:6], {}, {}], lambda head, *_: head.seq == 1).rows[7]],
    "a keyframe of another history": [Chain([{"x": 1}], lambda *_: True).rows[0], *CHAIN.rows[1:]],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_rows_that_are_no_chain_are_refused(kind: str) -> None:
    """A wrong state is never returned."""
    with pytest.raises((BrokenChain, CorruptVersion)):
        resolved("run@7", DAMAGED[kind])


@pytest.mark.parametrize(
    "body", [b"x", b"\n", b'{"set":{"a":9}}\n1', b'{"del":["none"]}\n', b'{"splice":{"none":[0,0,0]}}\n']
)
def test_a_body_that_was_stored_wrong_is_damage(body: bytes) -> None:
    """Though its digest is right, it does not fold, and no foreign error says so."""
    root, head = grow(Head("run"), Chain([{"a": 1}], lambda *_: True).rows[0].body, True, -1, "", 0)
    row, _ = grow(head, body, False, 0, "step", 0)
    with pytest.raises(CorruptVersion):
        resolved("run@1", [root, row])


# Names ----------------------------------------------------------------------------------------------------------------


def test_a_version_names_its_parent() -> None:
    """The one before it; of a fork's root the version that was forked; of any other root none."""
    assert [row.parent for row in CHAIN.rows[:3]] == [None, "run@0", "run@1"]
    fork, _ = grow(Head("fork"), b"{}\n", True, 3, "step", 0, "run@3")
    assert fork.parent == "run@3"
    assert CHAIN.head.version == CHAIN.rows[-1].id == "run@7"


@QUICK
@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}", fullmatch=True), st.integers(0, 10**17))
def test_a_version_id_says_run_and_number(run_id: str, seq: int) -> None:
    """parse_version_id(version_id(run, seq)) == (run, seq)."""
    assert parse_version_id(version_id(check_run_id(run_id), seq)) == (run_id, seq)


@pytest.mark.parametrize(
    "version",
    ["", "run", "run@", "@1", "run@-1", "run@+1", "run@1.0", "run@01", "run@١", "a b@1", "a@b@1", "run@1 ", None, 7],
)
def test_what_is_no_version_id_is_unknown(version: object) -> None:
    """Each version has one id, and nothing else is one."""
    with pytest.raises(UnknownVersion):
        parse_version_id(version)


@pytest.mark.parametrize("run_id", ["", "-a", "a b", "a@1", "a/b", "é", "a\n", "a" * 129, None, 7])
def test_a_bad_run_id_is_refused(run_id: object) -> None:
    """Letters, digits, and a few marks inside."""
    with pytest.raises(BadName) as caught:
        check_run_id(run_id)
    assert caught.value.kind == "run"


def test_a_version_prints_no_state() -> None:
    """A log line about a version gives no secret away; neither does an error about its damage."""
    chain = Chain([{"key": "hunter2"}, {"key": "hunter2" * 40}, {"key": "hunter2" * 41}], lambda *_: False)
    assert "hunter2" not in repr(chain.rows)
    rows = [*chain.rows[:2], chain.rows[2]._replace(body=b"hunter2")]
    with pytest.raises(StoreError) as caught:
        resolved("run@2", rows)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", RARE, ids=lambda value: type(value).__name__)
def test_tags_are_spliced_like_other_bytes(value: object) -> None:
    """A long value with tags in it folds from its splices."""
    states = [{"at": wrapped("list", inner, 200, 200)} for inner in ("before", value, [value, value], "after")]
    chain = Chain(states, lambda *_: False)
    assert fold(chain.rows) == chain.texts[-1] == {"at": orjson.dumps(states[-1]["at"])}
