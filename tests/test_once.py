"""`ctx.once`: a result inside a long step is kept, and what gave it is not called again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pydantic
import pytest

from flowneer_async import Context, FlowBuilder, FlowError, StateNotSerializable, fragment
from flowneer_async.testing import Crash, FakeWorld
from flowneer_async.versions import resolved
from tests.support.stage import Flow, Stage, State
from tests.support.stores import KINDS

Ctx = Context[Any]


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage("memory", tmp_path)


class Calls:
    """Counts what was called, by name."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def call(self, name: str) -> str:
        self.names.append(name)
        return f"{name} {len(self.names)}"


def long_step(calls: Calls, die_after: str | None = None) -> Callable[[State, Ctx], Awaitable[None]]:
    """A step of three calls; the process dies after one of them, the first time."""
    left = [die_after]

    async def long(state: State, ctx: Ctx) -> None:
        for name in "abc":
            state[name] = await ctx.once(name, calls.call, name)
            if left[0] == name:
                left[0] = None
                raise Crash

    return long


@pytest.mark.parametrize("name", list("abc"))
async def test_what_was_done_before_a_crash_is_not_called_again(name: str, stage: Stage) -> None:
    """The step begins anew, with the results that it had; only the rest is called."""
    calls = Calls()
    flow: Flow = FlowBuilder("flow").then(long_step(calls, name))
    with pytest.raises(Crash):
        await stage.run(flow)
    assert (await stage.run(flow)).state == {"a": "a 1", "b": "b 2", "c": "c 3"}
    assert calls.names == ["a", "b", "c"]


@pytest.mark.parametrize("how", ["before", "after"])
async def test_wherever_the_process_dies_a_stored_result_counts(how: Any) -> None:
    """A crash between a call and its save calls it again, and that alone."""
    at = 0
    while True:
        at += 1
        stage, calls = Stage("memory", Path()), Calls()
        flow: Flow = FlowBuilder("flow").then(long_step(calls))
        if not await stage.crash(flow, at, how):
            break
        state = (await stage.run(flow)).state
        assert {name: result.split()[0] for name, result in state.items()} == {"a": "a", "b": "b", "c": "c"}
        again = "abc"[at - 2] if how == "before" and 2 <= at <= 4 else ""
        assert sorted(calls.names) == sorted("abc" + again)
    assert at == 7  # create, three results, the step, the end


async def test_a_retry_and_a_run_again_have_the_results_too(stage: Stage) -> None:
    """Whatever makes the step begin anew."""
    calls, tries = Calls(), list[int]()

    async def flaky(state: State, ctx: Ctx) -> None:
        state["a"] = await ctx.once("a", calls.call, "a")
        tries.append(ctx.attempt)
        if len(tries) < 4:
            raise ValueError

    flow: Flow = FlowBuilder("flow").then(flaky, retries=1)
    with pytest.raises(FlowError):
        await stage.run(flow)
    assert (await stage.run(flow)).state == {"a": "a 1"}
    assert (calls.names, tries) == (["a"], [1, 2, 1, 2])


async def test_a_question_does_not_lose_the_results(stage: Stage) -> None:
    """The step is put down, and begins anew with the answer: what it had called stays called."""
    calls = Calls()

    async def ask(state: State, ctx: Ctx) -> None:
        state["a"] = await ctx.once("a", calls.call, "a")
        state["answer"] = await ctx.interrupt("?")
        state["b"] = await ctx.once("b", calls.call, "b")

    flow: Flow = FlowBuilder("flow").then(ask)
    await stage.run(flow)
    assert (await stage.resume(flow, answer=1)).state == {"a": "a 1", "answer": 1, "b": "b 2"}


async def test_an_error_is_not_kept(quick: Stage) -> None:
    """It reaches the step as it is, and the next time the function is called again."""
    tries: list[int] = []

    async def flaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise KeyError("again")
        return "well"

    async def step(state: State, ctx: Ctx) -> None:
        try:
            state["a"] = await ctx.once("a", flaky)
        except KeyError:
            state["a"] = await ctx.once("a", flaky)

    flow: Flow = FlowBuilder("flow").then(step)
    with pytest.raises(FlowError) as caught:
        await quick.run(flow)
    assert isinstance(caught.value.cause, KeyError)
    assert (await quick.run(flow)).state == {"a": "well"}


async def test_one_name_is_one_result(quick: Stage) -> None:
    """Asked for twice in a step it is called once; in another step, or the next iteration, it is another result."""
    calls = Calls()

    async def twice(state: State, ctx: Ctx) -> None:
        both = [await ctx.once("a", calls.call, "a"), await ctx.once("a", calls.call, "never")]
        state["got"] = [*state.get("got", []), *both]

    flow: Flow = FlowBuilder("flow").loop(lambda s, ctx: ctx.index < 2, fragment().then(twice), name="l")
    flow = flow.then(twice, name="more")
    assert (await quick.run(flow)).state == {"got": ["a 1", "a 1", "a 2", "a 2", "a 3", "a 3"]}
    assert calls.names == ["a", "a", "a"]


