"""What it costs a SqliteStore to begin runs, and what becomes of those that cannot begin."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flowneer_async import Lease, StoreFailed, UnknownRun
from flowneer_async.testing.chains import counting, new_run
from flowneer_stores import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "runs.db") as store:
        yield store


async def traced(store: SqliteStore) -> set[str]:
    """The statements that write, from here on: each is a transaction of its own."""
    statements: set[str] = set()
    db = store._open.db
    # A set, for what a trigger does is reported as its whole statement once more.
    await db.set_trace_callback(lambda sql: "FROM (VALUES" in sql and statements.add(sql))
    return statements


async def test_a_run_begins_in_one_transaction(store: SqliteStore) -> None:
    """The run and its root are one statement."""
    statements = await traced(store)
    await store.create(new_run(), counting("run", 1))
    assert len(statements) == 1


async def test_runs_that_begin_together_share_transactions(store: SqliteStore) -> None:
    """200 runs with their roots are stored in a few statements, as 200 versions are."""
    statements = await traced(store)
    ids = [f"run-{number}" for number in range(200)]
    leases = await asyncio.gather(*(store.create(new_run(run_id), counting(run_id, 1)) for run_id in ids))
    assert leases == [Lease(run_id, 1) for run_id in ids]
    assert len(statements) <= 6


async def test_taken_ids_cost_the_others_nothing(store: SqliteStore) -> None:
    """Runs that begin again, as after a restart, do not make a transaction fail."""
    ids = [f"run-{number}" for number in range(100)]
    for run_id in ids[::2]:
        await store.create(new_run(run_id), counting(run_id, 2))
    statements = await traced(store)
    leases = await asyncio.gather(*(store.create(new_run(run_id), counting(run_id, 2)) for run_id in ids))
    assert [lease is None for lease in leases] == [True, False] * 50
    assert len(statements) <= 6
    assert [len(await store.versions(run_id)) for run_id in ids] == [2] * 100


@pytest.mark.parametrize("bad", [0, 1, 2], ids=["the root", "in the middle", "the last"])
@pytest.mark.parametrize("field", ["path", "body"])
async def test_what_cannot_be_stored_fails_alone_and_as_a_whole(store: SqliteStore, bad: int, field: str) -> None:
    """A version that SQLite refuses, refused before or in the midst of the statement, leaves nothing of its run."""
    chains = [counting(f"run-{number}", 3) for number in range(20)]
    chains[7][bad] = chains[7][bad]._replace(**{field: "\ud800" if field == "path" else "no bytes"})
    done = await asyncio.gather(
        *(store.create(new_run(f"run-{number}"), chain) for number, chain in enumerate(chains)),
        return_exceptions=True,
    )
    assert [number for number, each in enumerate(done) if not isinstance(each, Lease)] == [7]
    assert isinstance(done[7], StoreFailed)
    with pytest.raises(UnknownRun):
        await store.read("run-7")
    del chains[7]
    assert [await store.versions(chain[0].run_id) for chain in chains] == chains


async def test_a_payload_that_is_no_bytes_is_refused(store: SqliteStore) -> None:
    """What comes out of a store is what its type says: a text is not kept as a payload."""
    await store.create(new_run())
    with pytest.raises(StoreFailed, match="BLOB"):
        await store.send("run", "go", "1")  # type: ignore[arg-type]
    assert list(await store.signals("run")) == []
