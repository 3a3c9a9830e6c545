"""The contract of changes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import pytest

from flowneer_async.errors import UnknownRun
from flowneer_async.store import VersionStore
from flowneer_async.testing.chains import Owned, counting, owned

_TURNS = (0, 1, 2, 3, 5, 8, 20, 50)
"""Turns of the event loop that a watcher has waited for when something happens."""

_Changed: TypeAlias = Callable[[], Awaitable[None]]
_Change: TypeAlias = Callable[[Owned], Coroutine[Any, Any, object]]


async def _append(run: Owned) -> None:
    await run.append(6, 8)


async def _send(run: Owned) -> None:
    await run.store.send(run.lease.run_id, "go", b"1")


async def _ask_cancel(run: Owned) -> None:
    assert await run.store.ask_cancel(run.lease.run_id)


async def _drop(run: Owned) -> None:
    assert await run.store.drop(run.lease.run_id, 1)


async def _release(run: Owned) -> None:
    await run.store.release(run.lease, "completed")


async def _claim(run: Owned) -> None:
    await run.store.claim(await run.store.read(run.lease.run_id))


async def _purge(run: Owned) -> None:
    await run.store.purge(run.lease.run_id)


_EACH = pytest.mark.parametrize(
    "change", [_append, _send, _ask_cancel, _drop, _release, _claim, _purge], ids=lambda each: each.__name__
)


async def _to_change(store: VersionStore, change: _Change, run_id: str = "run") -> Owned:
    """A run to which that can be done."""
    run = await owned(store, run_id, stored=0)
    run.versions = counting(run_id, 8, keyframes=(0, 3))
    await run.append(0, 6)
    if change in (_claim, _purge):
        await store.release(run.lease, "waiting")
    return run


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@asynccontextmanager
async def _called(changed: _Changed, turns: int = 0) -> AsyncGenerator[asyncio.Future[None], None]:
    """A call that has waited for so many turns of the loop; it is cancelled in the end."""
    task = asyncio.ensure_future(changed())
    try:
        await _turns(turns)
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _quiet(changed: _Changed) -> None:
    """Call it until it waits: it may return without a reason, but not again and again."""
    for _ in range(30):
        async with _called(changed, turns=30) as task:
            if not task.done():
                return
    pytest.fail("it does not wait: it returns again and again, and nothing has changed")


class WatchingContract:
    """Who watches a run misses no change of it, and waits while there is none, but for a return in vain."""

    @_EACH
    async def test_a_change_before_the_first_call_is_not_missed(self, store: VersionStore, change: _Change) -> None:
        """Whatever was done after it was entered, the first call returns, and then it waits."""
        run = await _to_change(store, change)
        async with store.changes("run") as changed:
            await change(run)
            await changed()
            await _quiet(changed)

    @_EACH
    async def test_a_change_while_it_waits_is_not_missed(self, store: VersionStore, change: _Change) -> None:
        """However long it has waited."""
        for turns in _TURNS:
            run = await _to_change(store, change, f"run-{turns}")
            async with store.changes(f"run-{turns}") as changed:
                await _quiet(changed)
                async with _called(changed, turns) as task:
                    in_vain = task.done()
                    await change(run)
                    await (changed() if in_vain else task)

    @_EACH
    async def test_a_change_between_two_calls_is_not_missed(self, store: VersionStore, change: _Change) -> None:
        """What happened while nobody was waiting is told at the next call."""
        run = await _to_change(store, change)
        async with store.changes("run") as changed:
            await _send(run)
            await changed()
            await _quiet(changed)
            await change(run)
            await changed()

    @pytest.mark.parametrize("first", ["call", "change"])
    async def test_a_call_that_was_cancelled_takes_no_change_with_it(self, store: VersionStore, first: str) -> None:
        """A call that has not returned has told nothing: the next one does."""
        for turns in _TURNS:
            run = await _to_change(store, _send, f"run-{turns}")
            async with store.changes(f"run-{turns}") as changed:
                await _quiet(changed)
                if first == "change":
                    await _send(run)
                async with _called(changed, turns) as task:
                    if first == "call" and not task.done():
                        await _send(run)
                        await _turns(turns)
                if task.cancelled():
                    await changed()

    async def test_all_who_watch_a_run_are_told(self, store: VersionStore) -> None:
        """Each has its own watch: one that has left, or was told before, takes nothing from the others."""
        run = await _to_change(store, _send)
        async with AsyncExitStack() as stack:
            watches = [await stack.enter_async_context(store.changes("run")) for _ in range(4)]
            async with store.changes("run") as left:
                await _send(run)
                await left()
            for changed in watches:
                await changed()
                await _quiet(changed)
            await _send(run)
            for changed in watches:
                await changed()

    @pytest.mark.parametrize("run_id", ["none", "", "run@0", "RUN", "ru", "run%", "run\0", "r" * 5000])
    async def test_an_unknown_run_is_not_watched(self, store: VersionStore, run_id: str) -> None:
        """Whoever wants to watch a run that is not there is told which."""
        await owned(store)
        with pytest.raises(UnknownRun) as caught:
            async with store.changes(run_id):
                pass
        assert caught.value.run_id == run_id

    async def test_who_follows_a_run_sees_all_of_it(self, store: VersionStore) -> None:
        """It reads, and waits, by turns: every version is seen, and the end, however fast they come."""
        runs = {run_id: await owned(store, run_id, length=60) for run_id in ("run", "run.", "Run")}

        async def follow(run_id: str) -> list[int]:
            seen = list[int]()
            async with store.changes(run_id) as changed:
                while (await store.read(run_id)).status == "running":
                    seen += [version.seq for version in await store.versions(run_id, len(seen))]
                    await changed()
            return seen + [version.seq for version in await store.versions(run_id, len(seen))]

        async def work(run: Owned) -> None:
            for seq in range(1, 60):
                await run.append(seq, seq + 1)
                await _turns(seq % 7)
            await store.release(run.lease, "completed")

        followers = asyncio.gather(*(follow(run_id) for run_id in (*runs, *runs)))
        await asyncio.gather(*map(work, runs.values()))
        assert await followers == [list(range(60))] * 6

    async def test_a_watch_that_is_left_while_it_waits_is_over(self, store: VersionStore) -> None:
        """Whoever watches is cancelled, and the store goes on; so does who watches after that."""
        run = await _to_change(store, _send)
        for turns in _TURNS:

            async def watch() -> None:
                async with store.changes("run") as changed:
                    while True:
                        await changed()

            async with _called(watch, turns):
                await _send(run)
            async with store.changes("run") as changed:
                await _send(run)
                await changed()
        assert len(await store.signals("run")) == 2 * len(_TURNS)
