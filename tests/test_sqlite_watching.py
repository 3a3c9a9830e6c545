"""Those who watch runs of one file look together."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import StoreClosed, StoreError, StoreFailed
from flowneer_async.testing.chains import Owned, owned
from flowneer_stores import SqliteStore
from flowneer_stores.rows import Row
from flowneer_stores.sqlite import queries

VERSION = "PRAGMA data_version"


class Asked(SqliteStore):
    """A store that counts what it asks the file, and looks again when it is told to."""

    def __init__(self, path: Path) -> None:
        self.asked = Counter[str]()
        self.failing: StoreError | None = None
        self._sleepers: list[asyncio.Event] = []
        super().__init__(path, sleep=self._sleep_until_told)

    async def look_again(self) -> None:
        """Let whoever sleeps between two looks do the next one, and wait until all know what was seen."""
        self.asked.clear()
        self.go_on()
        while not self._sleepers:
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)

    def go_on(self) -> None:
        """Let whoever sleeps do the next look."""
        sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            sleeper.set()

    async def _sleep_until_told(self, seconds: float) -> None:
        told = asyncio.Event()
        if seconds < 1:  # else it is the heartbeat of the leases
            self._sleepers.append(told)
        await told.wait()

    async def _fetch(self, question: str, *parameters: Any) -> Sequence[Row]:
        self.asked[question] += 1
        if self.failing is not None and question == VERSION:
            raise self.failing
        return await super()._fetch(question, *parameters)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Asked, None]:
    async with Asked(tmp_path / "runs.db") as store:
        yield store


@asynccontextmanager
async def watchers(
    store: Asked, runs: Sequence[Owned], each: int = 1
) -> AsyncGenerator[list[asyncio.Task[None]], None]:
    """So many that wait for a change of each run; all have looked, and found none."""
    async with AsyncExitStack() as stack:
        calls: list[Callable[[], Awaitable[None]]] = []
        for run in runs:
            calls += [await stack.enter_async_context(store.changes(run.lease.run_id)) for _ in range(each)]
        tasks = [asyncio.ensure_future(call()) for call in calls]
        await asyncio.sleep(0)
        await store.look_again()
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_look_costs_the_same_however_many_watch(store: Asked) -> None:
    runs = [await owned(store, f"run-{number}") for number in range(50)]
    async with watchers(store, runs, 20) as tasks:
        await store.look_again()
        assert store.asked == {VERSION: 1}
        await store.send("run-7", "go", b"1")
        await store.look_again()
        assert store.asked == {VERSION: 1, queries.MARKS: 1}
        assert [task.done() for task in tasks] == [number // 20 == 7 for number in range(1000)]


async def test_a_change_of_one_run_wakes_nobody_who_watches_another(store: Asked) -> None:
    runs = [await owned(store, run_id, length=60) for run_id in ("run", "other")]
    async with watchers(store, runs) as (told, quiet):
        await runs[0].append(1, 60)
        await owned(store, "new")
        await store.look_again()
        assert (told.done(), quiet.done()) == (True, False)


async def test_who_watches_alone_looks_at_once(store: Asked) -> None:
    run = await owned(store)
    async with store.changes("run") as changed:
        for number in range(1, 5):
            await run.append(number, number + 1)
            await changed()


async def test_who_comes_when_all_others_have_looked_misses_nothing(store: Asked) -> None:
    runs = [await owned(store, run_id) for run_id in ("run", "other")]
    async with store.changes("run") as changed, watchers(store, runs[1:]):
        await runs[0].append(1, 2)
        await store.look_again()
        late = asyncio.ensure_future(changed())
        await asyncio.sleep(0)
        assert not late.done()
        await store.look_again()
        await late


async def test_a_look_that_fails_is_told_to_all_and_the_next_call_looks_anew(store: Asked) -> None:
    runs = [await owned(store)]
    async with watchers(store, runs, 3) as tasks:
        store.failing = StoreFailed("here", "reading", "for a test")
        store.go_on()
        for task in tasks:
            with pytest.raises(StoreFailed, match="for a test"):
                await task
        store.failing = None
        async with store.changes("run") as changed:
            await runs[0].append(1, 2)
            await changed()


async def test_a_store_that_closes_leaves_nobody_waiting(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with Asked(tmp_path / "runs.db") as store:
        runs = [await owned(store)]
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(watchers(store, runs, 3))
            await store.__aexit__(None, None, None)
            for task in tasks:
                with pytest.raises(StoreClosed):
                    await task
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == before
        await store.__aenter__()
