"""Runs that steps call: done once, waited for without a slot, and taken back with their parent."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async import Context, RunFilter
from flowneer_async.engine import Engine, Handle, Limits
from flowneer_async.errors import NotCompleted
from tests.support.engines import (
    CLOCKED,
    Clock,
    Flow,
    State,
    Work,
    engines,
    over,
    pass_time,
    pass_turns,
    quiet,
    watched,
)
from tests.support.stores import KINDS

kinds = pytest.mark.parametrize("kind", KINDS)
clocked = pytest.mark.parametrize("kind", CLOCKED)


class Family:
    """A child flow, and steps of a parent that call it in whichever engine works on them."""

    def __init__(self) -> None:
        self.work = Work()
        self.child = Flow("child").then(self.square)
        self.slow = Flow("slow").then(self.work.step)

    async def square(self, state: State, ctx: Context[Any]) -> None:
        with self.work.counted(state, ctx):
            await pass_turns(3)
            state["square"] = state["number"] ** 2

    async def one(self, state: State, ctx: Context["Family"]) -> None:
        """A step that calls one."""
        state["squares"] = [await self.squared(ctx, 3)]

    async def three(self, state: State, ctx: Context["Family"]) -> None:
        """A step that calls three by name."""
        state["squares"] = [await self.squared(ctx, number, str(number)) for number in (1, 2, 3)]

    async def item(self, state: State, ctx: Context["Family"]) -> None:
        """A step for an item."""
        state["squares"] = sorted([*state.get("squares", []), await self.squared(ctx, ctx.item)])

    async def iteration(self, state: State, ctx: Context["Family"]) -> None:
        """A step for an iteration of a loop."""
        state["squares"] = [*state.get("squares", []), await self.squared(ctx, ctx.index + 1)]

    async def lane(self, state: State, ctx: Context["Family"]) -> None:
        """A step for a lane."""
        number = int(ctx.step[-1])
        state[f"square-{number}"] = await self.squared(ctx, number)

    async def together(self, state: State) -> None:
        """The squares of the lanes."""
        state["squares"] = [state.pop(f"square-{number}") for number in (1, 2, 3)]

    async def wait(self, state: State, ctx: Context["Family"]) -> None:
        """A step that calls a run which goes on until it is let go."""
        await self.calls(ctx, self.slow, {})

    calls: Callable[..., Awaitable[State]]
    """`call` of the engine."""

    async def squared(self, ctx: Context[Any], number: Any, name: str = "") -> int:
        return (await self.calls(ctx, self.child, {"number": number}, name))["square"]

    def at(self, engine: Engine) -> None:
        """The steps call by this engine."""
        self.calls = engine.call


def up_to_three(state: State, ctx: Context[Any]) -> bool:
    return ctx.index < 3


def numbers(state: State) -> list[int]:
    return [1, 2, 3]


WAYS: dict[str, Callable[[Family], Flow]] = {
    "names": lambda family: Flow("parent").then(family.three),
    "a loop": lambda family: Flow("parent").loop(up_to_three, Flow("body").then(family.iteration)),
    "a batch": lambda family: Flow("parent").batch(numbers, Flow("body").then(family.item)),
    "lanes": lambda family: (
        Flow("parent")
        .parallel([Flow("lane").then(family.lane, name=f"lane{number}") for number in (1, 2, 3)])
        .then(family.together)
    ),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


async def children(engine: Engine, parent: str = "p") -> list[Any]:
    return list((await engine.store.find(RunFilter(tags={"@parent": parent}), 100)).runs)


@kinds
@every_way
async def test_each_child_is_done_once_though_there_is_one_slot_for_all(
    kind: str, way: Callable[[Family], Flow], tmp_path: Path
) -> None:
    family, clock = Family(), Clock()
    flow = way(family)
    async with engines(kind, tmp_path, [flow, family.child], clock, concurrency=1) as [engine]:
        family.at(engine)
        parent = await engine.start(flow, {}, run_id="p", tags={"tenant": "t"}, deadline=1000)
        await over(clock, [parent], engine, most=0)  # at once: no time passes
        assert (await parent.result()).state["squares"] == [1, 4, 9]
        assert len(family.work.begun) == 3
        assert family.work.most[""] == 1
        found = await children(engine)
        assert [each.tags for each in found] == [{"@parent": "p", "tenant": "t"}] * 3


@settings(max_examples=60, deadline=None)
@given(
    way=st.sampled_from(sorted(WAYS)),
    turns=st.lists(st.integers(0, 7), min_size=1, max_size=20),
    concurrency=st.integers(1, 3),
    parents=st.integers(1, 3),
)
def test_a_parent_goes_on_at_once_whenever_its_child_ends_before_or_after_it_is_put_down(
    way: str, turns: list[int], concurrency: int, parents: int
) -> None:
    async def main() -> None:
        family, clock = Family(), Clock()
        flow = WAYS[way](family)
        flows = [flow, family.child]
        async with engines("memory", Path(), flows, clock, turns=turns, concurrency=concurrency) as [engine]:
            family.at(engine)
            runs = [await engine.start(flow, {}) for _ in range(parents)]
            await over(clock, runs, engine, most=0)
            assert [(await each.result()).state["squares"] for each in runs] == [[1, 4, 9]] * parents
            assert len(family.work.begun) == 3 * parents

    asyncio.run(main())


@clocked
async def test_a_flow_that_calls_itself_and_has_room_for_one_comes_to_its_end(kind: str, tmp_path: Path) -> None:
    clock = Clock()

    async def down(state: State, ctx: Context[Any]) -> None:
        depth: int = state["depth"]
        state["sum"] = depth + (await engine.call(ctx, flow, {"depth": depth - 1}))["sum"] if depth else 0

    flow = Flow("flow").then(down)
    limits = {"flow": Limits(concurrency=1)}
    async with engines(kind, tmp_path, [flow], clock, concurrency=1, limits=limits) as [engine]:
        parent = await engine.start(flow, {"depth": 4})
        await over(clock, [parent], engine, most=0)
        assert (await parent.result()).state["sum"] == 10


@clocked
async def test_the_parent_may_change_what_it_has_given_its_child(kind: str, tmp_path: Path) -> None:
    family, clock = Family(), Clock()

    async def call(state: State, ctx: Context[Any]) -> None:
        given = {"number": 5, "seen": state.setdefault("seen", [])}
        state["child"] = await engine.call(ctx, family.child, given)
        given["number"] = 7

    flow = Flow("parent").then(call)
    async with engines(kind, tmp_path, [flow, family.child], clock) as [engine]:
        parent = await engine.start(flow, {})
        await over(clock, [parent], engine, most=0)
        assert (await parent.result()).state["child"] == {"number": 5, "seen": [], "square": 25}


# Ends -----------------------------------------------------------------------------------------------------------------


@clocked
async def test_a_parent_goes_on_after_its_child_that_had_failed_was_resumed(kind: str, tmp_path: Path) -> None:
    fails, clock = [True], Clock()

    async def fail(state: State) -> None:
        if fails:
            raise ValueError("secret")
        state["done"] = True

    async def call(state: State, ctx: Context[Any]) -> None:
        state["child"] = await engine.call(ctx, child, {})

    child, flow = Flow("child").then(fail), Flow("parent").then(call)
    async with engines(kind, tmp_path, [flow, child], clock) as [engine]:
        parent = await engine.start(flow, {}, run_id="p")
        with pytest.raises(NotCompleted, match="ChildFailed"):
            await parent.result()
        [run] = await children(engine)
        fails.clear()
        await parent.resume()
        await over(clock, [parent], engine, most=0)
        assert (await parent.run()).status == "failed"  # its child still is
        await (await engine.resume(run.run_id)).result()
        await parent.resume()
        await over(clock, [parent], engine, most=0)
        assert (await parent.result()).state == {"child": {"done": True}}


@kinds
async def test_a_child_that_is_cancelled_fails_its_parent(kind: str, tmp_path: Path) -> None:
    family = Family()
    flow = Flow("parent").then(family.wait)
    async with engines(kind, tmp_path, [flow, family.slow], Clock()) as [engine]:
        family.at(engine)
        parent = await engine.start(flow, {}, run_id="p")
        await quiet(engine)
        [child] = await children(engine)
        await engine.cancel(child.run_id)
        with pytest.raises(NotCompleted):
            await parent.result()
        assert (await parent.run()).status == "failed"


@kinds
async def test_with_a_parent_its_children_and_theirs_are_cancelled(kind: str, tmp_path: Path) -> None:
    family = Family()

    async def call(state: State, ctx: Context[Any]) -> None:
        await engine.call(ctx, middle, {})

    middle = Flow("middle").then(family.wait)
    flow = Flow("parent").then(call)
    async with engines(kind, tmp_path, [flow, middle, family.slow], Clock()) as [engine]:
        family.at(engine)
        parent = await engine.start(flow, {}, run_id="p")
        await quiet(engine)
        assert len(family.work.begun) == 1
        await parent.cancel()
        await quiet(engine)
        assert await engine.store.count(RunFilter()) == {"cancelled": 3}


@settings(max_examples=60, deadline=None)
@given(turns=st.lists(st.integers(0, 5), min_size=1, max_size=20), after=st.integers(0, 150))
def test_whenever_a_parent_is_cancelled_no_child_is_left(turns: list[int], after: int) -> None:
    async def main() -> None:
        family, clock = Family(), Clock()
        flow = Flow("parent").then(family.wait)
        async with engines("memory", Path(), [flow, family.slow], clock, turns=turns) as [engine]:
            family.at(engine)
            parent = await engine.start(flow, {}, run_id="p")
            await pass_turns(after)
            await parent.cancel()
            await quiet(engine)
            await pass_time(clock, 2, engine)
            assert set(await engine.store.count(RunFilter())) == {"cancelled"}

    asyncio.run(main())


# Other processes ------------------------------------------------------------------------------------------------------


@clocked
async def test_a_parent_goes_on_after_a_restart_without_calling_again(kind: str, tmp_path: Path) -> None:
    family, clock = Family(), Clock()
    flow = Flow("parent").then(family.wait).then(family.one)
    async with watched(kind, tmp_path, clock) as [store]:
        flows = [flow, family.slow, family.child]
        async with Engine(store, flows, world=clock, grace=0) as engine:
            family.at(engine)
            parent = await engine.start(flow, {}, run_id="p")
            await quiet(engine)
            assert (await parent.run()).status == "waiting"
        family.work.let()
        async with Engine(store, flows, world=clock, grace=0) as engine:
            family.at(engine)
            result = await (await engine.handle("p")).result()
            assert result.state == {"squares": [9]}
            assert len(await children(engine)) == 2


@kinds
async def test_parents_and_children_in_several_engines_come_to_their_ends(kind: str, tmp_path: Path) -> None:
    family, clock = Family(), Clock()
    flow = Flow("parent").then(family.three)
    async with engines(kind, tmp_path, [flow, family.child], clock, 2, concurrency=1) as few:
        family.at(few[0])
        runs: list[Handle[Any]] = [await each.start(flow, {}) for each in few]
        await over(clock, runs, *few)
        assert [(await each.result()).state["squares"] for each in runs] == [[1, 4, 9]] * 2
        assert len(family.work.begun) == 6


@clocked
async def test_while_its_engine_stops_a_step_that_calls_is_put_down_and_called_again_by_the_next_one(
    kind: str, tmp_path: Path
) -> None:
    family, clock = Family(), Clock()
    begun, go_on = anyio.Event(), anyio.Event()

    async def call(state: State, ctx: Context[Any]) -> None:
        begun.set()
        await go_on.wait()
        await family.one(state, ctx)

    flow = Flow("parent").then(call)
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [flow, family.child], world=clock) as engine:
            family.at(engine)
            await engine.start(flow, {}, run_id="p")
            await begun.wait()
            engine.stop()
            go_on.set()
        async with Engine(store, [flow, family.child], world=clock) as engine:
            family.at(engine)
            assert (await (await engine.handle("p")).result()).state == {"squares": [9]}
            assert len(family.work.begun) == 1
