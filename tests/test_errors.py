"""What is refused, how it is said, and that nothing else suffers from it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from flowneer_async import (
    BadName,
    BadState,
    BadStep,
    Context,
    FlowBuilder,
    FlowChanged,
    FlowError,
    FlowneerError,
    ForeignRun,
    StateTypeUnknown,
    UnknownRun,
    UnknownVersion,
    VersionStore,
)
from flowneer_async.testing import Crash, CrashingStore
from tests.support.counting import counts
from tests.support.stores import KINDS, opened

SECRET = "hunter2"
State = dict[str, Any]


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VersionStore]:
    async with opened(request.param, tmp_path) as store:
        yield store


def step(name: str) -> Callable[[State, Context[Any]], None]:
    """A step that notes that it was done, and fails if the deps say so."""

    def do(state: State, ctx: Context[Any]) -> None:
        if ctx.deps == name:
            raise ValueError(state["password"])
        state["done"].append(name)

    return do


def flow_of(names: str, flow: str = "flow") -> FlowBuilder[State]:
    built = FlowBuilder[State](flow)
    for name in names:
        built = built.then(step(name), name=name)
    return built


def start() -> State:
    return {"done": [], "password": SECRET}


async def failed_at(store: VersionStore, name: str, names: str = "abcd", run_id: str = "r") -> None:
    """A run that has passed all steps before `name`."""
    with pytest.raises(FlowError):
        await flow_of(names).with_versioned_checkpoint(store).run(start(), run_id=run_id, deps=name)


async def goes_on(store: VersionStore, done: str, names: str = "abcd") -> None:
    """Run r goes on with these steps, and has then done those named."""
    result = await flow_of(names).with_versioned_checkpoint(store).run(run_id="r")
    assert "".join(result.state["done"]) == done


@asynccontextmanager
async def refused(store: VersionStore, kind: type[FlowneerError], *words: str) -> AsyncIterator[list[Any]]:
    """This is refused in these words, with no value of the state; afterwards the store works as before."""
    errors: list[Any] = []
    with pytest.raises(kind) as caught:
        yield errors
    errors.append(caught.value)
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert SECRET not in message
    await counts(store, "other", password=SECRET)


# Names and versions ---------------------------------------------------------------------------------------------------

BAD_IDS: list[Any] = [
    "", " ", "-a", ".a", ":a", "_a", "a b", "a@1", "a/b", "a\n", "a\0", "ä", "ａ", "r" * 129, 7, b"r", ("r",), "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("run_id", BAD_IDS)
async def test_a_run_id_of_other_signs_is_refused(store: VersionStore, run_id: Any) -> None:
    """A run id goes into version ids, files and logs: what it may hold is said in the error."""
    flow = flow_of("ab").with_versioned_checkpoint(store)
    async with refused(store, BadName, "run", "[A-Za-z0-9]"):
        await flow.run(start(), run_id=run_id)
    await flow.run(start(), run_id="r")
    async with refused(store, BadName, "run", "[A-Za-z0-9]"):
        await flow_of("ab").resume_from("r@1", store).run(run_id=run_id)


@pytest.mark.parametrize("run_id", ["a", "7", "A.b_c:d-e", "r" * 128, "a.", "None"])
async def test_a_run_id_of_the_right_signs_is_taken(store: VersionStore, run_id: str) -> None:
    """Letters, digits and . _ : - after the first, 128 in all."""
    result = await flow_of("ab").with_versioned_checkpoint(store).run(start(), run_id=run_id)
    assert result.version == f"{run_id}@2"


@pytest.mark.parametrize("version", ["r@3", "r@99", "r", "", "r@-1", "r@x", "@1", "r@1@1", None, 7])
async def test_an_unknown_version_is_named(store: VersionStore, version: Any) -> None:
    """Whoever resumes from a version that is not there is told which, and how one is written."""
    await flow_of("ab").with_versioned_checkpoint(store).run(start(), run_id="r")
    async with refused(store, UnknownVersion, repr(str(version)), "run_id@number") as errors:
        await flow_of("ab").resume_from(version, store).run(run_id="fork")
    assert errors[0].version == str(version)
    async with refused(store, FlowneerError):
        await store.read("fork")


async def test_a_version_of_an_unknown_run_is_named(store: VersionStore) -> None:
    """Where there is not even the run, that is said."""
    async with refused(store, UnknownRun, "'none'"):
        await flow_of("ab").resume_from("none@0", store).run(run_id="fork")


# Steps and states -----------------------------------------------------------------------------------------------------


def generator(state: State) -> Any:
    yield


NO_STEPS: list[Any] = [None, 7, "name", {}, object(), generator, lambda: None, lambda a, b, c: None]


@pytest.mark.parametrize("no_step", NO_STEPS, ids=lambda value: type(value).__name__)
def test_what_cannot_be_called_with_a_state_is_no_step(no_step: Any) -> None:
    """A mistake in a flow is found while it is built; the error names the flow, and the flow before it is as it was."""
    flow = flow_of("a")
    with pytest.raises(BadStep, match="flow 'flow'"):
        flow.then(no_step, name="b")
    with pytest.raises(BadStep):
        FlowBuilder("flow").start_with(no_step, name="b")
    flow.then(step("b"), name="b")


@dataclass(frozen=True)
class Frozen:
    password: str = SECRET


NO_STATES: list[Any] = [
    [SECRET], (SECRET,), {SECRET}, SECRET, 7, True, object(), MappingProxyType({"password": SECRET}), Frozen(), dict,
]  # fmt: skip


@pytest.mark.parametrize("state", NO_STATES, ids=lambda value: type(value).__name__)
async def test_what_has_no_keys_to_change_is_no_state(store: VersionStore, state: Any) -> None:
    """A state is a dict or an object with fields: else its type is named, and no run is begun."""
    async with refused(store, BadState, type(state).__qualname__) as errors:
        await flow_of("ab").with_versioned_checkpoint(store).run(state, run_id="r")
    assert errors[0].state_type is type(state)
    async with refused(store, FlowneerError, "'r'"):
        await store.read("r")


async def test_a_new_run_needs_a_state(store: VersionStore) -> None:
    """Without a state there is nothing to begin with, and nothing is begun."""
    async with refused(store, FlowneerError):
        await flow_of("ab").with_versioned_checkpoint(store).run(run_id="r")
    assert (await flow_of("ab").with_versioned_checkpoint(store).run(start(), run_id="r")).version == "r@2"


async def test_a_run_that_died_at_birth_was_never_there(store: VersionStore) -> None:
    """A run is stored together with its initial state, or not at all; given one again, it begins."""
    flow = flow_of("ab")
    with pytest.raises(Crash):
        await flow.with_versioned_checkpoint(CrashingStore(store, 1)).run(start(), run_id="r")
    async with refused(store, UnknownRun, "'r'"):
        await flow.with_versioned_checkpoint(store).run(run_id="r")
    assert (await flow.with_versioned_checkpoint(store).run(start(), run_id="r")).state["done"] == ["a", "b"]


async def test_a_fork_that_died_at_birth_is_forked_again(store: VersionStore) -> None:
    """A fork whose first version was never stored is made by the same call again."""
    await flow_of("ab").with_versioned_checkpoint(store).run(start(), run_id="r")
    with pytest.raises(Crash):
        await flow_of("ab").resume_from("r@1", CrashingStore(store, 1)).run(run_id="fork")
    result = await flow_of("ab").resume_from("r@1", store).run(run_id="fork")
    assert (result.state["done"], result.version) == (["a", "b"], "fork@1")
    assert (await store.versions("fork"))[0].parent == "r@1"


@dataclass
class Order:
    password: str
    done: list[str]


async def note(order: Order) -> None:
    order.done.append("x")


def fail(order: Order) -> None:
    raise ValueError(order.password)


async def test_a_typed_run_needs_a_typed_flow(store: VersionStore) -> None:
    """A state of a type that the flow does not name is not given out as a dict; the flow that names it goes on."""
    typed = FlowBuilder("flow", Order).start_with(note, name="a")
    with pytest.raises(FlowError):
        await typed.then(fail, name="b").with_versioned_checkpoint(store).run(Order(SECRET, []), run_id="r")
    for attempt in (
        lambda: flow_of("ab").with_versioned_checkpoint(store).run(run_id="r"),
        lambda: flow_of("ab").resume_from("r@0", store).run(),
        lambda: flow_of("ab").resume_from("r@1", store).run(),
    ):
        async with refused(store, StateTypeUnknown, "Order", "FlowBuilder(name, StateType)"):
            await attempt()
    result = await typed.then(note, name="b").with_versioned_checkpoint(store).run(run_id="r")
    assert result.state == Order(SECRET, ["x", "x"])


# Flows that changed ---------------------------------------------------------------------------------------------------

CHANGED = {
    "a passed step was removed": "bcd",
    "the last passed step was removed": "acd",
    "all passed steps were removed": "cd",
    "passed steps changed places": "bacd",
    "a passed step was renamed": "axcd",
    "a passed step comes later": "acbd",
    "no step is left": "",
}
COMPATIBLE = {
    "nothing changed": ("abcd", "abcd"),
    "a step was appended": ("abcdx", "abcdx"),
    "a step was inserted before": ("xabcd", "abcd"),
    "a step was inserted between": ("axbcd", "abcd"),
    "a step was inserted after": ("abxcd", "abxcd"),
    "the next step was renamed": ("abxd", "abxd"),
    "the next steps changed places": ("abdc", "abdc"),
    "the next steps were removed": ("ab", "ab"),
}


@pytest.mark.parametrize("names", CHANGED.values(), ids=CHANGED.keys())
async def test_a_run_does_not_go_on_past_steps_that_are_gone(store: VersionStore, names: str) -> None:
    """Where the passed steps are not there in their order, both lists are shown, and the old flow still goes on."""
    await failed_at(store, "c")
    async with refused(store, FlowChanged, "'r'", "[a, b]", f"[{', '.join(names)}]", "or start a new run") as errors:
        await flow_of(names).with_versioned_checkpoint(store).run(run_id="r")
    assert (errors[0].passed, errors[0].steps) == (("a", "b"), tuple(names))
    async with refused(store, FlowChanged):
        await flow_of(names).resume_from("r@2", store).run(run_id="fork")
    await goes_on(store, "abcd")


@pytest.mark.parametrize(("names", "done"), COMPATIBLE.values(), ids=COMPATIBLE.keys())
async def test_a_run_goes_on_in_a_flow_that_grew(store: VersionStore, names: str, done: str) -> None:
    """What comes after the passed steps may change freely; what was inserted before is not caught up on."""
    await failed_at(store, "c")
    await goes_on(store, done, names)


async def test_a_flow_may_change_again_and_again(store: VersionStore) -> None:
    """What a run has passed is known by the flow that it passed it in."""
    await failed_at(store, "c")
    with pytest.raises(FlowError):
        await flow_of("xabycd").with_versioned_checkpoint(store).run(run_id="r", deps="c")
    async with refused(store, FlowChanged, "y"):
        await flow_of("abcd").with_versioned_checkpoint(store).run(run_id="r")
    await goes_on(store, "abycz", "xabycz")


async def test_an_older_version_may_be_forked_by_a_flow_that_changed_later(store: VersionStore) -> None:
    """Only the steps passed at that version have to be there."""
    await failed_at(store, "c")
    result = await flow_of("axy").resume_from("r@1", store).run()
    assert "".join(result.state["done"]) == "axy"


async def test_long_flows_are_shown_shortened(store: VersionStore) -> None:
    """An error about a flow of many steps does not fill the screen."""
    names = "abcdefghijklmnopqrstuvwxyz"
    await failed_at(store, "z", names)
    async with refused(store, FlowChanged, "…") as errors:
        await flow_of(names[1:]).with_versioned_checkpoint(store).run(run_id="r")
    assert len(str(errors[0])) < 300
    assert errors[0].passed == tuple(names[:-1])


async def test_a_run_of_another_flow_is_left_alone(store: VersionStore) -> None:
    """A run id that another flow has used is refused by both names, to go on, to finish and to fork."""
    await failed_at(store, "c")
    await flow_of("abcd").with_versioned_checkpoint(store).run(start(), run_id="done")
    foreign = flow_of("abcd", "foreign")
    attempts: list[Callable[[], Awaitable[Any]]] = [
        lambda: foreign.with_versioned_checkpoint(store).run(start(), run_id="r"),
        lambda: foreign.with_versioned_checkpoint(store).run(run_id="r"),
        lambda: foreign.with_versioned_checkpoint(store).run(run_id="done"),
        lambda: foreign.resume_from("r@2", store).run(),
        lambda: foreign.resume_from("r@1", store).run(run_id="fork"),
    ]
    for attempt in attempts:
        async with refused(store, ForeignRun, "'flow'", "'foreign'", "another run id"):
            await attempt()
    await goes_on(store, "abcd")


async def test_a_step_that_fails_is_named_without_its_message(store: VersionStore) -> None:
    """The error says step, run and kind of failure; its text, which may hold a value, is only in its cause."""
    async with refused(store, FlowError, "'b'", "'r'", "ValueError") as errors:
        await flow_of("abcd").with_versioned_checkpoint(store).run(start(), run_id="r", deps="b")
    assert SECRET in str(errors[0].__cause__)
    assert SECRET not in str((await store.read("r")).error)
    await goes_on(store, "abcd")