async def test_lanes_keep_results_of_their_own(stage: Stage) -> None:
    """One dies with the process while others have theirs; none is called twice, and none mixed up."""
    calls, died = Calls(), [False]

    async def work(state: State, ctx: Ctx) -> None:
        state[f"{ctx.item} 1"] = await ctx.once("name", calls.call, f"{ctx.item} 1")
        if ctx.item == "b" and not died[0]:
            died[0] = True
            raise Crash
        state[f"{ctx.item} 2"] = await ctx.once("other", calls.call, f"{ctx.item} 2")

    flow: Flow = FlowBuilder("flow").batch(lambda s: "abc", fragment().then(work), name="all", concurrency=3)
    with pytest.raises(Crash):
        await stage.run(flow)
    state = (await stage.run(flow)).state
    assert {key: value.rpartition(" ")[0] for key, value in state.items()} == {key: key for key in state}
    assert len(state) == 6
    assert calls.names.count("b 1") == 1


@dataclass
class Receipt:
    cents: int


class Model(pydantic.BaseModel):
    cents: int


class Struct(msgspec.Struct):
    cents: int


class Order(pydantic.BaseModel):
    """A state that names the types of the results."""

    receipt: Receipt | None = None
    got: Any = None
    other: Model | None = None


RESULTS = [
    *(None, True, 0, 1.5, "text", "", b"\0\xff", [1, {"a": None}], (1, (2,)), {1: "a"}, {1, 2}, frozenset({"x"})),
    *(Decimal("1.10"), datetime(2030, 1, 1, tzinfo=UTC), 2**100, float("inf")),
]


@pytest.mark.parametrize("result", RESULTS, ids=repr)
async def test_a_result_comes_back_as_it_was(result: object, quick: Stage) -> None:
    """Of the same type and value, before the crash and after it."""
    seen: list[object] = []

    async def give() -> object:
        return result

    async def step(state: State, ctx: Ctx) -> None:
        seen.append(await ctx.once("x", give))
        if len(seen) < 2:
            raise Crash

    flow: Flow = FlowBuilder("flow").then(step)
    with pytest.raises(Crash):
        await quick.run(flow)
    await quick.run(flow)
    assert seen == [result, result]
    assert [type(each) for each in seen] == [type(result)] * 2


@pytest.mark.parametrize("result", [Receipt(5), [Receipt(5)], Model(cents=5)], ids=repr)
async def test_a_result_may_be_of_a_type_that_the_state_names(result: object, stage: Stage) -> None:
    """As a value of the state may."""
    seen: list[object] = []

    async def give() -> object:
        return result

    async def step(state: Order, ctx: Ctx) -> None:
        seen.append(await ctx.once("x", give))
        if len(seen) < 2:
            raise Crash

    flow = FlowBuilder("flow", Order).then(step)
    with pytest.raises(Crash):
        await stage.run(flow, Order())
    await stage.run(flow, Order())
    assert seen == [result, result]


async def test_a_result_is_the_same_before_a_crash_as_after_it(quick: Stage) -> None:
    """It is no object that is shared: what the step does with it does not change what is kept."""
    calls: list[int] = []

    async def give() -> list[int]:
        calls.append(1)
        return [1]

    async def step(state: State, ctx: Ctx) -> None:
        for _ in range(2):
            (await ctx.once("x", give)).append(2)
        state["x"] = await ctx.once("x", give)

    assert (await quick.run(FlowBuilder[State]("flow").then(step))).state == {"x": [1]}
    assert calls == [1]


async def test_a_result_that_cannot_be_kept_fails_the_step(quick: Stage) -> None:
    """StateNotSerializable, at the call: it is not found out after the next crash."""

    async def give() -> object:
        return object()

    async def step(state: State, ctx: Ctx) -> None:
        await ctx.once("x", give)

    with pytest.raises(FlowError) as caught:
        await quick.run(FlowBuilder[State]("flow").then(step))
    assert isinstance(caught.value.cause, StateNotSerializable)


async def test_results_are_forgotten_with_their_step(stage: Stage) -> None:
    """When it is done they are of no use: the chain does not carry them on."""
    flow: Flow = FlowBuilder("flow").then(long_step(Calls())).then(lambda s: s.clear(), name="clear")
    result = await stage.run(flow)
    async with stage.store() as store:
        (*_, last) = await store.versions("r")
        chain = await store.chain(last.id)
    assert result.state == {}
    assert resolved(last.id, chain) == {}


async def test_a_condition_that_asks_once_asks_in_each_iteration(quick: Stage) -> None:
    """`once` holds for one asking of the condition, and not for the whole loop."""
    calls: list[int] = []

    async def poll() -> int:
        calls.append(1)
        return len(calls)

    async def more(state: State, ctx: Ctx) -> bool:
        return await ctx.once("poll", poll) < 4

    async with asyncio.timeout(5):  # a loop without end, where this is broken
        await quick.run(FlowBuilder[State]("flow").loop(more, fragment().then(lambda s: None, name="x")))
    assert len(calls) == 4


async def test_functions_get_their_arguments() -> None:
    """By position and by name; and without a store, too."""

    async def give(*args: int, **kwargs: int) -> list[Any]:
        await anyio.lowlevel.checkpoint()
        return [list(args), kwargs]

    async def step(state: State, ctx: Ctx) -> None:
        state["x"] = await ctx.once("x", give, 1, 2, three=3)

    result = await FlowBuilder[State]("flow").then(step).run({}, world=FakeWorld())
    assert result.state == {"x": [[1, 2], {"three": 3}]}


async def test_a_step_under_test_simply_calls() -> None:
    """A context made by hand has no run to keep results in."""
    state: State = {}
    await long_step(Calls())(state, Context("r", "step", 1, None))
    assert state == {"a": "a 1", "b": "b 2", "c": "c 3"}
