"""What flowneer_async.testing gives to users, beside the contract."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowneer_async import FlowBuilder, FlowError, UnknownRun, World
from flowneer_async.policy import Backoff
from flowneer_async.testing import Crash, CrashingStore, FakeWorld, StoreContract, crash_everywhere
from flowneer_async.testing.chains import counting, new_run
from flowneer_stores import MemoryStore

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


async def test_a_cancelled_sleeper_sleeps_no_more() -> None:
    """Whoever was cancelled does not count as asleep."""
    world = FakeWorld(held=True)
    with anyio.move_on_after(0):
        await world.sleep(1)
    sleeping = asyncio.ensure_future(world.sleep(2))
    await world.asleep()
    world.move(2)
    await sleeping


@pytest.mark.parametrize(("stored", "head"), [(False, 0), (True, 1)])
async def test_a_crash_comes_before_or_after_a_version_is_stored(stored: bool, head: int) -> None:
    """The process dies at the append it was told, all its methods with it, and the run is free."""
    inner = MemoryStore()
    store = CrashingStore(inner, 2, stored=stored)
    with pytest.raises(Crash):
        await COUNTING.with_versioned_checkpoint(store).run({"n": 0}, run_id="r")
    with pytest.raises(Crash):
        await store.read("r")
    run = await inner.read("r")
    assert (run.head, run.owner, run.status) == (head, None, "running")


@pytest.mark.parametrize("stored", [False, True])
async def test_a_run_created_with_versions_counts_as_an_append(stored: bool) -> None:
    """The process dies before the run is there, or with all of its first versions; without versions, it lives on."""
    inner = MemoryStore()
    store = CrashingStore(inner, 2, stored=stored)
    assert await store.create(new_run("empty")) is not None
    assert await store.create(new_run("first"), counting("first", 1)) is not None
    with pytest.raises(Crash):
        await store.create(new_run("second"), counting("second", 3))
    assert store.crashed
    assert (await inner.read("first")).owner is None
    if stored:
        run = await inner.read("second")
        assert (run.head, run.owner, run.status) == (2, None, "running")
    else:
        with pytest.raises(UnknownRun):
            await inner.read("second")


async def test_a_process_sends_signals_until_it_dies() -> None:
    """They reach the store, count as no append, and come to an end with the process."""
    inner = MemoryStore()
    store = CrashingStore(inner, 1)
    lease = await store.create(new_run())
    sent = await store.send("run", "go", b"1")
    assert list(await store.signals("run")) == list(await inner.signals("run")) == [sent]
    assert lease is not None
    with pytest.raises(Crash):
        await store.append(lease, counting("run", 1))
    for use in (store.send("run", "go", b"1"), store.signals("run")):
        with pytest.raises(Crash):
            await use


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_flow_that_lives_through_crashes_passes(durability: str) -> None:
    """A crash before and after each append, whatever the durability, ends as none."""
    assert await crash_everywhere(COUNTING, lambda: {"n": 0}, MemoryStore(), durability=durability) >= 2


async def test_a_flow_that_does_not_live_through_crashes_is_found() -> None:
    """A flow that depends on what is not in its state ends otherwise after a crash; the message shows no value."""
    calls: list[None] = []

    async def remember(state: State) -> None:
        calls.append(None)
        state["secret"] = len(calls)

    flow = FlowBuilder[State]("f").start_with(remember)
    with pytest.raises(AssertionError, match=r"after a crash just before .* another state") as caught:
        await crash_everywhere(flow, dict, MemoryStore())
    assert "secret" not in str(caught.value)


def test_a_contract_without_a_store_says_what_is_missing() -> None:
    """Whoever derives a contract has to say how a store is made."""
    with pytest.raises(NotImplementedError, match="make_store"):
        StoreContract().make_store(Path())
