"""One run from its start to its end: what steps are given, what is returned, what is raised."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import BadName, BadState, Context, FlowBuilder, FlowError, StateMissing, StepReturned
from flowneer_stores import MemoryStore, SqliteStore
from tests.support.chains import stored_states, stored_versions
from tests.support.stores import KINDS, opened

State = dict[str, Any]
SECRET = "hunter2"


def flow_of(*steps: Callable[..., Awaitable[None] | None]) -> FlowBuilder[State]:
    flow: FlowBuilder[State] = FlowBuilder("flow")
    for step in steps:
        flow = flow.then(step)
    return flow


def sync_step(state: State) -> None:
    state["sync"] = True


async def async_step(state: State) -> None:
    await asyncio.sleep(0)
    state["async"] = True


def sync_with_context(state: State, ctx: Context) -> None:
    state["sync_with_context"] = ctx.step


async def async_with_context(state: State, ctx: Context) -> None:
    await asyncio.sleep(0)
    state["async_with_context"] = ctx.step


async def test_steps_may_be_sync_or_async_with_or_without_context() -> None:
    """All four kinds of step work on one state, in the order of the flow."""
    result = await flow_of(sync_step, async_step, sync_with_context, async_with_context).run({})
    assert list(result.state.items()) == [
        ("sync", True),
        ("async", True),
        ("sync_with_context", "sync_with_context"),
        ("async_with_context", "async_with_context"),
    ]


class Adder:
    """A callable object, and one with a method."""

    def __call__(self, state: State) -> None:
        state["called"] = True

    async def method(self, state: State, ctx: Context) -> None:
        state["method"] = ctx.attempt


def keyed(key: str, state: State) -> None:
    state[key] = True


async def test_steps_may_be_methods_objects_partials_and_lambdas() -> None:
    """Any callable is a step; one without a name of its own is given one."""
    flow: FlowBuilder[State] = FlowBuilder("flow")
    flow = flow.then(Adder(), name="object").then(Adder().method)
    flow = flow.then(functools.partial(keyed, "partial"), name="partial").then(lambda s: s.update(x=1), name="λ")
    assert (await flow.run({})).state == {"called": True, "method": 1, "partial": True, "x": 1}


async def test_a_parameter_with_a_default_is_no_context() -> None:
    """Only a second parameter without a default, or one called ctx, is given the context."""

    async def plain(state: State, limit: int = 3) -> None:
        state["limit"] = limit

    async def named(state: State, ctx: Context | None = None) -> None:
        state["run"] = ctx is not None

    assert (await flow_of(plain, named).run({})).state == {"limit": 3, "run": True}


async def test_a_flow_without_steps_gives_back_the_state() -> None:
    """A flow without steps is complete at once, and its state is stored."""
    store = MemoryStore()
    state: State = {"a": 1}
    result = await FlowBuilder("empty").with_versioned_checkpoint(store).run(state, run_id="r")
    assert result.state is state
    assert result.version == "r@0"
    assert await stored_states(store, "r") == [{"a": 1}]


async def test_the_context_tells_run_step_attempt_and_deps() -> None:
    """The fields of the context are those of this run."""
    seen: list[tuple[object, ...]] = []
    client = object()

    async def look(state: State, ctx: Context) -> None:
        seen.append((ctx.run_id, ctx.step, ctx.attempt, ctx.deps, ctx.idempotency_key))

    await flow_of(look).run({}, run_id="r-1", deps=client)
    assert seen == [("r-1", "look", 1, client, "r-1/look")]


async def test_deps_are_never_stored(tmp_path: Path) -> None:
    """Deps may be what no store could keep, and leave no trace in it."""
    path = tmp_path / "runs.db"

    class Client:
        password = SECRET

    async def use(state: State, ctx: Context[Client]) -> None:
        state["length"] = len(ctx.deps.password)

    async with SqliteStore(path) as store:
        await flow_of(use).with_versioned_checkpoint(store).run({}, run_id="r", deps=Client())
        assert await stored_states(store, "r") == [{}, {"length": 7}]
    assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())


async def test_the_key_of_a_step_is_one_over_retries_and_resumes() -> None:
    """The idempotency key stays the same however often a step is tried, and in whatever process."""
    keys: list[tuple[str, int]] = []

    async def pay(state: State, ctx: Context) -> None:
        keys.append((ctx.idempotency_key, ctx.attempt))
        if len(keys) < 4:
            raise ConnectionError

    flow = FlowBuilder("flow").then(pay, retries=1).with_versioned_checkpoint(MemoryStore())
    with pytest.raises(FlowError):
        await flow.run({}, run_id="r")
    await flow.run({}, run_id="r")
    assert keys == [("r/pay", 1), ("r/pay", 2), ("r/pay", 1), ("r/pay", 2)]


async def test_keys_differ_between_steps_runs_and_forks() -> None:
    """What is done for another step, run or fork has another idempotency key."""
    keys: list[str] = []
    store = MemoryStore()

    async def note(state: State, ctx: Context) -> None:
        keys.append(ctx.idempotency_key)

    flow = FlowBuilder("flow").then(note, name="a").then(note, name="b").with_versioned_checkpoint(store)
    await flow.run({}, run_id="r1")
    await flow.run({}, run_id="r2")
    await flow.resume_from("r1@0", store).run()
    await flow.resume_from("r1@0", store).run(run_id="r3")
    assert len(keys) == len(set(keys)) == 8


@pytest.mark.parametrize("kind", KINDS)
async def test_the_result_says_how_the_run_ended(kind: str, tmp_path: Path) -> None:
    """A result holds the very state that was passed, the last version, the status and the id."""
    state: State = {}
    async with opened(kind, tmp_path) as store:
        result = await flow_of(sync_step, async_step).with_versioned_checkpoint(store).run(state, run_id="r")
        assert result.state is state
        assert (result.version, result.status, result.run_id) == ("r@2", "completed", "r")
        assert (await store.read("r")).status == "completed"


async def test_a_run_without_a_store_has_no_version() -> None:
    """Without a store there is an id for the keys, and no version."""
    result = await flow_of(sync_step).run({})
    assert result.version is None
    assert len(result.run_id) > 20
    assert (await flow_of(sync_step).run({}, run_id="mine")).run_id == "mine"


async def test_ids_that_nobody_chose_are_all_different() -> None:
    """Two runs without an id of their own never share one."""
    flow = flow_of(sync_step).with_versioned_checkpoint(MemoryStore())
    assert len({(await flow.run({})).run_id for _ in range(20)}) == 20


@pytest.mark.parametrize("store", [None, MemoryStore()])
async def test_a_run_without_id_needs_a_state(store: MemoryStore | None) -> None:
    """A run that nothing is stored of cannot start without a state, and says that."""
    flow = flow_of(sync_step)
    with pytest.raises(StateMissing, match="pass one"):
        await (flow if store is None else flow.with_versioned_checkpoint(store)).run()


@pytest.mark.parametrize("run_id", ["", "a@1", "../x", "a b", "ü", "x" * 129, 7])
async def test_bad_run_ids_are_refused(run_id: Any) -> None:
    """A run id that could not be part of a version id, a file name or an URL is refused, with or without a store."""
    for flow in (flow_of(sync_step), flow_of(sync_step).with_versioned_checkpoint(MemoryStore())):
        with pytest.raises(BadName):
            await flow.run({}, run_id=run_id)


@pytest.mark.parametrize("state", [[], "text", 5, object()])
async def test_a_state_of_no_known_kind_is_refused(state: Any) -> None:
    """A state that has no keys or fields is refused before any step."""
    with pytest.raises(BadState):
        await flow_of(sync_step).run(state)


@pytest.mark.parametrize("value", [0, {}, "x", [1]])
@pytest.mark.parametrize("kind", [*KINDS, None])
async def test_a_returned_value_is_an_error_and_not_retried(kind: str | None, value: object, tmp_path: Path) -> None:
    """A step that returns a value has misunderstood the state: that is said at once, whatever its retries."""
    calls: list[int] = []

    async def returns(state: State) -> object:
        calls.append(1)
        return value

    step: Any = returns
    flow = FlowBuilder("flow").then(step, retries=5)
    async with opened(kind or "memory", tmp_path) as store:
        with pytest.raises(StepReturned) as caught:
            await (flow.with_versioned_checkpoint(store) if kind else flow).run({}, run_id="r")
        assert (caught.value.step, caught.value.run_id, caught.value.value_type) == ("returns", "r", type(value))
        assert len(calls) == 1
        assert [v.seq for v in await stored_versions(store, "r")] == ([0] if kind else [])
        assert not kind or (await store.read("r")).status == "failed"


async def fails(state: State, ctx: Context) -> None:
    ctx.deps.append(ctx.step) if isinstance(ctx.deps, list) else None
    raise ValueError(f"the password is {state['password']}")


@pytest.mark.parametrize("kind", [*KINDS, None])
async def test_a_failed_step_is_told_with_its_cause_and_without_the_state(kind: str | None, tmp_path: Path) -> None:
    """A FlowError names step, run, attempts and cause; its message holds no value of the state."""
    async with opened(kind or "memory", tmp_path) as store:
        flow = flow_of(sync_step, fails)
        with pytest.raises(FlowError) as caught:
            await (flow.with_versioned_checkpoint(store) if kind else flow).run({"password": SECRET}, run_id="r")
    error = caught.value
    assert (error.step, error.run_id, error.attempts) == ("fails", "r", 1)
    assert isinstance(error.cause, ValueError)
    assert error.__cause__ is error.cause
    assert str(error) == "step 'fails' of run 'r' failed with ValueError"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failed_run_is_stored_as_failed_and_goes_on_at_the_failed_step(kind: str, tmp_path: Path) -> None:
    """The id of a failed run, run again, begins with the step that failed, on the state before it."""
    calls: list[str] = []

    async def first(state: State) -> None:
        calls.append("first")
        state["n"] = 1

    async def second(state: State) -> None:
        calls.append("second")
        state["n"] += 1
        if len(calls) == 2:
            raise OSError

    async with opened(kind, tmp_path) as store:
        flow = flow_of(first, second).with_versioned_checkpoint(store)
        with pytest.raises(FlowError):
            await flow.run({}, run_id="r")
        stored = await store.read("r")
        assert (stored.status, stored.error, stored.owner) == (
            "failed",
            "step 'second' of run 'r' failed with OSError",
            None,
        )
        assert (await flow.run(run_id="r")).state == {"n": 2}
        assert calls == ["first", "second", "second"]
        assert (await store.read("r")).error is None


async def test_the_state_of_a_failed_run_is_in_the_hands_of_the_caller() -> None:
    """After a failure the caller's object is as the steps left it."""
    state: State = {"password": "x"}
    with pytest.raises(FlowError):
        await flow_of(sync_step, fails).run(state)
    assert state == {"password": "x", "sync": True}


