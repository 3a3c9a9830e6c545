"""A run that is not over at its deadline fails there, whatever it does at that time, and does not go on."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import Context
from flowneer_async.engine import Engine, Limits
from flowneer_async.errors import NotCompleted
from tests.support.engines import CLOCKED, Clock, Flow, State, Work, engines, over, pass_time, quiet, watched

clocked = pytest.mark.parametrize("kind", CLOCKED)


async def ask(state: State, ctx: Context[Any]) -> None:
    state["answer"] = await ctx.interrupt("well?")


async def fail(state: State) -> None:
    raise ValueError


def two(state: State) -> list[int]:
    return [1, 2]


DOING: dict[str, Callable[[Work], Flow]] = {
    "a step": lambda work: Flow("flow").then(work.step),
    "a signal": lambda work: Flow("flow").wait_for("go"),
    "a signal with a timeout": lambda work: Flow("flow").wait_for("go", timeout=100),
    "a sleep": lambda work: Flow("flow").sleep(100),
    "an answer": lambda work: Flow("flow").then(ask),
    "a retry": lambda work: Flow("flow").then(fail, retries=3, delay=100),
    "lanes": lambda work: Flow("flow").parallel([work.step, Flow("lane").sleep(100)]),
    "an item": lambda work: Flow("flow").batch(two, Flow("item").then(work.step)),
}


@clocked
@pytest.mark.parametrize("flow_of", DOING.values(), ids=DOING)
async def test_a_run_fails_at_its_deadline_whatever_it_waits_for(
    kind: str, flow_of: Callable[[Work], Flow], tmp_path: Path
) -> None:
    work, clock = Work(), Clock()
    flow = flow_of(work).then(work.quick, name="last")
    async with engines(kind, tmp_path, [flow], clock) as [engine]:
        handle = await engine.start(flow, {}, deadline=5)
        await pass_time(clock, 4, engine)
        assert (await handle.run()).status in ("running", "waiting")
        begun = list(work.begun)
        await pass_time(clock, 1, engine)
        with pytest.raises(NotCompleted, match="deadline"):
            await handle.result()
        await pass_time(clock, 200, engine, step=50)
        assert (await handle.run()).status == "failed"
        assert work.begun == begun


@clocked
async def test_a_run_that_is_over_in_time_is_completed_and_no_timer_is_left(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.step)
    async with engines(kind, tmp_path, [flow], clock) as [engine]:
        handle = await engine.start(flow, {}, deadline=timedelta(seconds=5))
        await pass_time(clock, 4, engine)
        work.let()
        await handle.result()
        await pass_time(clock, 9, engine)
        assert (await handle.run()).status == "completed"


@clocked
@pytest.mark.parametrize("delay", [2, 100])
async def test_a_deadline_is_counted_from_the_start_also_of_a_run_that_begins_later(
    kind: str, delay: int, tmp_path: Path
) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.step)
    async with engines(kind, tmp_path, [flow], clock) as [engine]:
        handle = await engine.start(flow, {}, deadline=5, delay=delay)
        await pass_time(clock, 5, engine)
        with pytest.raises(NotCompleted, match="deadline"):
            await handle.result()
        assert len(work.begun) == (delay < 5)


@clocked
async def test_a_run_that_waits_for_a_slot_beyond_its_deadline_does_not_begin(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.step)
    async with engines(kind, tmp_path, [flow], clock, concurrency=1) as [engine]:
        await engine.start(flow, {}, run_id="first")
        await work.begins("first")
        late = await engine.start(flow, {}, run_id="late", deadline=5)
        await pass_time(clock, 6, engine)
        work.let()
        await over(clock, [late], engine)
        assert (await late.run()).status == "failed"
        assert work.begun == ["first"]


@clocked
@pytest.mark.parametrize("limited", ["flow", "key"])
async def test_a_run_for_which_a_limit_leaves_no_room_fails_at_its_deadline(
    kind: str, limited: str, tmp_path: Path
) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.step)
    limits = Limits(concurrency=1) if limited == "flow" else Limits(per_key=1)
    async with engines(kind, tmp_path, [flow], clock, limits={"flow": limits}) as [engine]:
        await engine.start(flow, {}, run_id="first", key="k")
        await work.begins("first")
        late = await engine.start(flow, {}, run_id="late", key="k", deadline=5)
        await over(clock, [late], engine, most=6)
        assert (await late.run()).status == "failed"
        assert work.begun == ["first"]


@clocked
async def test_a_deadline_holds_over_a_restart(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.step)
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [flow], world=clock, grace=0) as engine:
            for run_id in ("late", "in-time"):
                await engine.start(flow, {}, run_id=run_id, deadline=5 if run_id == "late" else 50)
            await work.begins("late", "in-time")
        clock.move(6)
        work.let()
        async with Engine(store, [flow], world=clock) as engine:
            await quiet(engine)
            assert [(await store.read(run_id)).status for run_id in ("late", "in-time")] == ["failed", "completed"]
        assert sorted(work.begun) == ["in-time", "in-time", "late"]


@clocked
async def test_a_run_in_a_step_at_a_restart_fails_at_its_deadline_in_the_next_engine(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.step)
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [flow], world=clock, grace=0) as engine:
            handle = await engine.start(flow, {}, deadline=5)
            await work.begins(handle.run_id)
        clock.move(2)
        async with Engine(store, [flow], world=clock, grace=0) as engine:
            await pass_time(clock, 2, engine)
            assert (await store.read(handle.run_id)).status == "running"
            await pass_time(clock, 1, engine)
            assert (await store.read(handle.run_id)).status == "failed"
