"""Drafts behave as plain dicts, share nothing, and cost nothing where nobody looks at them."""

import copy
import json
import operator
import pickle
import threading
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, field
from string import Template
from types import MappingProxyType
from typing import Any

import msgspec
import orjson
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async import draft
from flowneer_async.differ import Mirror
from flowneer_async.draft import DRAFT, Draft, Unread, draft_of, shape_for
from flowneer_async.encoding import JSON, Codec
from flowneer_async.errors import StateNotSerializable
from flowneer_async.state import DICT, Shape, named_types, shape_of
from tests.support.exact import exact
from tests.support.trees import LONG, QUICK, leaves, rare, trees

SECRET = "hunter2"
State = dict[str, Any]
Op = Callable[[State], Any]


class Counting(Codec):
    """A codec that notes what it has loaded."""

    def __init__(self) -> None:
        super().__init__({}, {})
        self.loaded: list[bytes] = []

    def load(self, text: bytes) -> object:
        self.loaded.append(text)
        return super().load(text)


def mirror_of(state: State, codec: Codec = JSON) -> Mirror:
    mirror = Mirror(codec)
    mirror.advance(state)
    return mirror


def drafted(state: State) -> Any:
    return draft_of(mirror_of(state), DICT, JSON)


def raw(state: State) -> dict[str, object]:
    """What stands in a draft, read or not."""
    return dict(DRAFT.items(state).items())


# A draft is what a dict is --------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "long name", "$x", "none"])


def _match(state: State, key: str) -> Any:
    match state:
        case {"a": one, "b": other, **rest}:
            return one, other, rest
        case {"long name": one}:
            return one
        case _:
            return None


def _put(key: str, value: Any) -> Op:
    return lambda state: operator.setitem(state, key, copy.deepcopy(value))


def _deep(key: str, value: Any) -> Op:
    """Change something inside of a value."""

    def change(state: State) -> None:
        inner = state[key]
        if isinstance(inner, list):
            inner.append(copy.deepcopy(value))
        elif isinstance(inner, dict):
            inner["deep"] = copy.deepcopy(value)

    return change


def _while_iterating(state: State) -> list[Any]:
    return [(key, state[key]) for key in state]


