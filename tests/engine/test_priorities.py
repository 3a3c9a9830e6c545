"""Of runs that wait for a slot the most urgent begin first, and of those that are as urgent those that came first."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async.engine import Handle, Limits
from tests.support.engines import CLOCKED, Clock, Flow, Work, engines, over, pass_time, pass_turns, quiet
from tests.support.stores import KINDS

kinds = pytest.mark.parametrize("kind", KINDS)
clocked = pytest.mark.parametrize("kind", CLOCKED)


ONE: list[dict[str, Any]] = [{"concurrency": 1}, {"limits": {"flow": Limits(concurrency=1)}}]
"""In two ways one run is at work at a time."""


async def order_of(kind: str, folder: Path, priorities: list[int], **options: Any) -> list[int]:
    """The numbers of the runs of these priorities in the order in which they begin in the one slot there is."""
    work = Work()
    flow = Flow("flow").then(work.step)
    async with engines(kind, folder, [flow], Clock(), **options) as [engine]:
        await engine.start(flow, {}, run_id="first")
        await work.begins("first")
        for number, priority in enumerate(priorities):
            await engine.start(flow, {}, run_id=f"r-{number}", priority=priority)
        work.let()
        await quiet(engine)
    return [int(run_id[2:]) for run_id in work.begun[1:]]


def wanted(priorities: list[int]) -> list[int]:
    return sorted(range(len(priorities)), key=lambda number: -priorities[number])


@kinds
@pytest.mark.parametrize("options", ONE, ids=["slot", "limit"])
async def test_the_most_urgent_begin_first_and_then_those_that_came_first(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    priorities = [0, 5, 0, -(2**31), 5, 2**31 - 1, -3, 5]
    assert await order_of(kind, tmp_path, priorities, **options) == wanted(priorities)


@settings(max_examples=40, deadline=None)
@given(
    priorities=st.lists(st.integers(-2, 2), max_size=12),
    turns=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    options=st.sampled_from(ONE),
)
def test_whatever_comes_between_the_calls_the_order_is_that_of_priority_and_then_of_starts(
    priorities: list[int], turns: list[int], options: dict[str, Any]
) -> None:
    order = asyncio.run(order_of("memory", Path(), priorities, turns=turns, **options))
    assert order == wanted(priorities)


@settings(max_examples=80, deadline=None)
@given(
    turns=st.lists(st.integers(0, 5), min_size=1, max_size=20),
    pauses=st.lists(st.integers(0, 25), min_size=2, max_size=12),
)
def test_a_start_overtakes_no_run_that_waits_for_a_slot(turns: list[int], pauses: list[int]) -> None:
    """The one slot becomes free at any moment between the starts; no time passes."""

    async def main() -> None:
        work, clock = Work(), Clock()
        flow = Flow("flow").then(work.quick)
        async with engines("memory", Path(), [flow], clock, turns=turns, concurrency=1) as [engine]:
            runs: list[Handle[Any]] = []
            for pause in pauses:
                runs.append(await engine.start(flow, {"turns": 8}))
                await pass_turns(pause)
            await over(clock, runs, engine, most=0)
            assert work.most[""] == 1
            assert work.begun == [each.run_id for each in runs]

    asyncio.run(main())


@clocked
async def test_a_run_whose_time_has_come_waits_in_line_from_then_on(kind: str, tmp_path: Path) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.step)
    async with engines(kind, tmp_path, [flow], clock, concurrency=1) as [engine]:
        await engine.start(flow, {}, run_id="first")
        await work.begins("first")
        await engine.start(flow, {}, run_id="at-2", delay=2)
        await engine.start(flow, {}, run_id="at-0")
        await pass_time(clock, 1, engine)
        await engine.start(flow, {}, run_id="at-1")
        await pass_time(clock, 2, engine)
        await engine.start(flow, {}, run_id="at-3")
        work.let()
        await quiet(engine)
        assert work.begun == ["first", "at-0", "at-1", "at-2", "at-3"]
