"""Schedules of engines: each time is started once, over engines and restarts, and none stands in another's way."""

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import RunFilter
from flowneer_async.engine import Cron, Engine, Every
from flowneer_async.errors import BadOption, UnknownFlow
from flowneer_stores import MemoryStore
from tests.support.engines import CLOCKED, Clock, Flow, State, Work, pass_time, quiet, watched

clocked = pytest.mark.parametrize("kind", CLOCKED)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = Every(timedelta(minutes=1))


def clock_at(moment: datetime) -> Clock:
    return Clock(start=round(moment.timestamp() * 1000))


def minutes(*numbers: int) -> list[str]:
    """The ids of the runs that a schedule starts so many minutes after noon."""
    return [f"tick:{NOON + timedelta(minutes=number):%Y%m%dT%H%M%SZ}" for number in numbers]


def ticking(store: Any, work: Work, clock: Clock, **options: Any) -> Engine:
    """An engine that starts a run each minute."""
    flow = Flow("tick").then(work.quick)
    engine = Engine(store, [flow], world=clock, poll=10, grace=0)
    engine.schedule("tick", flow, {}, MINUTE, **options)
    return engine


@clocked
async def test_several_engines_start_each_time_once(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), clock_at(NOON)
    async with watched(kind, tmp_path, clock, 3) as stores, AsyncExitStack() as stack:
        few = [await stack.enter_async_context(ticking(store, work, clock)) for store in stores]
        await pass_time(clock, 300, *few, step=10)
        assert sorted(work.begun) == minutes(1, 2, 3, 4, 5)


@clocked
@pytest.mark.parametrize(("missed", "started"), [("skip", []), ("last", [9]), ("all", [2, 3, 4, 5, 6, 7, 8, 9])])
async def test_times_that_came_while_no_engine_was_at_work_are_started_as_wanted(
    kind: str, missed: Any, started: list[int], tmp_path: Path
) -> None:
    work, clock = Work(), clock_at(NOON)
    async with watched(kind, tmp_path, clock) as [store]:
        async with ticking(store, work, clock, missed=missed) as engine:
            await pass_time(clock, 61, engine, step=1)
        assert work.begun == minutes(1)
        clock.move(9 * 60)  # to 10 minutes and a second: the tenth minute is not missed, only late
        async with ticking(store, work, clock, missed=missed) as engine:
            await quiet(engine)
            assert sorted(work.begun) == minutes(1, *started, 10)
            await pass_time(clock, 60, engine, step=10)
            assert sorted(work.begun) == minutes(1, *started, 10, 11)


@clocked
async def test_a_restart_between_two_times_starts_none_of_them_again(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), clock_at(NOON)
    async with watched(kind, tmp_path, clock) as [store]:
        for _ in range(9):
            async with ticking(store, work, clock) as engine:
                await pass_time(clock, 20, engine, step=10)
        assert work.begun == minutes(1, 2, 3)


@clocked
async def test_a_state_that_cannot_be_made_is_logged_and_stops_nothing(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work, clock = Work(), clock_at(NOON)
    flow = Flow("tick").then(work.quick)

    def state(time: datetime) -> State:
        if time.minute == 1:
            raise ValueError("secret")
        return {"bad": object()} if time.minute == 2 else {"at": time.isoformat()}

    async with watched(kind, tmp_path, clock) as [store]:
        engine = Engine(store, [flow], world=clock, poll=10)
        engine.schedule("tick", flow, state, MINUTE)
        engine.schedule("other", flow, {}, MINUTE)
        with caplog.at_level(logging.WARNING):
            async with engine:
                await pass_time(clock, 180, engine, step=10)
                handle = await engine.handle(minutes(3)[0])
                assert (await handle.result()).state == {"at": (NOON + timedelta(minutes=3)).isoformat()}
        assert len(work.begun) == 4
        assert sum("tick was not started" in line for line in caplog.messages) == 2
        assert "secret" not in caplog.text


@clocked
async def test_each_run_has_a_state_of_its_own_and_the_tags_of_its_schedule(kind: str, tmp_path: Path) -> None:
    clock = clock_at(NOON)

    async def grow(state: State) -> None:
        state["list"].append(1)

    flow = Flow("tick").then(grow)
    async with watched(kind, tmp_path, clock) as [store]:
        engine = Engine(store, [flow], world=clock, poll=10)
        engine.schedule("tick", flow, {"list": []}, Cron("* * * * *"), tags={"tenant": "t"})
        async with engine:
            await pass_time(clock, 180, engine, step=10)
            runs = (await store.find(RunFilter(tags={"tenant": "t"}), 9)).runs
            assert [run.run_id for run in reversed(runs)] == minutes(1, 2, 3)
            assert [(await (await engine.handle(run.run_id)).result()).state for run in runs] == [{"list": [1]}] * 3


SCHEDULES: list[tuple[type[Exception], Callable[[Engine], None]]] = [
    (UnknownFlow, lambda engine: engine.schedule("name", "nothing", {}, MINUTE)),
    (BadOption, lambda engine: engine.schedule("name", "tick", {}, MINUTE, tags={"@time": ""})),
]


@pytest.mark.parametrize(("error", "schedule"), SCHEDULES)
def test_a_schedule_that_makes_no_sense_is_refused_when_it_is_made(
    error: type[Exception], schedule: Callable[[Engine], None]
) -> None:
    with pytest.raises(error):
        schedule(Engine(MemoryStore(), [Flow("tick").then(Work().quick)]))


async def test_a_schedule_is_not_made_while_its_engine_is_at_work() -> None:
    async with Engine(MemoryStore(), [Flow("tick").then(Work().quick)], world=Clock()) as engine:
        with pytest.raises(BadOption):
            engine.schedule("name", "tick", {}, MINUTE)