READING: dict[str, Callable[[State, str], Any]] = {
    "[]": lambda state, key: state[key],
    "get": lambda state, key: (state.get(key), state.get(key, "none")),
    "get unhashable": lambda state, key: state.get([]),  # type: ignore[call-overload]
    "in": lambda state, key: (key in state, len(state), bool(state)),
    "keys": lambda state, key: (list(state), list(state.keys()), list(reversed(state)), set(state)),
    "values": lambda state, key: list(state.values()),
    "items": lambda state, key: (list(state.items()), len(state.items()), list(reversed(state.items()))),
    "iterating": lambda state, key: _while_iterating(state),
    "views": lambda state, key: (state.keys().mapping[key], (key, 0) in state.items()),
    "copy": lambda state, key: (state.copy(), dict.copy(state), copy.copy(state), copy.deepcopy(state)),
    "dict()": lambda state, key: (dict(state), {**state}, dict(**state), dict(state.items())),
    "update": lambda state, key: ({"a": 0, key: 1} | state, state | {"a": 0, key: 1}),
    "pickle": lambda state, key: [pickle.loads(pickle.dumps(state, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)],
    "repr": lambda state, key: (repr(state), str(state), f"{state}"),
    "==": lambda state, key: (
        *(state == {**state}, {**state} == state, state != {**state}, state == {}, [state] == [{**state}]),
        *(state == {**state, "a": 0}, state == None, state != 7),  # noqa: E711
    ),
    "<": lambda state, key: state < {},  # type: ignore[operator]
    "| None": lambda state, key: state | None,  # type: ignore[operator]
    "match": _match,
    "function": lambda state, key: (lambda **names: names)(**state),
    "json": lambda state, key: (json.dumps(state), json.dumps(state, sort_keys=True, indent=1)),
    "orjson": lambda state, key: orjson.dumps(dict(state)),
    "%": lambda state, key: (f"%({key})s" % state, f"{{{key}}}".format_map(state), Template("$a").substitute(state)),
    "itemgetter": lambda state, key: operator.itemgetter(key)(state),
    "proxy": lambda state, key: (MappingProxyType(state)[key], MappingProxyType(state).get(key)),
    "chain": lambda state, key: dict(ChainMap({"c": 1}, state)),
    "pydantic": lambda state, key: pydantic.TypeAdapter(dict[str, Any]).validate_python(state),
    "exec": lambda state, key: eval("[a, b]", {}, state),
    "hash": lambda state, key: hash(state),
}


CHANGING: dict[str, Callable[[str, Any], Op]] = {
    "[]=": _put,
    "deep": _deep,
    "del": lambda key, value: lambda state: operator.delitem(state, key),
    "get and append": lambda key, value: lambda state: state.get(key, []).append(copy.deepcopy(value)),
    "pop": lambda key, value: lambda state: state.pop(key),
    "pop or": lambda key, value: lambda state: state.pop(key, "none"),
    "pop too much": lambda key, value: lambda state: state.pop(key, 1, 2),  # type: ignore[call-overload]
    "popitem": lambda key, value: lambda state: state.popitem(),
    "setdefault": lambda key, value: lambda state: state.setdefault(key, copy.deepcopy(value)),
    "setdefault none": lambda key, value: lambda state: state.setdefault(key),
    "update": lambda key, value: lambda state: state.update({key: copy.deepcopy(value)}, a=copy.deepcopy(value)),
    "|=": lambda key, value: lambda state: operator.ior(state, {key: copy.deepcopy(value)}) is state,
    "itself": lambda key, value: lambda state: state.update(state),
    "clear": lambda key, value: lambda state: state.clear(),
    "move": lambda key, value: lambda state: operator.setitem(state, "long name", state.pop(key)),
    "shared": lambda key, value: lambda state: operator.setitem(state, "b", state[key]),
}

readings = st.builds(
    lambda name, key: (name, lambda state: READING[name](state, key)), st.sampled_from(list(READING)), KEYS
)
changes = st.builds(
    lambda name, key, value: (name, CHANGING[name](key, value)),
    st.sampled_from(list(CHANGING)),
    KEYS,
    trees,
)
states = st.dictionaries(KEYS.filter("none".__ne__), trees | rare | st.text("x", min_size=60, max_size=70), max_size=4)


def outcome(op: Op, state: State) -> object:
    """What came of it, written out so that nothing passes for something else."""
    try:
        result = op(state)
    except Exception as error:
        return type(error), str(error).replace("Draft", "dict")
    assert not isinstance(result, Draft)
    return exact(result)


def check_twins(state: State, ops: list[tuple[str, Op]]) -> None:
    """A draft and a plain dict of one value, to which the same is done, with a look by their mirrors now and then."""
    first = mirror_of(state)
    ours, theirs = first.fork(), first.fork()
    twin: Any = draft_of(ours, DICT, JSON)
    plain = {key: JSON.load(text) for key, text in first.texts.items()}
    for name, op in ops:
        if name == "look":
            look(ours, theirs, twin, plain)
        else:
            assert outcome(op, twin) == outcome(op, plain), name
    look(ours, theirs, twin, plain)
    assert exact(dict(twin)) == exact(plain)


def look(ours: Mirror, theirs: Mirror, twin: State, plain: State) -> None:
    change, expected = advanced(ours, DRAFT, twin), advanced(theirs, DICT, plain)
    assert change == expected
    assert (ours.texts, ours.size) == (theirs.texts, theirs.size)


def advanced(mirror: Mirror, shape: Shape, state: State) -> object:
    """What has changed, as it is stored; or the path of what cannot be."""
    try:
        change = mirror.advance(shape.items(state))
    except StateNotSerializable as error:
        return error.path
    return change and change.encode()


looks: st.SearchStrategy[tuple[str, Op]] = st.just(("look", lambda state: None))


@QUICK
@given(states, st.lists(changes | readings | looks, max_size=12))
def test_a_draft_behaves_as_a_plain_dict(state: State, ops: list[tuple[str, Op]]) -> None:
    """Results, errors, what it comes to in the end, and the very diffs: whatever is done to it."""
    check_twins(state, ops)


@pytest.mark.torture
@LONG
@given(states, st.lists(changes | readings | looks, max_size=40))
def test_a_draft_behaves_as_a_plain_dict_for_long(state: State, ops: list[tuple[str, Op]]) -> None:
    """The same law for many more of them."""
    check_twins(state, ops)


FULL: State = {
    "a": [1, {"b": 2}],
    "b": {"c": [1.5, None]},
    "long name": "word " * 40,
    "$x": {"$set": [1]},
    "n": 1,
    "bytes": b"\x00\xff",
}


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("key", ["a", "long name", "n", "none"])
def test_no_way_of_reading_gives_an_unread_value_out(name: str, key: str) -> None:
    """Each one, done first to a draft that nobody has read, gives what it gives for a plain dict."""
    assert outcome(lambda state: READING[name](state, key), drafted(FULL)) == outcome(
        lambda state: READING[name](state, key), copy.deepcopy(FULL)
    )


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("key", ["a", "long name", "n", "none"])
def test_no_way_of_changing_gives_an_unread_value_out(name: str, key: str) -> None:
    """The same of what also changes it."""
    check_twins(FULL, [(name, CHANGING[name](key, [0]))])


@QUICK
@given(states, states)
def test_drafts_are_compared_by_their_values(state: State, other: State) -> None:
    """Two drafts that nobody has read are equal where the dicts are, both ways, merge alike, and are copied alike."""
    pairs = [(drafted(state), drafted(other)), (drafted(state), copy.deepcopy(other)), (state, drafted(other))]
    plain = {key: JSON.load(text) for key, text in mirror_of(state).texts.items()}
    compared = outcome(lambda one: (one == other, other == one, one != other, other != one), plain)
    for one, two in pairs:
        assert outcome(lambda one, two=two: (one == two, two == one, one != two, two != one), one) == compared
    for one, two in pairs:
        assert exact(one | two) == exact(state | other)


@pytest.mark.parametrize("other", [lambda: copy.deepcopy(FULL), lambda: drafted(FULL)], ids=["dict", "draft"])
@pytest.mark.parametrize("compare", [operator.eq, operator.ne])
def test_an_unread_draft_is_equal_to_what_it_stands_for(
    compare: Callable[[object, object], bool], other: Callable[[], State]
) -> None:
    """Whether `==` or `!=` is what reads it, and on whichever side it stands."""
    equal = compare(FULL, FULL)
    assert compare(drafted(FULL), other()) is compare(other(), drafted(FULL)) is equal
    assert compare(drafted(FULL), {**FULL, "a": 0}) is compare({**FULL, "a": 0}, drafted(FULL)) is not equal


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, dict, dict.copy, Draft.copy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_a_copy_of_a_draft_is_a_plain_dict(copied: Callable[[State], State]) -> None:
    """Which nothing of a lane sticks to."""
    copied_state = copied(drafted(FULL))
    assert type(copied_state) is dict
    assert exact(copied_state) == exact(FULL)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_draft_inside_itself_is_copied_as_such(copied: Callable[[State], State]) -> None:
    """As a dict in itself is."""
    state = drafted({"a": [1]})
    state["self"] = state
    again = copied(state)
    assert again["self"] is again
    assert repr(state) == "{'a': [1], 'self': {...}}"


@pytest.mark.parametrize("key", list(FULL))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"default": str},
        {"default": lambda value: None},
        {"default": lambda value: None, "option": orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS},
        {"default": list, "option": orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATETIME},
    ],
    ids=str,
)
def test_orjson_refuses_a_draft_with_anything_unread(key: str, options: dict[str, Any]) -> None:
    """It raises, whatever its options and however much was read; it never writes a part. With all read, it writes."""
    state = drafted({name: value for name, value in FULL.items() if name != "bytes"})
    for other in state:
        if other not in (key, "n"):
            state[other]
    if any(type(value) is Unread for value in raw(state).values()):
        with pytest.raises(TypeError):
            orjson.dumps({"state": [state]}, **options)
        state.get(key)
    assert orjson.loads(orjson.dumps(state, **options)) == {**state}


