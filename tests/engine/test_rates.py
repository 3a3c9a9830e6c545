"""How many runs begin within a time: never more than the rate allows, and none is lost."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async import Context
from flowneer_async.engine import Engine, Handle, Limits, Rate
from tests.support.engines import CLOCKED, Clock, Flow, State, engines, over, pass_time, quiet

clocked = pytest.mark.parametrize("kind", CLOCKED)


async def begun(runs: Sequence[Handle[Any]]) -> list[int]:
    """When those of these runs that have begun did, in ms."""
    times = [(await each.run()).begun for each in runs]
    return sorted(time for time in times if time is not None)


def most_within(seconds: float, times: Sequence[int]) -> int:
    """How many began within any time of this length."""
    return max(sum(0 <= each - first < seconds * 1000 for each in times) for first in times)


async def nothing(state: State) -> None: ...


@clocked
async def test_no_more_runs_begin_within_any_time_than_the_rate_allows_and_all_begin(kind: str, tmp_path: Path) -> None:
    clock = Clock()
    flow = Flow("flow").then(nothing)
    async with engines(kind, tmp_path, [flow], clock, limits={"flow": Limits(rate=Rate(3, per=10))}) as [engine]:
        runs = [await engine.start(flow, {}) for _ in range(8)]
        await quiet(engine)
        assert len(await begun(runs)) == 3
        await over(clock, runs, engine)
        assert most_within(10, await begun(runs)) == 3


@settings(max_examples=25, deadline=None)
@given(
    pauses=st.lists(st.floats(0, 4), min_size=1, max_size=9),
    limit=st.integers(1, 3),
    per=st.floats(0.5, 3),
    turns=st.lists(st.integers(0, 3), min_size=1, max_size=9),
)
def test_whenever_runs_are_started_their_rate_is_kept_and_none_is_lost(
    pauses: list[float], limit: int, per: float, turns: list[int]
) -> None:
    async def main() -> None:
        clock = Clock()
        flow = Flow("flow").then(nothing).sleep(1).then(nothing, name="more")
        limits = {"flow": Limits(rate=Rate(limit, per))}
        async with engines("memory", Path(), [flow], clock, turns=turns, limits=limits) as [engine]:
            runs: list[Handle[Any]] = []
            for pause in pauses:
                runs.append(await engine.start(flow, {}))
                await pass_time(clock, pause, engine, step=max(pause, 0.1))
            await over(clock, runs, engine, most=200)
            assert most_within(round(per * 1000) / 1000, await begun(runs)) <= limit

    asyncio.run(main())


@clocked
async def test_runs_that_had_begun_go_on_whatever_the_rate(kind: str, tmp_path: Path) -> None:
    clock = Clock()
    flow = Flow("flow").wait_for("go")
    async with engines(kind, tmp_path, [flow], clock, limits={"flow": Limits(rate=Rate(1, per=1000))}) as [engine]:
        first = await engine.start(flow, {})
        await quiet(engine)
        await engine.start(flow, {}, run_id="waits")
        await first.signal("go")
        await over(clock, [first], engine, most=1)
        assert (await engine.store.read("waits")).begun is None


@clocked
async def test_a_rate_outlives_the_engine(kind: str, tmp_path: Path) -> None:
    clock = Clock()
    flow = Flow("flow").then(nothing)
    async with engines(kind, tmp_path, [flow], clock, limits={"flow": Limits(rate=Rate(1, per=10))}) as [engine]:
        runs = [await engine.start(flow, {}) for _ in range(2)]
        await quiet(engine)
        engine.stop()
        async with Engine(engine.store, [flow], world=clock, limits={"flow": Limits(rate=Rate(1, per=10))}) as later:
            await pass_time(clock, 9, later)
            assert len(await begun(runs)) == 1
            await over(clock, runs, later, most=2)
        assert most_within(10, await begun(runs)) == 1


@clocked
async def test_the_runs_of_other_flows_do_not_wait_for_a_rate(kind: str, tmp_path: Path) -> None:
    seen: list[str] = []

    async def see(state: State, ctx: Context[Any]) -> None:
        seen.append(ctx.run_id)

    slow, quick = Flow("slow").then(see), Flow("quick").then(see)
    limits = {"slow": Limits(rate=Rate(1, per=1000))}
    async with engines(kind, tmp_path, [slow, quick], Clock(), concurrency=2, limits=limits) as [engine]:
        for number in range(9):
            await engine.start(slow, {}, run_id=f"slow-{number}", priority=9)
        for number in range(9):
            await engine.start(quick, {}, run_id=f"quick-{number}")
        await quiet(engine)
        assert sorted(seen) == [*(f"quick-{number}" for number in range(9)), "slow-0"]
