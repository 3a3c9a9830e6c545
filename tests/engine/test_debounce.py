"""Of several starts under one name only the last one is done, once nobody starts another for a while."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async.engine import Engine, Handle
from flowneer_async.errors import NotCompleted
from tests.support.engines import CLOCKED, Clock, Flow, State, engines, over, pass_time, quiet, watched

clocked = pytest.mark.parametrize("kind", CLOCKED)


def saving(saved: list[int]) -> Flow:
    """A flow that saves the number in its state."""

    async def save(state: State) -> None:
        saved.append(state["number"])

    return Flow("save").then(save)


async def nothing(state: State) -> None: ...


async def changed(engine: Engine, number: int, name: str = "document") -> Handle[Any]:
    return await engine.start("save", {"number": number}, delay=5, debounce=name)


@clocked
async def test_of_starts_under_one_name_the_last_is_done_and_the_others_are_cancelled(
    kind: str, tmp_path: Path
) -> None:
    saved: list[int] = []
    clock = Clock()
    async with engines(kind, tmp_path, [saving(saved)], clock) as [engine]:
        runs: list[Handle[Any]] = []
        for number in range(5):
            runs.append(await changed(engine, number))
            await pass_time(clock, 3, engine)
        assert saved == []
        await pass_time(clock, 2, engine)
        assert saved == [4]
        assert [(await each.run()).status for each in runs] == [*["cancelled"] * 4, "completed"]
        with pytest.raises(NotCompleted, match="in its place"):
            await runs[0].result()


@clocked
async def test_names_and_flows_do_not_mix(kind: str, tmp_path: Path) -> None:
    saved: list[int] = []
    clock = Clock()
    other = Flow("other").then(nothing)
    async with engines(kind, tmp_path, [saving(saved), other], clock) as [engine]:
        runs = [
            await changed(engine, 1, "a"),
            await changed(engine, 2, "b"),
            await changed(engine, 3, "a"),
            await engine.start(other, {}, delay=5, debounce="a"),
        ]
        await pass_time(clock, 6, engine)
        assert sorted(saved) == [2, 3]
        assert [(await each.run()).status for each in runs] == ["cancelled", "completed", "completed", "completed"]


@clocked
async def test_a_start_after_the_last_one_has_begun_is_another_one(kind: str, tmp_path: Path) -> None:
    saved: list[int] = []
    clock = Clock()
    async with engines(kind, tmp_path, [saving(saved)], clock) as [engine]:
        for number in range(3):
            await changed(engine, number)
            await pass_time(clock, 6, engine)
        assert saved == [0, 1, 2]


@clocked
async def test_one_that_waits_for_a_signal_has_begun_and_is_left_alone(kind: str, tmp_path: Path) -> None:
    clock = Clock()
    flow = Flow("save").wait_for("go")
    async with engines(kind, tmp_path, [flow], clock) as [engine]:
        first = await changed(engine, 0)
        await pass_time(clock, 6, engine)
        second = await changed(engine, 1)
        await pass_time(clock, 6, engine)
        for each in (first, second):
            await each.signal("go")
            await each.result()


@clocked
async def test_of_starts_in_several_engines_at_once_one_is_done(kind: str, tmp_path: Path) -> None:
    saved: list[int] = []
    clock = Clock()
    async with engines(kind, tmp_path, [saving(saved)], clock, 2) as few:
        runs: list[Handle[Any]] = []

        async def change(number: int) -> None:
            runs.append(await changed(few[number % 2], number))

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(change, number)
        await pass_time(clock, 6, *few)
        statuses = sorted([(await each.run()).status for each in runs])
        assert statuses == [*["cancelled"] * 7, "completed"]
        assert len(saved) == 1


@clocked
async def test_the_name_holds_over_a_restart(kind: str, tmp_path: Path) -> None:
    saved: list[int] = []
    clock, flow = Clock(), saving(saved)
    async with watched(kind, tmp_path, clock) as [store]:
        for number in range(3):
            async with Engine(store, [flow], world=clock) as engine:
                await changed(engine, number)
        clock.move(6)
        async with Engine(store, [flow], world=clock) as engine:
            await quiet(engine)
    assert saved == [2]


@settings(max_examples=30, deadline=None)
@given(
    pauses=st.lists(st.floats(0, 7), min_size=1, max_size=7),
    turns=st.lists(st.integers(0, 4), min_size=1, max_size=9),
)
def test_whatever_the_pauses_each_start_is_done_or_replaced_and_the_last_is_done(
    pauses: list[float], turns: list[int]
) -> None:
    async def main() -> None:
        saved: list[int] = []
        clock = Clock()
        async with engines("memory", Path(), [saving(saved)], clock, 2, turns) as few:
            runs: list[Handle[Any]] = []
            for number, pause in enumerate(pauses):
                runs.append(await changed(few[number % 2], number))
                await pass_time(clock, pause, *few, step=max(pause / 4, 0.1))
            await over(clock, runs, *few)
            done = [number for number, each in enumerate(runs) if (await each.run()).status == "completed"]
        assert done == saved == sorted(set(saved))
        assert saved[-1] == len(pauses) - 1

    asyncio.run(main())
