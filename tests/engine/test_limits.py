"""How many runs are at work at the same time: counted in their steps, at any moment, over all engines of one store."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async.control import End
from flowneer_async.engine import Engine, Handle, Limits
from tests.support.engines import CLOCKED, Clock, Flow, Work, calls, engines, over, pass_time, quiet
from tests.support.stores import KINDS

kinds = pytest.mark.parametrize("kind", KINDS)
clocked = pytest.mark.parametrize("kind", CLOCKED)


async def started(engine: Engine, number: int, **options: Any) -> list[Handle[object]]:
    return [await engine.start("flow", {"turns": 20}, **options) for _ in range(number)]


# Slots ----------------------------------------------------------------------------------------------------------------


@kinds
async def test_as_many_runs_are_at_work_in_an_engine_as_it_has_slots(kind: str, tmp_path: Path) -> None:
    work = Work()
    flow = Flow("flow").then(work.step).then(work.quick)
    async with engines(kind, tmp_path, [flow], Clock(), concurrency=3) as [engine]:
        runs = await started(engine, 8)
        await quiet(engine)
        assert len(work.begun) == 3
        work.let()
        await quiet(engine)
        assert {(await each.run()).status for each in runs} == {"completed"}  # though no time has passed
        assert work.most[""] == 3


@kinds
async def test_a_run_that_waits_takes_no_slot_and_no_room(kind: str, tmp_path: Path) -> None:
    work = Work()
    flow = Flow("flow").then(work.quick).wait_for("go").then(work.quick, name="again")
    limits = {"flow": Limits(concurrency=1, per_key=1)}
    async with engines(kind, tmp_path, [flow], Clock(), concurrency=1, limits=limits) as [engine]:
        runs = await started(engine, 3, key="k")
        await quiet(engine)
        assert len(work.begun) == 3
        for each in runs:
            await each.signal("go")
        await quiet(engine)
        assert {(await each.run()).status for each in runs} == {"completed"}
        assert work.most[""] == 1


# Limits of flows and keys ---------------------------------------------------------------------------------------------


@kinds
async def test_a_limit_of_a_flow_holds_over_all_engines(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.quick)
    async with engines(kind, tmp_path, [flow], clock, 2, limits={"flow": Limits(concurrency=2)}) as few:
        runs = [run for engine in few for run in await started(engine, 6)]
        await over(clock, runs, *few)
        assert work.most[""] <= 2
        assert len(work.begun) == 12


@kinds
async def test_a_limit_of_a_key_holds_over_all_engines(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.quick)
    async with engines(kind, tmp_path, [flow], clock, 2, limits={"flow": Limits(per_key=1)}) as few:
        runs: list[Handle[Any]] = []
        for number in range(12):
            key = "abc"[number % 3]
            runs.append(await few[number % 2].start(flow, {"key": key, "turns": 30}, key=key))
        await over(clock, runs, *few)
        assert {work.most[key] for key in "abc"} == {1}
        assert len(work.begun) == 12


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(st.integers(0, 6), min_size=1, max_size=40),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=7),
    keys=st.lists(st.sampled_from(["a", "b", None]), min_size=2, max_size=9),
    concurrency=st.sampled_from([None, 1, 2]),
    per_key=st.sampled_from([None, 1, 2]),
)
def test_whatever_comes_between_the_calls_of_two_engines_no_limit_is_exceeded_and_every_run_is_done(
    turns: list[int], draws: list[float], keys: list[str | None], concurrency: int | None, per_key: int | None
) -> None:
    async def main() -> None:
        work, clock = Work(), Clock([*draws, 0.123, 0.789])
        flow = Flow("flow").then(work.quick)
        limits = {"flow": Limits(concurrency=concurrency, per_key=per_key)}
        async with engines("memory", Path(), [flow], clock, 2, turns, limits=limits) as few:
            runs: list[Handle[Any]] = []
            for number, key in enumerate(keys):
                runs.append(await few[number % 2].start(flow, {"key": key, "turns": 9}, key=key))
            await over(clock, runs, *few)
        assert work.most[""] <= (concurrency or 99)
        assert max(work.most[key] for key in "ab") <= (per_key or 99)
        assert sorted(work.begun) == sorted(each.run_id for each in runs)

    asyncio.run(main())


@clocked
async def test_a_run_goes_on_at_once_when_the_one_that_had_its_room_is_over(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.quick)
    async with engines(kind, tmp_path, [flow], clock, limits={"flow": Limits(concurrency=1, per_key=1)}) as [engine]:
        runs = [*await started(engine, 4, key="a"), *await started(engine, 4, key="b"), *await started(engine, 2)]
        await over(clock, runs, engine, most=0)
        assert work.most[""] == 1


@clocked
async def test_runs_of_a_key_that_is_busy_do_not_stand_in_the_way_of_others(kind: str, tmp_path: Path) -> None:
    work = Work()
    flow, other = Flow("flow").then(work.step), Flow("other").then(work.quick)
    limits = {"flow": Limits(per_key=1)}
    async with engines(kind, tmp_path, [flow, other], Clock(), concurrency=3, limits=limits) as [engine]:
        for _ in range(20):
            await engine.start(flow, {}, key="a", priority=9)
        await engine.start(flow, {}, key="b", run_id="b")
        last = await engine.start(other, {})
        await last.result()
        await work.begins("b")
        assert len(work.begun) == 3


@clocked
async def test_while_there_is_no_room_the_store_is_left_in_peace(kind: str, tmp_path: Path) -> None:
    work = Work()
    flow = Flow("flow").then(work.step)
    async with engines(kind, tmp_path, [flow], Clock(), limits={"flow": Limits(concurrency=1)}) as [engine]:
        await started(engine, 30)
        await quiet(engine)  # which would never come
        assert calls(engine, "due") < 40
        assert calls(engine, "claim") == 1


@clocked
async def test_a_run_whose_process_is_gone_has_its_room_until_another_goes_on_with_it(
    kind: str, tmp_path: Path
) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.quick)
    async with engines(kind, tmp_path, [flow], clock, 2, limits={"flow": Limits(concurrency=1)}) as few:
        lost = few[0].flows["flow"].execution({}, run_id="lost", world=clock)
        await lost.open()
        later = await few[1].start(flow, {})
        await pass_time(clock, 3, *few)
        assert work.begun == []
        await lost.abandon(End("running"))
        await over(clock, [await few[0].handle("lost"), later], *few)
        assert work.begun == ["lost", later.run_id]


@clocked
async def test_runs_that_two_engines_find_in_the_same_moment_are_done_one_after_the_other_without_another_look_around(
    kind: str, tmp_path: Path
) -> None:
    work, clock = Work(), Clock()
    flow, limits = Flow("flow").then(work.quick), {"flow": Limits(concurrency=1)}
    async with engines(kind, tmp_path, [flow], clock, 2, [2, 2, 2], limits=limits, poll=50) as few:
        runs = [await each.start(flow, {"turns": 50}, delay=5) for each in few]
        await over(clock, runs, *few, most=7)
        assert sum(calls(each, "claim") for each in few) > len(runs)  # of two claims of one run
        assert work.most[""] == 1
