"""What flowneer_async.testing gives to users, beside the contract."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowneer_async import FlowBuilder, FlowError, World
from flowneer_async.policy import Backoff
from flowneer_async.testing import FakeWorld, StoreContract

State = dict[str, Any]


async def count(state: State) -> None:
    state["n"] += 1


def fail(state: State) -> None:
    raise ValueError


COUNTING = FlowBuilder[State]("counting").start_with(count).then(count, name="again")


async def test_retries_wait_no_time_in_a_fake_world() -> None:
    """Whoever sleeps moves the clock and goes on at once; what was slept, and drawn, can be looked at."""
    world = FakeWorld(1000, draws=(0.0, 0.5))
    flow = FlowBuilder[State]("f").start_with(fail, retries=3, delay=Backoff(10, most=1000))
    with pytest.raises(FlowError):
        await flow.run({}, world=world)
    assert world.slept == [10, 10, 40]
    assert world.now() == 61_000


async def test_run_ids_of_a_fake_world_are_counted() -> None:
    """Two worlds give the same ids, each its own."""
    for world in (FakeWorld(), FakeWorld()):
        assert [(await COUNTING.run({"n": 0}, world=world)).run_id for _ in range(2)] == ["run-1", "run-2"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_held_clock_moves_only_when_the_test_moves_it(backend: str) -> None:
    """Sleepers wake in time and not before, and the test can wait for them to sleep."""
    woken: list[str] = []

    async def sleeper(world: World, name: str, seconds: float) -> None:
        await world.sleep(seconds)
        woken.append(name)
        await world.sleep(1000)

    async def main() -> None:
        world = FakeWorld(0, held=True)
        async with anyio.create_task_group() as group:
            group.start_soon(sleeper, world, "late", 10)
            group.start_soon(sleeper, world, "early", 0.5)
            await world.asleep(2)
            world.move(0.5)
            await world.asleep(2)
            assert (woken, world.now()) == (["early"], 500)
            world.move(9.5)
            await world.asleep(2)
            assert woken == ["early", "late"]
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)


async def test_who_sleeps_for_no_time_waits_for_nobody() -> None:
    """Also where the clock is held: no move is needed for a moment that is here."""
    world = FakeWorld(0, held=True)
    await world.sleep(0)
    assert (world.now(), world.slept) == (0, [0])


async def test_a_cancelled_sleeper_sleeps_no_more() -> None:
    """Whoever was cancelled does not count as asleep."""
    world = FakeWorld(held=True)
    with anyio.move_on_after(0):
        await world.sleep(1)
    sleeping = asyncio.ensure_future(world.sleep(2))
    await world.asleep()
    world.move(2)
    await sleeping


def test_a_contract_without_a_store_says_what_is_missing() -> None:
    """Whoever derives a contract has to say how a store is made."""
    with pytest.raises(NotImplementedError, match="make_store"):
        StoreContract().make_store(Path())