@pytest.mark.parametrize("kind", [*KINDS, None])
async def test_a_hundred_runs_of_one_flow_do_not_touch_each_other(kind: str | None, tmp_path: Path) -> None:
    """No data of a run lives on the flow: concurrent runs of one flow object end as if each were alone."""

    async def add(state: State, ctx: Context[int]) -> None:
        before = list(state["seen"])
        await asyncio.sleep(0)
        state["seen"] = [*before, f"{ctx.run_id} {ctx.deps}"]

    flow: FlowBuilder[State] = FlowBuilder("flow")
    for number in range(4):
        flow = flow.then(add, name=f"add{number}")
    async with opened(kind or "memory", tmp_path) as store:
        bound = flow.with_versioned_checkpoint(store) if kind else flow
        before = repr(vars(bound))
        runs = [bound.run({"seen": []}, run_id=f"r{number}", deps=number) for number in range(100)]
        for number, result in enumerate(await asyncio.gather(*runs)):
            expected = [{"seen": [f"r{number} {number}"] * done} for done in range(5)]
            assert result.state == expected[-1]
            assert not kind or await stored_states(store, f"r{number}") == expected
    assert repr(vars(bound)) == before


async def test_a_step_is_called_with_the_very_object_that_was_passed() -> None:
    """The runner works on the caller's object, also where versions are kept."""
    state: State = {}

    async def check(given: State) -> None:
        assert given is state

    await flow_of(check).with_versioned_checkpoint(MemoryStore()).run(state)