def test_orjson_asks_for_a_draft_that_is_passed_through() -> None:
    """With its option for it, the hook is given the draft itself, and may write all of it."""
    state = drafted({"a": [1], "b": {"c": 2}})
    assert orjson.dumps(state, dict, orjson.OPT_PASSTHROUGH_SUBCLASS) == b'{"a":[1],"b":{"c":2}}'


ENCODERS: dict[str, Callable[[State], object]] = {
    "msgspec json": msgspec.json.encode,
    "msgspec msgpack": msgspec.msgpack.encode,
    "msgspec builtins": msgspec.to_builtins,
    "pydantic": pydantic.TypeAdapter(dict[str, Any]).dump_json,
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("value", [[1, 2], {"a": 1}], ids=["list", "dict"])
def test_other_encoders_refuse_an_unread_value(name: str, value: object) -> None:
    """They raise; none of them writes something else in its place."""
    with pytest.raises((TypeError, ValueError)):
        ENCODERS[name](drafted({"a": value}))


def test_an_unread_value_does_not_print_itself() -> None:
    """Whoever finds one sees its size, and no secret."""
    (unread,) = raw(drafted({"a": [SECRET]})).values()
    assert repr(unread) == "Unread(11 bytes)"


def test_an_unread_value_that_was_given_out_natively_is_not_stored() -> None:
    """What some library in C took out of a draft and put in again is refused by name."""
    mirror = mirror_of({"a": [1]}).fork()
    state: Any = draft_of(mirror, DICT, JSON)
    state["stolen"] = [raw(state)["a"]]
    with pytest.raises(StateNotSerializable, match="Unread") as caught:
        mirror.advance(DRAFT.items(state))
    assert caught.value.path == "$.stolen[0]"


# What it costs --------------------------------------------------------------------------------------------------------


def test_what_nobody_reads_is_not_loaded() -> None:
    """Each value is loaded when it is first read, once; scalars of a few bytes at once, where they are not at hand."""
    codec = Counting()
    mirror = mirror_of({"a": [1], "b": {}, "n": 1, "s": "short"})
    draft_of(mirror, DICT, codec)
    assert codec.loaded == []
    state: Any = draft_of(Mirror(codec, mirror.texts), DICT, codec)
    assert codec.loaded == [b"1", b'"short"']
    codec.loaded.clear()
    assert ("a" in state, len(state), list(state), list(state.keys())) == (True, 4, list("abns"), list("abns"))
    assert codec.loaded == []
    assert state["a"] is state["a"] is state.get("a") is next(iter(state.values()))
    assert codec.loaded == [b"[1]", b"{}"]


def test_a_look_at_a_draft_reads_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untouched draft is compared by identity alone; of another, what was read is serialised."""
    codec = Counting()
    mirror = mirror_of({"a": [1], "b": {"c": 2}, "n": 1}, codec).fork()
    state: Any = draft_of(mirror, DICT, codec)
    codec.loaded.clear()
    looked_at: list[object] = []
    change = Mirror._change
    monkeypatch.setattr(Mirror, "_change", lambda *args: (looked_at.append(args[1]), change(*args))[1])
    assert mirror.advance(DRAFT.items(state)) is None
    mirror.restore(DRAFT, state)
    assert (looked_at, codec.loaded) == ([], [])
    assert state["b"] == {"c": 2}
    assert mirror.advance(DRAFT.items(state)) is None
    assert looked_at == ["b"]
    assert type(raw(state)["a"]) is Unread


def test_threads_that_read_a_key_for_the_first_time_get_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step may read its state from several threads: what one of them does to a value is not lost."""
    waiting, loading, goes_on = threading.Semaphore(0), threading.Event(), threading.Event()

    class Watched:
        """A lock that says that somebody wants it."""

        lock = threading.RLock()

        def __enter__(self) -> None:
            waiting.release()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    class Slow(Codec):
        def load(self, text: bytes) -> object:
            loading.set()
            assert goes_on.wait(10)
            return super().load(text)

    monkeypatch.setattr(draft, "_READING", Watched())
    state: Any = draft_of(mirror_of({"a": []}), DICT, Slow({}, {}))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(state["a"])) for _ in range(2)]
    threads[0].start()
    assert loading.wait(10)
    threads[1].start()
    assert [waiting.acquire(timeout=10) for _ in threads] == [True, True]
    goes_on.set()
    for thread in threads:
        thread.join(10)
    assert found[0] is found[1] is state["a"]


