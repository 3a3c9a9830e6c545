"""Leaving an engine: nothing new begins, what has begun has its grace, and the next engine goes on at once."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowneer_async import Context, RunFilter, fragment
from flowneer_async.engine import Engine
from flowneer_async.errors import EngineStopped, FlowError
from flowneer_async.policy import Backoff
from flowneer_stores import MemoryStore, SqliteStore
from tests.support.engine_life import Flow, State, Steps, flow_of, is_put_down, nothing, owned, paths, until
from tests.support.engines import Clock, quiet, watched
from tests.support.stores import KINDS

every_kind = pytest.mark.parametrize("kind", KINDS)


def two(steps: Steps) -> Any:
    return fragment().then(steps.do, name="x").then(steps.do, name="y")


def plain(steps: Steps) -> Flow:
    return flow_of().then(steps.do, name="a").then(steps.do, name="b").then(steps.do, name="c")


def nested(steps: Steps) -> Flow:
    inner = fragment().then(steps.do, name="i").then(two(steps), name="in")
    return flow_of().then(inner, name="out").then(steps.do, name="last")


def branched(steps: Steps) -> Flow:
    return flow_of().branch(lambda state: "yes", {"yes": two(steps)}, name="choice").then(steps.do, name="last")


def looped(steps: Steps) -> Flow:
    return flow_of().loop(lambda _, ctx: ctx.index < 2, two(steps), name="loop").then(steps.do, name="last")


def batched(steps: Steps) -> Flow:
    return flow_of().batch(lambda _: ["p", "q"], two(steps), name="batch").then(steps.do, name="last")


def in_lanes(steps: Steps) -> Flow:
    return flow_of().batch(lambda _: ["p", "q", "r"], two(steps), name="lanes", concurrency=2).then(steps.do, name="z")


def side_by_side(steps: Steps) -> Flow:
    return flow_of().parallel([two(steps), two(steps)], name="both").then(steps.do, name="last")


def given_up(steps: Steps) -> Flow:
    """Items of a batch that may fail are worked on one after the other, on drafts of their own."""
    return flow_of().batch(lambda _: ["p", "q"], two(steps), name="drafts", max_failures=1).then(steps.do, name="last")


SHAPES = (plain, nested, branched, looped, batched, in_lanes, side_by_side, given_up)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)


async def undisturbed(shape: Callable[[Steps], Flow]) -> tuple[State, Counter[str]]:
    """How the flow ends, and which steps it does, where nobody disturbs it."""
    steps = Steps()
    result = await shape(steps).run({})
    return result.state, Counter(steps.log)


@every_kind
@every_shape
async def test_a_step_beyond_its_grace_is_the_only_one_that_the_next_engine_repeats(
    shape: Callable[[Steps], Flow], kind: str, tmp_path: Path
) -> None:
    state, once = await undisturbed(shape)
    clock = Clock()
    async with watched(kind, tmp_path, clock) as [store]:
        for number in range(1, once.total() + 1):
            run_id, steps = f"r{number}", Steps(hang_at=number)
            async with Engine(store, [shape(steps)], world=clock, grace=0) as engine:
                await engine.start("flow", {}, run_id=run_id)
                await steps.hung.wait()
            run = await store.read(run_id)
            assert (run.status, run.owner, run.wake, steps.cut) == ("waiting", None, clock.now(), 1)
            assert len(await paths(store, run_id)) == len(set(await paths(store, run_id)))
            cut = steps.log[number - 1]
            async with Engine(store, [shape(steps)], world=clock) as engine:
                assert (await (await engine.handle(run_id)).result()).state == state
            assert Counter(steps.log) - once == {cut: 1}, number
            assert (await store.read(run_id)).recoveries == 0


@every_kind
@every_shape
async def test_a_step_that_ends_within_its_grace_is_stored_and_no_other_begins(
    shape: Callable[[Steps], Flow], kind: str, tmp_path: Path
) -> None:
    state, once = await undisturbed(shape)
    clock = Clock()
    async with watched(kind, tmp_path, clock) as [store]:
        for number in range(1, once.total() + 1):
            run_id, steps = f"r{number}", Steps(hang_at=number)
            async with Engine(store, [shape(steps)], world=clock) as engine:
                await engine.start("flow", {}, run_id=run_id)
                await steps.hung.wait()
                engine.stop()
                begun = list(steps.log)
                steps.go.set()
            assert (steps.log, steps.cut) == (begun, 0)
            assert await owned(store) == 0
            async with Engine(store, [shape(steps)], world=clock) as engine:
                assert (await (await engine.handle(run_id)).result()).state == state
            assert Counter(steps.log) == once, number


@every_kind
async def test_the_grace_is_so_many_seconds(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps(hang_at=1)
    async with watched(kind, tmp_path, clock) as [store]:
        async with anyio.create_task_group() as group:

            async def work() -> None:
                async with Engine(store, [plain(steps)], world=clock, grace=7) as engine:
                    await engine.start("flow", {}, run_id="r")
                    await steps.hung.wait()

            group.start_soon(work)
            await steps.hung.wait()
            await store.quiet()
            clock.move(6.9)
            await store.quiet()
            assert steps.cut == 0
            clock.move(0.2)
        assert steps.cut == 1
        assert (await store.read("r")).status == "waiting"


@every_kind
async def test_a_run_that_waits_to_try_a_step_again_is_put_down_and_tries_it_in_the_next_engine(
    kind: str, tmp_path: Path
) -> None:
    clock, tried = Clock(), list[int]()

    async def flaky(state: State, ctx: Context[None]) -> None:
        tried.append(ctx.attempt)
        if len(tried) == 1:
            raise OSError

    flow = flow_of().then(flaky, retries=3, delay=Backoff(first=100, jitter=0))
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [flow], world=clock, grace=0) as engine:
            await engine.start(flow, {}, run_id="r")
            await quiet(engine)
        assert (await store.read("r")).status == "waiting"
        async with Engine(store, [flow], world=clock) as engine:
            assert (await (await engine.handle("r")).result()).status == "completed"
        assert tried == [1, 1]


@pytest.mark.parametrize("is_cut", [True, False])
async def test_what_a_step_does_in_a_transaction_is_stored_with_its_version_or_not_at_all(
    is_cut: bool, tmp_path: Path
) -> None:
    clock, hung, go, times = Clock(), anyio.Event(), anyio.Event(), list[int]()

    async def book(state: State, ctx: Context[None]) -> None:
        times.append(1)
        async with ctx.transaction() as connection:
            db: Any = connection
            await db.execute("INSERT INTO bookings VALUES (?)", (len(times),))
            if len(times) == 1:
                hung.set()
                await go.wait()

    flow = flow_of().then(book).then(nothing)
    async with SqliteStore(tmp_path / "runs.db", now=clock.now, lease=1e9) as store:
        transaction = await store.begin()
        await transaction.connection.execute("CREATE TABLE bookings (number)")
        await transaction.commit()
        async with Engine(store, [flow], world=clock, grace=0 if is_cut else 10) as engine:
            await engine.start(flow, {}, run_id="r")
            await hung.wait()
            engine.stop()
            if not is_cut:
                go.set()
        assert await owned(store) == 0
        async with Engine(store, [flow], world=clock) as engine:
            await (await engine.handle("r")).result()
        transaction = await store.begin()
        rows = list(await transaction.connection.execute_fetchall("SELECT number FROM bookings"))
        await transaction.rollback()
        assert rows == ([(2,)] if is_cut else [(1,)])


@every_kind
async def test_what_an_engine_accepts_while_it_stops_begins_in_the_next_one(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps()
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [plain(steps)], world=clock) as engine:
            engine.stop()
            assert engine.is_stopping
            handle = await engine.start("flow", {}, run_id="r")
            with pytest.raises(EngineStopped):
                await handle.result()
        with pytest.raises(EngineStopped):
            await engine.start("flow", {})
        assert (steps.log, await owned(store)) == ([], 0)
        async with Engine(store, [plain(steps)], world=clock) as engine:
            await (await engine.handle("r")).result()


@every_kind
async def test_a_step_that_calls_another_flow_within_its_grace_goes_on_in_the_next_engine(
    kind: str, tmp_path: Path
) -> None:
    clock, hung, go, at_work = Clock(), anyio.Event(), anyio.Event(), list[Engine]()
    child = flow_of("child").then(nothing)

    async def call(state: State, ctx: Context[None]) -> None:
        hung.set()
        await go.wait()
        await at_work[-1].call(ctx, child, {})

    parent = flow_of("parent").then(call)
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [parent, child], world=clock) as engine:
            at_work.append(engine)
            await engine.start(parent, {}, run_id="p")
            await hung.wait()
            engine.stop()
            go.set()
        assert await store.count(RunFilter()) == {"waiting": 2}
        async with Engine(store, [parent, child], world=clock) as engine:
            at_work.append(engine)
            await (await engine.handle("p")).result()


@every_kind
async def test_runs_that_wait_for_a_slot_when_the_engine_is_left_begin_in_the_next_one(
    kind: str, tmp_path: Path
) -> None:
    clock, steps = Clock(), Steps(hang_at=1)
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [plain(steps)], world=clock, concurrency=1, grace=0) as engine:
            for number in range(5):
                await engine.start("flow", {}, run_id=f"r{number}")
            await steps.hung.wait()
            engine.stop()
            await quiet(engine)
            assert len(steps.log) == 1
        assert await owned(store) == 0
        assert await store.count(RunFilter()) == {"waiting": 5}
        async with Engine(store, [plain(steps)], world=clock, concurrency=1) as engine:
            for number in range(5):
                await (await engine.handle(f"r{number}")).result()
        assert Counter(steps.log) == {"a": 6, "b": 5, "c": 5}


@every_kind
async def test_an_engine_can_be_entered_again(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps()
    async with watched(kind, tmp_path, clock) as [store]:
        engine = Engine(store, [plain(steps)], world=clock)
        for number in range(3):
            async with engine:
                await (await engine.start("flow", {}, run_id=f"r{number}")).result()
            assert engine.is_stopping


@every_kind
async def test_an_error_in_the_block_is_raised_as_it_is_when_all_runs_are_put_down(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps(hang_at=1)
    async with watched(kind, tmp_path, clock) as [store]:

        async def work() -> None:
            async with Engine(store, [plain(steps)], world=clock, grace=0) as engine:
                await engine.start("flow", {}, run_id="r")
                await steps.hung.wait()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()
        assert (await store.read("r")).status == "waiting"
        assert await owned(store) == 0


@every_kind
async def test_an_engine_whose_block_is_cancelled_gives_all_its_leases_back_at_once(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps(hang_at=1)
    async with watched(kind, tmp_path, clock) as [store]:

        async def work() -> None:
            async with Engine(store, [plain(steps)], world=clock) as engine:
                await engine.start("flow", {}, run_id="r")
                await anyio.sleep_forever()

        task = asyncio.create_task(work())
        await steps.hung.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert await owned(store) == 0
        async with Engine(store, [plain(steps)], world=clock) as engine:
            await (await engine.handle("r")).result()
        assert Counter(steps.log) == {"a": 2, "b": 1, "c": 1}
        assert (await store.read("r")).recoveries == 0


@every_kind
async def test_a_shutdown_that_is_cancelled_in_its_grace_gives_all_leases_back_at_once(
    kind: str, tmp_path: Path
) -> None:
    clock, steps = Clock(), Steps(hang_at=1)
    async with watched(kind, tmp_path, clock) as [store]:

        async def work() -> None:
            async with Engine(store, [plain(steps)], world=clock, grace=1000) as engine:
                await engine.start("flow", {}, run_id="r")
                await steps.hung.wait()

        task = asyncio.create_task(work())
        await steps.hung.wait()
        await store.quiet()
        task.cancel()
        await asyncio.wait({task})
        assert await owned(store) == 0
        async with Engine(store, [plain(steps)], world=clock) as engine:
            await (await engine.handle("r")).result()


async def test_a_run_that_is_resumed_while_the_engine_is_left_is_not_left_without_an_owner() -> None:
    class Slow(MemoryStore):
        def __init__(self) -> None:
            super().__init__(now=clock.now)
            self.asked, self.go, self.is_slow = anyio.Event(), anyio.Event(), False

        async def read(self, run_id: str) -> Any:
            run = await super().read(run_id)
            if self.is_slow:
                self.asked.set()
                await self.go.wait()
            return run

    clock, steps = Clock(), Steps()

    async def fail(state: State) -> None:
        if not steps.log:
            steps.log.append("failed")
            raise OSError

    flow, store = flow_of().then(fail), Slow()

    async def resume(engine: Engine) -> None:
        try:
            await engine.resume("r")
        except EngineStopped:
            steps.log.append("stopped")

    async with anyio.create_task_group() as group:
        async with Engine(store, [flow], world=clock) as engine:
            with pytest.raises(Exception, match="failed"):
                await (await engine.start(flow, {}, run_id="r")).result()
            store.is_slow = True
            group.start_soon(resume, engine)
            await store.asked.wait()
        store.go.set()
    store.is_slow = False
    assert await owned(store) == 0
    async with Engine(store, [flow], world=clock) as engine:
        if (await store.read("r")).status == "failed":
            await engine.resume("r")
        assert (await (await engine.handle("r")).result()).status == "completed"


async def test_nothing_is_left_of_an_engine_neither_a_task_nor_a_lease_nor_a_descriptor(tmp_path: Path) -> None:
    clock, before, tasks = Clock(), len(os.listdir("/proc/self/fd")), asyncio.all_tasks()
    for number in range(3):
        steps = Steps(hang_at=2)
        async with SqliteStore(tmp_path / "runs.db", now=clock.now, lease=1e9) as store:
            flows = [in_lanes(steps), flow_of("patient").wait_for("word")]
            async with Engine(store, flows, world=clock, grace=0) as engine:
                await engine.start("flow", {}, run_id=f"r{number}", deadline=1000)
                patient = await engine.start("patient", {}, run_id=f"p{number}")
                waiter = asyncio.create_task(patient.result())
                await until(store, f"p{number}", is_put_down)
                await steps.hung.wait()
            with pytest.raises(EngineStopped):
                await waiter
            assert await owned(store) == 0
            assert store._leases._held == {}
    assert asyncio.all_tasks() == tasks
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_run_that_fails_in_its_grace_has_failed(tmp_path: Path) -> None:
    clock, hung, go = Clock(), anyio.Event(), anyio.Event()

    async def fail(state: State) -> None:
        hung.set()
        await go.wait()
        raise OSError

    flow, store = flow_of().then(fail), MemoryStore(now=clock.now)
    async with Engine(store, [flow], world=clock) as engine:
        await engine.start(flow, {}, run_id="r")
        await hung.wait()
        engine.stop()
        go.set()
    assert (await store.read("r")).status == "failed"


async def test_steps_that_make_good_a_failure_go_on_in_the_next_engine() -> None:
    clock, log, hung = Clock(), list[str](), anyio.Event()

    def undo(name: str) -> Callable[..., Any]:
        async def undone(state: State, ctx: Context[None]) -> None:
            log.append(f"undo {name}")
            if log.count(f"undo {name}") == 1 and name == "b":
                hung.set()
                await anyio.sleep_forever()

        return undone

    async def fail(state: State) -> None:
        raise OSError

    flow = flow_of().then(nothing, name="a", compensate=undo("a")).then(nothing, name="b", compensate=undo("b"))
    flow, store = flow.then(fail), MemoryStore(now=clock.now)
    async with Engine(store, [flow], world=clock, grace=0) as engine:
        await engine.start(flow, {}, run_id="r")
        await hung.wait()
    async with Engine(store, [flow], world=clock) as engine:
        with pytest.raises(Exception, match="failed") as failed:
            await (await engine.handle("r")).result()
        assert not isinstance(failed.value, FlowError)
    assert log == ["undo b", "undo b", "undo a"]
