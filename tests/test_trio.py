"""Runs under trio, with the store in memory."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowneer_async import Context, FlowBuilder, FlowError
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.chains import stored_snapshots, stored_states
from tests.support.interrupt import at_once, cancelled_as_scope

State = dict[str, Any]
every_durability = pytest.mark.parametrize("durability", ["sync", "async", "exit"])


async def add(state: State, ctx: Context[list[str]]) -> None:
    ctx.deps.append(ctx.step)
    state["begun"] = state.get("begun", 0) + 1
    await anyio.lowlevel.checkpoint()
    state["ended"] = state.get("ended", 0) + 1


def adding(store: MemoryStore, durability: Any, steps: int = 3) -> FlowBuilder[State]:
    flow: FlowBuilder[State] = FlowBuilder("flow")
    for number in range(steps):
        flow = flow.then(add, name=f"s{number}")
    return flow.with_versioned_checkpoint(store, durability=durability)


def after(done: int) -> State:
    return {"begun": done, "ended": done} if done else {}


def in_trio(main: Callable[[], Awaitable[None]]) -> None:
    anyio.run(main, backend="trio")


@every_durability
def test_a_run_is_stored_and_resumed(durability: str) -> None:
    """A run, its result again, and a fork: as under asyncio."""

    async def main() -> None:
        store, steps = MemoryStore(), list[str]()
        flow = adding(store, durability, steps=100)
        result = await flow.run({}, run_id="r", deps=steps)
        assert (result.state, result.status, len(steps)) == (after(100), "completed", 100)
        expected = [after(0), after(100)] if durability == "exit" else [after(done) for done in range(101)]
        assert await stored_states(store, "r") == expected
        assert await flow.run(run_id="r", deps=steps) == result
        assert (await flow.resume_from("r@0", store).run(deps=steps)).state == after(100)
        assert len(steps) == 200

    in_trio(main)


@every_durability
def test_runs_side_by_side(durability: str) -> None:
    """Concurrent runs of one flow in one nursery do not touch each other."""

    async def main() -> None:
        store = MemoryStore()
        flow = adding(store, durability)

        async def one(number: int) -> None:
            assert (await flow.run({}, run_id=f"r{number}", deps=[])).state == after(3)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(one, number)
        for number in range(50):
            assert (await stored_states(store, f"r{number}"))[-1] == after(3)

    in_trio(main)


@every_durability
def test_a_failed_step_is_raised_in_no_group(durability: str) -> None:
    """A FlowError comes out as it is, and the run goes on at the failed step."""

    async def fail_once(state: State, ctx: Context[list[str]]) -> None:
        ctx.deps.append("fail")
        if ctx.deps.count("fail") == 1:
            raise OSError

    async def main() -> None:
        store, steps = MemoryStore(), list[str]()
        flow = adding(store, durability).then(fail_once)
        with pytest.raises(FlowError):
            await flow.run({}, run_id="r", deps=steps)
        assert (await store.read("r")).status == "failed"
        assert (await flow.run(run_id="r", deps=steps)).state == after(3)
        assert steps == ["s0", "s1", "s2", "fail", "fail"]

    in_trio(main)


@every_durability
def test_retries_and_timeouts(durability: str) -> None:
    """An attempt that hangs is cut off, the state restored, and the next attempt made after its delay."""

    async def hang(state: State, ctx: Context) -> None:
        assert state == {"rows": [1]}
        state["rows"].append(object())
        if ctx.attempt < 3:
            await anyio.sleep_forever()
        state["rows"] = ctx.attempt

    async def main() -> None:
        flow = FlowBuilder("flow").then(hang, retries=2, delay=5, timeout=0.001)
        flow = flow.with_versioned_checkpoint(MemoryStore(), durability=durability)  # type: ignore[arg-type]
        world = FakeWorld()
        assert (await flow.run({"rows": [1]}, world=world)).state == {"rows": 3}
        assert world.slept == [5, 5]

    in_trio(main)


@every_durability
@pytest.mark.parametrize("times", [1, 3])
def test_a_run_may_be_cancelled_at_any_point(durability: str, times: int) -> None:
    """Cancelled at any await, a run stores an unbroken prefix and goes on to the same end, one step at most twice."""

    async def main() -> None:
        point, going_on, store = 0, True, MemoryStore()
        flow = adding(store, durability)
        while going_on:
            run_id, steps = f"r{point}", list[str]()
            work = flow.run({}, run_id=run_id, deps=steps)
            going_on = await cancelled_as_scope(work, range(point, point + times), at_once)
            for snapshot in await stored_snapshots(store, run_id):
                assert snapshot.state == after(snapshot.step_index + 1)
            assert (await flow.run({}, run_id=run_id, deps=steps)).state == after(3)
            assert len(steps) <= 4
            point += 1
        assert point > 3

    in_trio(main)


@every_durability
def test_a_cancelled_run_is_stored_as_cancelled(durability: str) -> None:
    """A deadline around a run cancels it; what was done is stored, and the run goes on later."""

    async def main() -> None:
        store, steps, scope = MemoryStore(), list[str](), anyio.CancelScope()

        async def hang_once(state: State, ctx: Context[list[str]]) -> None:
            ctx.deps.append("hang")
            if ctx.deps.count("hang") == 1:
                scope.deadline = anyio.current_time()
                await anyio.sleep_forever()

        flow = adding(store, durability).then(hang_once)
        with scope:
            await flow.run({}, run_id="r", deps=steps)
        assert scope.cancelled_caught
        run = await store.read("r")
        assert (run.status, run.owner) == ("cancelled", None)
        assert (await stored_states(store, "r"))[-1] == after(3)
        assert (await flow.run(run_id="r", deps=steps)).state == after(3)

    in_trio(main)