# What lanes have of each other ----------------------------------------------------------------------------------------


@QUICK
@given(states, st.lists(changes, max_size=6), st.lists(changes, max_size=6))
def test_drafts_of_one_mirror_never_see_each_other(
    state: State, ops: list[tuple[str, Op]], others: list[tuple[str, Op]]
) -> None:
    """However deep the change, neither another draft, nor the mirror, nor a draft made later has any of it."""
    mirror = mirror_of(state)
    texts = dict(mirror.texts)
    before = exact(drafted(state).copy())
    forks = [mirror.fork(), mirror.fork()]
    one, two = (draft_of(fork, DICT, JSON) for fork in forks)
    for _, op in ops:
        outcome(op, one)  # type: ignore[arg-type]
    assert exact(copy.copy(two)) == before
    advanced(forks[0], DRAFT, one)  # type: ignore[arg-type]
    assert advanced(forks[1], DRAFT, two) is None  # type: ignore[arg-type]
    for _, op in others:
        outcome(op, two)  # type: ignore[arg-type]
    assert mirror.texts == texts
    assert exact(copy.copy(draft_of(mirror.fork(), DICT, JSON))) == before


def test_a_change_deep_in_a_value_is_seen() -> None:
    """Of the draft that it was made in, by the look of its own mirror."""
    mirror = mirror_of({"a": {"b": [[1]]}, "other": [0]})
    fork = mirror.fork()
    state: Any = draft_of(fork, DICT, JSON)
    state["a"]["b"][0].append(2)
    change = fork.advance(DRAFT.items(state))
    assert change is not None
    assert (change.changed, change.removed) == ({"a": {"b": [[1, 2]]}}, ())
    assert mirror.texts["a"] == b'{"b":[[1]]}'


