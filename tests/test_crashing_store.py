"""A store whose process dies when it is told to."""

from typing import Any, Literal

import pytest

from flowneer_async import FlowBuilder
from flowneer_async.errors import StoreFailed, UnknownRun
from flowneer_async.testing import Crash, CrashingStore
from flowneer_async.testing.chains import counting, new_run
from flowneer_stores import MemoryStore

State = dict[str, Any]


async def count(state: State) -> None:
    state["n"] += 1


COUNTING = FlowBuilder[State]("f").start_with(count).then(count, name="again")


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
