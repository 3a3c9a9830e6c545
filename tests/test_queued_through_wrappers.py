"""Runs that wait to begin, through wrappers around each kind of store."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import Forged, StoreFailed, VersionStore
from flowneer_async.store import Due
from flowneer_async.testing import Crash, CrashingStore
from flowneer_async.testing.chains import counting, new_run, owned
from flowneer_stores import EncryptedStore, LimitedStore, MemoryStore, ReadOnlyStore, RedactedStore, SignedStore
from flowneer_stores.methods import Methods
from flowneer_stores.wrapper import Wrapper
from tests.support.stores import KINDS, opened

KEY = os.urandom(32)
FLOW = Due(frozenset({"flow"}))
WRAPPERS: dict[str, Callable[[VersionStore], Methods]] = {
    "encrypted": lambda store: EncryptedStore(store, {"2026": KEY}),
    "signed": lambda store: SignedStore(store, KEY),
    "limited": LimitedStore,
    "all of them": lambda store: LimitedStore(EncryptedStore(SignedStore(store, KEY), {"2026": KEY})),
}


async def queue(store: VersionStore, number: int) -> None:
    """A run that waits to begin, with its first state."""
    run = replace(new_run(f"run-{number}"), status="waiting", wake=number, priority=-number, key="key")
    assert await store.create(run, counting(run.run_id, 1)) is not None


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_queued_run_is_taken_put_down_and_asked_to_end_through_a_wrapper(
    kind: str, wrap: Callable[[VersionStore], Methods], tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as inner:
        store = wrap(inner)
        for number in range(3):
            await queue(store, number)
        assert list(await store.due(FLOW, 9)) == [await store.read(f"run-{number}") for number in range(3)]
        assert list(await store.due(replace(FLOW, busy=frozenset({"key"})), 9)) == []
        (run,) = await store.due(FLOW, 1)
        lease = await store.claim(replace(run, begun=7))
        await store.append(lease, counting("run-0", 3)[1:])
        await store.release(lease, "waiting", wake=10**15)
        read = await store.read("run-0")
        assert (read.begun, read.wake, read.priority, read.key) == (7, 10**15, 0, "key")
        assert await store.ask_cancel("run-0") is True
        assert [run.run_id for run in await store.due(FLOW, 9)] == ["run-0", "run-1", "run-2"]
        assert (await store.read("run-0")).cancelling is True
        assert list(await store.versions("run-0")) == counting("run-0", 3)
        for show in (ReadOnlyStore(store), RedactedStore(store, ["n"])):
            assert list(await show.due(FLOW, 1)) == [await store.read("run-0")]


def remembered(store: Any) -> int:
    """How much a wrapper, and those inside it, keep of runs."""
    own = sum(len(value) for value in vars(store).values() if isinstance(value, dict))
    return own + (remembered(store._store) if isinstance(store, Wrapper) else 0)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
async def test_runs_that_wait_take_no_memory_in_a_wrapper(wrap: Callable[[VersionStore], Methods]) -> None:
    store = wrap(CrashingStore(MemoryStore()))
    before = remembered(store)
    for number in range(9):
        await queue(store, number)
    assert remembered(store) == before


async def test_a_forged_run_is_not_gone_on_with_and_is_in_no_others_way() -> None:
    """Its tags were changed by somebody without the key: those behind it are due, however few are asked for."""
    inner = MemoryStore()
    store = SignedStore(inner, KEY)
    for number in range(4):
        await queue(store, number)
    for number in range(3):
        kept = inner._kept[f"run-{number}"]
        kept.run = replace(kept.run, tags={"team": "b"})
        with pytest.raises(Forged):
            await store.read(f"run-{number}")
    for limit in (1, 2, 4, 9):
        assert [run.run_id for run in await store.due(FLOW, limit)] == ["run-3"]


async def test_a_process_that_dies_leaves_queued_runs_as_they_are() -> None:
    inner = MemoryStore()
    store = CrashingStore(inner)
    await queue(store, 1)
    before = await inner.read("run-1")
    await owned(store)
    await store.die()
    assert await inner.read("run-1") == before
    assert [run.run_id for run in await inner.due(FLOW, 9)] == ["run", "run-1"]
    for work in (store.due(FLOW, 9), store.ask_cancel("run-1")):
        with pytest.raises(Crash):
            await work


@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_process_that_dies_while_it_queues_a_run_has_stored_all_of_it_or_nothing(how: Any) -> None:
    inner = MemoryStore()
    with pytest.raises(Crash):
        await queue(CrashingStore(inner, 1, how), 1)
    assert [(run.run_id, run.head) for run in await inner.due(FLOW, 9)] == ([] if how == "before" else [("run-1", 0)])


@pytest.mark.parametrize("how", ["before", "after", "unheard"])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_process_that_dies_with_a_queued_run_leaves_it_due(at: int, how: Any) -> None:
    """At its claim, its first version, or when it is put down: somebody goes on with it, or it waits as was said."""
    inner = MemoryStore()
    await queue(inner, 1)
    store = CrashingStore(inner, at, how)

    async def live() -> None:
        lease = await store.claim(await store.read("run-1"))
        await store.append(lease, counting("run-1", 2)[1:])
        await store.release(lease, "waiting", wake=10**15)

    with pytest.raises(StoreFailed if how == "unheard" else Crash):
        await live()
    await store.die()
    run = await inner.read("run-1")
    assert run.owner is None
    is_put_down = at == 3 and how != "before"
    assert run.wake == (1 if (at, how) == (1, "before") else 10**15 if is_put_down else None)
    assert [run.run_id for run in await inner.due(FLOW, 9)] == ([] if is_put_down else ["run-1"])