@QUICK
@given(states, st.lists(changes | readings, max_size=8))
def test_a_draft_is_restored_to_what_it_was(state: State, ops: list[tuple[str, Op]]) -> None:
    """A step that is tried again finds what it found the first time, and what nobody has read stays unread."""
    mirror = mirror_of(state).fork()
    twin: Any = draft_of(mirror, DICT, JSON)
    before = exact(dict(draft_of(mirror.fork(), DICT, JSON)))  # type: ignore[call-overload]
    for _, op in ops:
        outcome(op, twin)
    unread = {key for key, value in raw(twin).items() if type(value) is Unread and key in mirror.texts}
    mirror.restore(DRAFT, twin)
    assert {key for key, value in raw(twin).items() if type(value) is Unread} >= unread
    assert advanced(mirror, DRAFT, twin) is None
    assert sorted(exact(dict(twin))[1], key=repr) == sorted(before[1], key=repr)  # type: ignore[index]


# Mirrors --------------------------------------------------------------------------------------------------------------


@QUICK
@given(states, st.dictionaries(KEYS, leaves, max_size=3), st.dictionaries(KEYS, leaves, max_size=3))
def test_a_fork_of_a_mirror_goes_its_own_way(state: State, ours: State, theirs: State) -> None:
    """Each goes on as a mirror of its own would, and neither takes part in what the other takes."""
    mirror, lone = mirror_of(state), mirror_of(state)
    fork = mirror.fork()
    assert (fork.texts, fork.size) == (mirror.texts, mirror.size)
    assert all(fork.texts[key] is text for key, text in mirror.texts.items())
    for one, new in ((fork, theirs), (mirror, ours)):
        change, alone = one.advance(new), Mirror(JSON, lone.texts).advance(new)
        assert (change and change.encode()) == (alone and alone.encode())
    assert (fork.texts, mirror.texts) == (mirror_of(theirs).texts, mirror_of(ours).texts)
    assert (fork.size, mirror.size) == (mirror_of(theirs).size, mirror_of(ours).size)


