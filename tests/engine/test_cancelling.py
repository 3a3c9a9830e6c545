"""Cancelling runs: wherever they are at work, wait, or have not begun; what was asked for survives a crash."""

from pathlib import Path

import anyio
import pytest

from flowneer_async import Context, RunFilter
from flowneer_async.engine import Engine, Telemetry
from flowneer_async.errors import ChildFailed, FlowError, NotCompleted, UnknownRun
from flowneer_async.store import Lease
from flowneer_async.versions import Run, Status
from flowneer_stores import MemoryStore
from tests.support.engine_life import State, Steps, abandon, flow_of, is_put_down, nothing, owned, until
from tests.support.engines import Clock, engines, pass_time, quiet, watched
from tests.support.stores import KINDS

every_kind = pytest.mark.parametrize("kind", KINDS)


class Ended(Telemetry):
    """Who has ended, and how."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Status]] = []

    def ended(self, run: Run, status: Status, seconds: float) -> None:
        self.told.append((run.run_id, status))


@every_kind
async def test_a_run_at_work_is_cancelled_in_the_middle_of_its_step(kind: str, tmp_path: Path) -> None:
    clock, steps, ended = Clock(), Steps(hang_at=2), Ended()
    slow = flow_of().then(steps.do, name="a").then(steps.do, name="b").then(steps.do, name="c")
    async with engines(kind, tmp_path, [slow], clock, telemetry=ended) as [engine]:
        handle = await engine.start(slow, {}, run_id="r")
        await steps.hung.wait()
        assert await handle.cancel()
        with pytest.raises(NotCompleted, match="cancelled"):
            await handle.result()
        run = await handle.run()
        assert (run.status, run.head, run.owner, run.cancelling) == ("cancelled", 1, None, False)
        assert (steps.log, steps.cut) == (["a", "b"], 1)
        await quiet(engine)
        assert ended.told == [("r", "cancelled")]


@every_kind
async def test_a_parent_is_told_of_a_child_that_is_cancelled_at_work(kind: str, tmp_path: Path) -> None:
    clock, steps, all_engines = Clock(), Steps(hang_at=1), list[Engine]()
    child = flow_of("child").then(steps.do)

    async def call(state: State, ctx: Context[list[Engine]]) -> None:
        await ctx.deps[0].call(ctx, child, {})

    parent = flow_of("parent").then(call)
    async with engines(kind, tmp_path, [parent, child], clock, deps=all_engines) as [engine]:
        all_engines.append(engine)
        handle = await engine.start(parent, {}, run_id="p")
        await steps.hung.wait()
        [called] = (await engine.store.find(RunFilter(flow="child"), 2)).runs
        assert await engine.cancel(called.run_id)
        with pytest.raises(NotCompleted) as failed:
            await handle.result()
        assert isinstance(failed.value.__cause__, FlowError)
        assert isinstance(failed.value.__cause__.cause, ChildFailed)


@every_kind
async def test_a_run_at_work_in_another_engine_is_cancelled_within_a_poll(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps(hang_at=1)
    slow = flow_of().then(steps.do)
    async with engines(kind, tmp_path, [slow], clock, number=2) as [first, second]:
        await first.start(slow, {}, run_id="r")
        await steps.hung.wait()
        handle = await second.handle("r")
        assert await handle.cancel()
        await pass_time(clock, 1, first, second)
        with pytest.raises(NotCompleted, match="cancelled"):
            await handle.result()
        assert steps.cut == 1


async def test_runs_at_work_outside_of_an_engine_which_nobody_cancels_do_not_hide_those_that_an_engine_cancels(
    tmp_path: Path,
) -> None:
    clock, begun = Clock(), list[str]()

    async def hang(state: State, ctx: Context[None]) -> None:
        begun.append(ctx.run_id)
        await anyio.sleep_forever()

    slow = flow_of().then(hang)
    async with engines("memory", tmp_path, [slow], clock, concurrency=300) as [engine]:
        for number in range(120):
            await engine.start(slow, {}, run_id=f"r{number}")
        await quiet(engine)
        for number in range(120):
            await abandon(engine.store, slow, f"alone{number}")
        for number in range(120):
            assert await engine.store.ask_cancel(f"alone{number}")
            assert await engine.store.ask_cancel(f"r{number}")
        await pass_time(clock, 1, engine)
        assert len(begun) == 120
        assert await engine.store.count(RunFilter(frozenset(["cancelled"]))) == {"cancelled": 120}


@every_kind
async def test_a_run_that_waits_is_cancelled_without_a_step(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps()
    patient = flow_of().then(steps.do, name="a").wait_for("word").then(steps.do, name="b")
    async with engines(kind, tmp_path, [patient], clock) as [engine]:
        handle = await engine.start(patient, {})
        await until(engine.store, handle.run_id, is_put_down)
        assert await handle.cancel()
        with pytest.raises(NotCompleted, match="cancelled"):
            await handle.result()
        assert steps.log == ["a"]
        assert not await handle.cancel()


@every_kind
async def test_a_run_that_was_accepted_and_has_not_begun_is_cancelled_without_a_step(kind: str, tmp_path: Path) -> None:
    clock, steps, ended = Clock(), Steps(), Ended()
    flow = flow_of().then(steps.do)
    async with engines(kind, tmp_path, [flow], clock, telemetry=ended) as [engine]:
        handle = await engine.start(flow, {}, run_id="r", delay=1e9)
        assert await handle.cancel()
        with pytest.raises(NotCompleted, match="cancelled"):
            await handle.result()
        await quiet(engine)
        assert (steps.log, ended.told) == ([], [("r", "cancelled")])
        assert not await handle.cancel()


async def test_a_run_that_is_cancelled_while_it_is_being_taken_begins_no_step() -> None:
    class Asked(MemoryStore):
        async def claim(self, run: Run) -> Lease:
            lease = await super().claim(run)
            await engine.cancel(run.run_id)
            return lease

    clock, log = Clock(), list[str]()
    flow = flow_of().then(lambda state: log.append("begun"), name="sync")
    async with Engine(Asked(now=clock.now), [flow], world=clock) as engine:
        handle = await engine.start(flow, {}, run_id="r", delay=1)
        await clock.asleep(2)
        clock.move(1)
        with pytest.raises(NotCompleted, match="cancelled"):
            await handle.result()
        assert log == []


@every_kind
async def test_a_run_that_is_over_is_not_cancelled(kind: str, tmp_path: Path) -> None:
    clock = Clock()
    flow = flow_of().then(nothing)
    async with engines(kind, tmp_path, [flow], clock) as [engine]:
        handle = await engine.start(flow, {})
        await handle.result()
        assert not await handle.cancel()
        assert (await handle.run()).status == "completed"
        with pytest.raises(UnknownRun):
            await engine.cancel("nobody")


@every_kind
async def test_a_run_whose_process_died_when_it_was_asked_to_cancel_is_cancelled_and_does_not_go_on(
    kind: str, tmp_path: Path
) -> None:
    clock, steps = Clock(), Steps()
    flow = flow_of().then(steps.do)
    async with watched(kind, tmp_path, clock) as [store]:
        process = await abandon(store, flow, "r")
        async with Engine(store, [flow], world=clock) as engine:
            assert await engine.cancel("r")
            await quiet(engine)
            assert (await store.read("r")).status == "running"
        await process.die()
        async with Engine(store, [flow], world=clock) as engine:
            with pytest.raises(NotCompleted, match="cancelled"):
                await (await engine.handle("r")).result()
        assert steps.log == []
        assert await owned(store) == 0


async def test_a_wish_to_cancel_that_comes_between_the_look_and_the_claim_of_another_engine_is_not_lost() -> None:
    class Asked(MemoryStore):
        async def claim(self, run: Run) -> Lease:
            if not run.cancelling:
                await self.ask_cancel(run.run_id)
            return await super().claim(run)

    clock, steps = Clock(), Steps(hang_at=1)
    flow, store = flow_of().then(steps.do), Asked(now=clock.now)
    async with Engine(store, [flow], world=clock, grace=0) as engine:
        await engine.start(flow, {}, run_id="r", delay=1)
        await clock.asleep()
        clock.move(1)
        await steps.hung.wait()
        await clock.asleep()
        clock.move(1)
        with anyio.fail_after(5):
            await until(store, "r", lambda run: run.status == "cancelled")


@every_kind
async def test_a_cancelled_run_is_resumed_before_the_step_in_which_it_was_cut(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps(hang_at=2)
    slow = flow_of().then(steps.do, name="a").then(steps.do, name="b").then(steps.do, name="c")
    async with engines(kind, tmp_path, [slow], clock) as [engine]:
        handle = await engine.start(slow, {})
        await steps.hung.wait()
        await handle.cancel()
        await until(engine.store, handle.run_id, lambda run: run.status == "cancelled")
        await quiet(engine)
        await handle.resume()
        result = await handle.result()
        assert result.state == {"a": True, "b": True, "c": True}
        assert steps.log == ["a", "b", "b", "c"]


@every_kind
async def test_a_run_that_waits_to_be_resumed_can_be_cancelled_again(kind: str, tmp_path: Path) -> None:
    clock = Clock()
    patient = flow_of().wait_for("word")
    async with engines(kind, tmp_path, [patient], clock) as [engine]:
        handle = await engine.start(patient, {})
        for _ in range(2):
            await until(engine.store, handle.run_id, is_put_down)
            assert await handle.cancel()
            await until(engine.store, handle.run_id, lambda run: run.status == "cancelled")
            await quiet(engine)
            await handle.resume()
        await handle.signal("word", "go")
        assert (await handle.result()).status == "completed"


async def test_a_step_that_cleans_up_when_it_is_cancelled_has_the_time_for_it(tmp_path: Path) -> None:
    clock, hung, cleaned, go = Clock(), anyio.Event(), list[str](), anyio.Event()

    async def careful(state: State) -> None:
        try:
            hung.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await go.wait()
                cleaned.append("up")

    slow = flow_of().then(careful)
    async with engines("memory", tmp_path, [slow], clock) as [engine]:
        handle = await engine.start(slow, {})
        await hung.wait()
        await handle.cancel()
        await quiet(engine)
        assert (await handle.run()).status == "running"
        go.set()
        with pytest.raises(NotCompleted, match="cancelled"):
            await handle.result()
        assert cleaned == ["up"]
