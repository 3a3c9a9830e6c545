"""Runs that begin later: not before their time, and when it has come within a look around, in whichever engine."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowneer_async.engine import Engine
from tests.support.engines import CLOCKED, Clock, Flow, State, Work, engines, pass_time, quiet, watched

clocked = pytest.mark.parametrize("kind", CLOCKED)


def moment(clock: Clock, seconds: float) -> datetime:
    """So many seconds from now."""
    return datetime.fromtimestamp(clock.now() / 1000 + seconds, UTC)


@clocked
@pytest.mark.parametrize("way", ["seconds", "timedelta", "at"])
async def test_a_run_begins_with_the_look_around_after_its_time_and_not_before(
    kind: str, way: str, tmp_path: Path
) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.quick)
    whens: dict[str, dict[str, Any]] = {
        "seconds": {"delay": 3.5},
        "timedelta": {"delay": timedelta(seconds=3.5)},
        "at": {"at": moment(clock, 3.5)},
    }
    async with engines(kind, tmp_path, [flow], clock) as [engine]:
        handle = await engine.start(flow, {}, **whens[way])
        run = await handle.run()
        assert (run.status, run.begun, run.wake) == ("waiting", None, clock.now() + 3500)
        await pass_time(clock, 3.4, engine, step=0.1)
        assert work.begun == []
        await pass_time(clock, 0.6, engine, step=0.1)
        assert work.begun == [handle.run_id]


@clocked
@pytest.mark.parametrize("when", [{"delay": 0}, {"at": datetime(1960, 1, 1, tzinfo=UTC)}])
async def test_a_run_whose_time_is_past_begins_at_once(kind: str, when: dict[str, Any], tmp_path: Path) -> None:
    work = Work()
    flow = Flow("flow").then(work.quick)
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        await (await engine.start(flow, {}, **when)).result()


@clocked
async def test_delays_are_kept_whatever_their_order_and_short_ones_to_the_moment(kind: str, tmp_path: Path) -> None:
    clock = Clock()
    begun: dict[float, int] = {}

    async def note(state: State) -> None:
        begun[state["delay"]] = clock.now()

    flow = Flow("flow").then(note)
    async with engines(kind, tmp_path, [flow], clock, 2) as few:
        start = clock.now()
        for number, delay in enumerate([5, 0.25, 3, 1, 2, 0.5]):
            await few[number % 2].start(flow, {"delay": delay}, delay=delay)
        await pass_time(clock, 5, *few, step=0.25)
        assert begun == {delay: start + delay * 1000 for delay in (5, 0.25, 3, 1, 2, 0.5)}


@clocked
async def test_a_delay_outlives_the_engine(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.quick)
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [flow], world=clock) as engine:
            handle = await engine.start(flow, {}, delay=100)
        clock.move(99)
        async with Engine(store, [flow], world=clock) as engine:
            await quiet(engine)
            assert work.begun == []
            await pass_time(clock, 1, engine)
            assert work.begun == [handle.run_id]
        async with Engine(store, [flow], world=clock) as engine:
            await pass_time(clock, 2, engine)
        assert work.begun == [handle.run_id]


@clocked
async def test_a_run_that_is_cancelled_before_its_time_does_not_begin(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.quick)
    async with engines(kind, tmp_path, [flow], clock) as [engine]:
        handle = await engine.start(flow, {}, delay=10)
        assert await handle.cancel()
        await quiet(engine)
        assert (await handle.run()).status == "cancelled"
        await pass_time(clock, 12, engine)
        assert work.begun == []


@clocked
async def test_a_signal_wakes_a_run_that_is_not_to_begin_yet_no_earlier(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.quick).wait_for("go")
    async with engines(kind, tmp_path, [flow], clock) as [engine]:
        handle = await engine.start(flow, {}, delay=10)
        await handle.signal("go")
        await pass_time(clock, 9, engine)
        assert work.begun == []
        await pass_time(clock, 1, engine)
        await handle.result()