def test_a_fork_knows_what_is_tagged() -> None:
    """An old text with a tag is no measure for a new one without, whatever the other mirror has taken meanwhile."""
    mirror = mirror_of({"a": [b"x"]})
    mirror.fork().advance({"a": [1]})
    for each in (mirror.fork(), mirror):
        change = each.advance({"a": [{"$bytes": "eA=="}]})
        assert change is not None
        assert change.changed == {"a": [{"$bytes": "eA=="}]}


# Other kinds of state -------------------------------------------------------------------------------------------------


@dataclass
class Part:
    amount: int = 1


@dataclass
class Order:
    name: str = ""
    parts: list[Part] = field(default_factory=list)


class Model(pydantic.BaseModel):
    name: str = ""
    parts: list[Part] = []


class Struct(msgspec.Struct):
    name: str = ""
    parts: list[Part] = []


@pytest.mark.parametrize("kind", [Order, Model, Struct])
def test_a_draft_of_an_object_is_an_object(kind: Any) -> None:
    """Of its type, with all its values, changed and restored and compared as any other; and apart from all others."""
    shape, codec = shape_of(kind), Codec(*named_types(kind))
    state = kind(name="o", parts=[Part(1)])
    mirror = mirror_of({}, codec)
    mirror.advance(shape.items(state))
    forks = [mirror.fork(), mirror.fork()]
    one, two = (draft_of(fork, shape, codec) for fork in forks)
    assert shape_for(shape) is shape
    assert (type(one), one, two) == (kind, state, state)
    one.parts[0].amount = 2  # type: ignore[attr-defined]
    assert two == state == kind(name="o", parts=[Part(1)])
    assert advanced(forks[0].fork(), shape, one) is not None  # type: ignore[arg-type]
    assert advanced(forks[1], shape, two) is None  # type: ignore[arg-type]
    forks[0].restore(shape, one)
    assert one == state


def test_a_dict_of_objects_is_drafted_too() -> None:
    """Values of the types that the state's type names are read with its codec."""

    codec = Codec(*named_types(dict[str, Part]))  # type: ignore[arg-type]
    mirror = mirror_of({"a": Part(7)}, codec).fork()
    state: Any = draft_of(mirror, shape_of(dict[str, Part]), codec)
    assert state == {"a": Part(7)}
    state["a"].amount = 8
    change = mirror.advance(shape_for(DICT).items(state))
    assert change is not None
    assert change.changed == {"a": Part(8)}


def test_a_draft_of_a_draft_is_one() -> None:
    """Lanes inside a lane draft from what stands in its mirror."""
    assert shape_for(DRAFT) is shape_for(DICT) is DRAFT
    outer = mirror_of({"a": [1], "n": 1}).fork()
    state: Any = draft_of(outer, DICT, JSON)
    state["a"].append(2)
    outer.advance(DRAFT.items(state))
    inner: Any = draft_of(outer.fork(), DRAFT, JSON)
    inner["a"].append(3)
    assert (type(inner), inner, state) == (Draft, {"a": [1, 2, 3], "n": 1}, {"a": [1, 2], "n": 1})
    assert outer.advance(DRAFT.items(state)) is None
