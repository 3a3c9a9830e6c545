"""An engine under trio, on the store in memory."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing

import anyio
import pytest

from flowneer_async import Context, fragment
from flowneer_async.engine import Engine
from flowneer_async.errors import EngineStopped, NotCompleted
from flowneer_stores import MemoryStore
from tests.support.engine_life import State, Steps, abandon, flow_of, is_put_down, nothing, owned, until
from tests.support.engines import Clock


def in_trio(main: Callable[[], Awaitable[None]]) -> None:
    anyio.run(main, backend="trio")


def test_runs_are_started_wait_and_have_results_and_events() -> None:
    async def main() -> None:
        clock, steps = Clock(), Steps()
        inner = fragment().then(steps.do, name="x").then(steps.do, name="y")
        flow = flow_of().batch(lambda _: [1, 2, 3], inner, name="lanes", concurrency=3).wait_for("word").sleep(5)
        store = MemoryStore(now=clock.now)
        async with Engine(store, [flow], world=clock) as engine:
            handle = await engine.start(flow, {}, run_id="r")
            await until(store, "r", is_put_down)
            async with aclosing(handle.events()) as events:
                first = await anext(events)
            await handle.signal("word")
            await until(store, "r", lambda run: is_put_down(run) and (run.wake or 0) > clock.now())
            for _ in range(6):
                await clock.asleep()
                clock.move(1)
                await engine._work.dispatcher.look()  # type: ignore[union-attr]
            result = await handle.result()
            assert len(result.state) == 6
            async with aclosing(handle.events(first.id)) as events:
                kinds = [event.kind async for event in events]
            assert kinds == ["step"] * (len(kinds) - 1) + ["completed"]
            assert (await engine.health()).is_ok

    in_trio(main)


def test_a_run_is_cancelled_and_resumed() -> None:
    async def main() -> None:
        clock, steps = Clock(), Steps(hang_at=1)
        flow, store = flow_of().then(steps.do), MemoryStore(now=clock.now)
        async with Engine(store, [flow], world=clock) as engine:
            handle = await engine.start(flow, {})
            await steps.hung.wait()
            assert await handle.cancel()
            with pytest.raises(NotCompleted, match="cancelled"):
                await handle.result()
            await handle.resume()
            assert (await handle.result()).state == {"do": True}

    in_trio(main)


@pytest.mark.parametrize("is_cut", [True, False])
def test_an_engine_is_left_and_the_next_one_goes_on(is_cut: bool) -> None:
    async def main() -> None:
        clock, steps, told = Clock(), Steps(hang_at=2), list[str]()
        flow = flow_of().then(steps.do, name="a").then(steps.do, name="b").then(steps.do, name="c")
        store = MemoryStore(now=clock.now)

        async def wait() -> None:
            try:
                await handle.result()
            except EngineStopped:
                told.append("stopped")

        async with (
            anyio.create_task_group() as group,
            Engine(store, [flow], world=clock, grace=0 if is_cut else 10) as engine,
        ):
            handle = await engine.start(flow, {}, run_id="r")
            group.start_soon(wait)
            await steps.hung.wait()
            engine.stop()
            if not is_cut:
                steps.go.set()
        assert told == ["stopped"]
        assert await owned(store) == 0
        async with Engine(store, [flow], world=clock) as engine:
            await (await engine.handle("r")).result()
        assert steps.log == (["a", "b", "b", "c"] if is_cut else ["a", "b", "c"])

    in_trio(main)


def test_children_and_deadlines_and_the_dead() -> None:
    async def main() -> None:
        clock, steps, at_work = Clock(), Steps(hang_at=2), list[Engine]()
        child = flow_of("child").then(nothing)

        async def call(state: State, ctx: Context[list[Engine]]) -> None:
            await ctx.deps[0].call(ctx, child, {})

        parent, slow = flow_of("parent").then(call), flow_of("slow").then(steps.do)
        store = MemoryStore(now=clock.now)
        await (await abandon(store, slow, "dead")).die()
        async with Engine(store, [parent, child, slow], world=clock, deps=at_work) as engine:
            at_work.append(engine)
            assert (await (await engine.handle("dead")).result()).status == "completed"
            assert (await (await engine.start(parent, {})).result()).status == "completed"
            late = await engine.start(slow, {}, deadline=5)
            await steps.hung.wait()
            clock.move(5)
            with pytest.raises(NotCompleted, match="deadline"):
                await late.result()

    in_trio(main)


def test_an_engine_whose_block_is_cancelled_gives_its_leases_back() -> None:
    async def main() -> None:
        clock, steps = Clock(), Steps(hang_at=1)
        flow, store = flow_of().then(steps.do), MemoryStore(now=clock.now)
        with anyio.CancelScope() as scope:
            async with Engine(store, [flow], world=clock) as engine:
                await engine.start(flow, {}, run_id="r")
                await steps.hung.wait()
                scope.cancel()
                await anyio.sleep_forever()
        assert await owned(store) == 0
        assert (await store.read("r")).status == "running"

    in_trio(main)
