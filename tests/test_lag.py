"""For how long the oldest write of a store has been waiting."""

import asyncio
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

from flowneer_async.testing.chains import new_run
from flowneer_async.testing.crashes import CrashingStore
from flowneer_stores import LimitedStore, MemoryStore, SqliteStore


async def test_a_store_that_has_nothing_to_write_does_not_lag(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    assert store.lag == 0
    async with store:
        await store.create(new_run())
        assert store.lag == 0
    assert store.lag == 0


async def test_what_waits_in_memory_is_nothing() -> None:
    for store in (MemoryStore(), LimitedStore(MemoryStore()), LimitedStore(CrashingStore(MemoryStore()))):
        await store.create(new_run())
        assert store.lag == 0


async def test_a_store_lags_as_long_as_its_oldest_write_waits(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SqliteStore(path, timeout=60) as store:
        with closing(connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writes = [asyncio.ensure_future(store.create(new_run("run-0")))]
            await asyncio.sleep(0)
            first = store.lag
            writes += [asyncio.ensure_future(store.create(new_run(f"run-{number}"))) for number in range(1, 9)]
            while store.lag == first:
                await asyncio.sleep(0)
            before = store.lag
            assert LimitedStore(store).lag >= before > first
            other.execute("COMMIT")
        await asyncio.gather(*writes)
        assert store.lag == 0


async def test_a_write_that_is_given_up_waits_no_more(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SqliteStore(path, timeout=60) as store:
        with closing(connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            write = asyncio.ensure_future(store.create(new_run()))
            while not store.lag:
                await asyncio.sleep(0)
            write.cancel()
            other.execute("COMMIT")
        await asyncio.wait({write})
        assert store.lag == 0
