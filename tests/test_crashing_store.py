"""A store whose process dies when it is told to."""

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest

from flowneer_async import FlowBuilder
from flowneer_async.errors import StoreFailed, UnknownRun
from flowneer_async.store import RunFilter
from flowneer_async.testing import Crash, CrashingStore, StoreContract
from flowneer_async.testing.chains import Owned, counting, new_run, owned
from flowneer_stores import MemoryStore

State = dict[str, Any]


async def count(state: State) -> None:
    state["n"] += 1


COUNTING = FlowBuilder[State]("f").start_with(count).then(count, name="again")


class TestCrashingStore(StoreContract):
    """As long as its process does not die, it is a store as any other."""

    def make_store(self, tmp_path: Path) -> CrashingStore:
        return CrashingStore(MemoryStore())


async def a_run(store: MemoryStore) -> Owned:
    """A run that nobody owns, of whose six versions three may be dropped."""
    run = await owned(store, stored=0)
    await store.append(run.lease, counting("run", 6, keyframes=(0, 3)))
    await store.release(run.lease, "failed")
    return run


@pytest.mark.parametrize(("how", "head"), [("before", 0), ("after", 1)])
async def test_a_crash_comes_before_or_after_a_commit(how: Literal["before", "after"], head: int) -> None:
    """The process dies at the commit it was told, all its methods with it, and the run is free."""
    inner = MemoryStore()
    store = CrashingStore(inner, 2, how)
    with pytest.raises(Crash):
        await COUNTING.with_versioned_checkpoint(store).run({"n": 0}, run_id="r")
    with pytest.raises(Crash):
        await store.read("r")
    run = await inner.read("r")
    assert (run.head, run.owner, run.status) == (head, None, "running")


async def test_of_an_unheard_commit_the_caller_is_told_that_it_failed() -> None:
    """It is stored all the same; the process lives on, and owns what it owns until it is told to die."""
    inner = MemoryStore()
    store = CrashingStore(inner, 2, "unheard")
    lease = await store.create(new_run())
    assert lease is not None
    with pytest.raises(StoreFailed, match="the answer never came"):
        await store.append(lease, counting("run", 1))
    assert (store.reached, store.crashed) == (True, False)
    run = await store.read("run")
    assert (run.head, run.owner) == (0, "this process")
    await store.die()
    assert (await inner.read("run")).owner is None


@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_process_dies_at_the_beginning_of_a_run(how: Literal["before", "after"]) -> None:
    """The new run is not there, or with all of its first versions; other runs of the process are free."""
    inner = MemoryStore()
    store = CrashingStore(inner, 2, how)
    assert await store.create(new_run("first"), counting("first", 1)) is not None
    with pytest.raises(Crash):
        await store.create(new_run("second"), counting("second", 3))
    assert (store.crashed, store.commits) == (True, 2)
    assert (await inner.read("first")).owner is None
    if how == "after":
        run = await inner.read("second")
        assert (run.head, run.owner, run.status) == (2, None, "running")
    else:
        with pytest.raises(UnknownRun):
            await inner.read("second")


@pytest.mark.parametrize(("how", "status"), [("before", "running"), ("after", "completed")])
async def test_a_process_dies_when_it_gives_a_run_back(how: Literal["before", "after"], status: str) -> None:
    """To claim a run, and to give it back, are commits as any other."""
    inner = MemoryStore()
    with pytest.raises(Crash):
        await COUNTING.with_versioned_checkpoint(CrashingStore(inner, 4, how)).run({"n": 0}, run_id="r")
    run = await inner.read("r")
    assert (run.head, run.owner, run.status) == (2, None, status)
    if status == "running":
        with pytest.raises(Crash):
            await CrashingStore(inner, 1, "after").claim(run)
        assert (await inner.read("r")).owner is None


async def test_a_process_sends_signals_until_it_dies() -> None:
    """They reach the store, are no commits, and come to an end with the process."""
    inner = MemoryStore()
    store = CrashingStore(inner, 2)
    lease = await store.create(new_run())
    sent = await store.send("run", "go", b"1")
    assert list(await store.signals("run")) == list(await inner.signals("run")) == [sent]
    assert lease is not None
    with pytest.raises(Crash):
        await store.append(lease, counting("run", 1))
    for use in (store.send("run", "go", b"1"), store.signals("run")):
        with pytest.raises(Crash):
            await use


@pytest.mark.parametrize(("how", "first"), [("before", 0), ("after", 3)])
async def test_a_process_dies_when_it_prunes_a_run(how: Literal["before", "after"], first: int) -> None:
    """To drop versions is a commit as any other: nothing is gone, or all that was to go."""
    inner = MemoryStore()
    await a_run(inner)
    store = CrashingStore(inner, 1, how)
    with pytest.raises(Crash):
        await store.drop("run", 1)
    assert (store.commits, store.crashed, (await inner.read("run")).first) == (1, True, first)


@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_process_dies_when_it_purges_a_run(how: Literal["before", "after"]) -> None:
    """So is to purge a run, also where the process has owned it once."""
    inner = MemoryStore()
    await a_run(inner)
    store = CrashingStore(inner, 3, how)
    await store.release(await store.claim(await store.read("run")), "failed")
    with pytest.raises(Crash):
        await store.purge("run")
    assert store.commits == 3
    if how == "before":
        assert (await inner.read("run")).owner is None
    else:
        with pytest.raises(UnknownRun):
            await inner.read("run")


async def test_of_an_unheard_purge_the_caller_is_told_that_it_failed() -> None:
    """The run is gone all the same, and the process lives on."""
    inner = MemoryStore()
    await a_run(inner)
    store = CrashingStore(inner, 1, "unheard")
    with pytest.raises(StoreFailed, match="the answer never came"):
        await store.purge("run")
    assert list((await store.find(RunFilter(), 10)).runs) == []


async def test_a_dead_process_finds_and_counts_nothing() -> None:
    """It dies as a whole, and is no store any more; neither pruning nor purging it does after its death."""
    inner = MemoryStore()
    await a_run(inner)
    store = CrashingStore(inner)
    await store.die()
    for use in (store.find(RunFilter(), 10), store.count(RunFilter()), store.drop("run", 1), store.purge("run")):
        with pytest.raises(Crash):
            await use
    with pytest.raises(Crash):
        async with store.changes("run"):
            pass
    assert (await inner.read("run")).first == 0


async def test_a_watch_ends_with_its_process() -> None:
    """Whoever waits for a change in a process that dies is not told of it."""
    inner = MemoryStore()
    lease = await inner.create(new_run())
    assert lease is not None
    store = CrashingStore(inner)
    async with store.changes("run") as changed:
        await store.send("run", "go", b"1")
        await changed()
        waiting = asyncio.ensure_future(changed())
        await store.die()
        await inner.append(lease, counting("run", 1))
        with pytest.raises(Crash):
            await waiting
