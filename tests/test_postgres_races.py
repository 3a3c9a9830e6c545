"""Many processes at one PostgreSQL database: whatever comes between the parts of a statement, one owner writes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from flowneer_async import Fenced, Lease, RunBusy, UnknownRun, VersionConflict
from flowneer_async.testing.chains import Owned, counting, new_run, owned
from flowneer_stores import PostgresStore
from tests.support.places import lapse
from tests.support.postgres import schema_of, server, store_at

Write: TypeAlias = Callable[[PostgresStore, Owned], Coroutine[Any, Any, object]]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Any, None]:
    """A connection of our own, to the tables of this test."""
    connection = await asyncpg.connect(server().dsn, server_settings={"search_path": schema_of(tmp_path)})
    yield connection
    await connection.close()


async def until_blocked(database: Any, number: int = 1) -> None:
    """Wait until so many statements of stores wait for a lock, which this connection holds or one that waits for it."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
    while await database.fetchval(query) < number:
        await asyncio.sleep(0.001)


async def ended(run: Owned) -> Owned:
    await run.store.release(run.lease, "failed")
    return run


@pytest.mark.parametrize("length", [1, 2])
async def test_a_claim_between_what_an_append_reads_and_its_commit_is_not_overlooked(
    tmp_path: Path, database: Any, length: int
) -> None:
    """An append that began before a take-over, and waited for it, writes nothing."""
    async with store_at(tmp_path) as store:
        run, other = await owned(store), await owned(store, "other")
        async with database.transaction():
            await database.execute("UPDATE flowneer_runs SET epoch = epoch + 1, owner = 'x' WHERE run_id = 'run'")
            appends = [asyncio.create_task(each.append(1, 1 + length)) for each in (run, other)]
            await until_blocked(database)
        done = await asyncio.gather(*appends, return_exceptions=True)
        assert [type(each) for each in done] == [Fenced, type(None)]
        assert list(await store.versions("run")) == run.versions[:1]
        assert list(await store.versions("other")) == other.versions[: 1 + length]


async def test_no_claim_is_made_while_an_append_is_committed(tmp_path: Path, database: Any) -> None:
    """A take-over waits for an append of the old owner, and then goes on after it."""
    async with store_at(tmp_path) as store, store_at(tmp_path) as second:
        run = await owned(store)
        await lapse((server().dsn, schema_of(tmp_path)))
        read = await second.read("run")
        async with database.transaction():
            await database.execute("SELECT FROM flowneer_runs WHERE run_id = 'run' FOR SHARE")
            claim = asyncio.create_task(second.claim(read))
            await until_blocked(database)
            # Others than the one that waits append at the same time: so does the old owner, until it is over.
            await run.append(1, 2)
        lease = await claim
        with pytest.raises(Fenced):
            await run.append(2, 3)
        with pytest.raises(VersionConflict):
            await second.append(lease, run.versions[1:2])
        await second.append(lease, run.versions[2:3])


async def test_a_renewed_lease_does_not_lose_a_claim_that_was_about_to_be_made(tmp_path: Path, database: Any) -> None:
    """Who claims a lease that had lapsed, and is renewed in that moment, is told that the run is busy."""
    async with store_at(tmp_path) as store, store_at(tmp_path) as second:
        run = await owned(store)
        await lapse((server().dsn, schema_of(tmp_path)))
        read = await second.read("run")
        async with database.transaction():
            await database.execute("UPDATE flowneer_runs SET lease_until = 1::bigint << 60")
            claim = asyncio.create_task(second.claim(read))
            await until_blocked(database)
        with pytest.raises(RunBusy):
            await claim
        await run.append(1, 2)


async def test_a_signal_that_waited_has_a_number_of_its_own(tmp_path: Path, database: Any) -> None:
    """However many processes send at once, each signal of a run has its number, and no number is left out."""
    async with store_at(tmp_path) as store, store_at(tmp_path) as second:
        await owned(store)
        async with database.transaction():
            await database.execute("SELECT FROM flowneer_runs WHERE run_id = 'run' FOR UPDATE")
            sends = [asyncio.create_task(each.send("run", "go", b"1")) for each in (store, second)]
            await until_blocked(database, 2)
        await asyncio.gather(*sends, *(each.send("run", "on", b"2") for each in (store, second) * 5))
        assert [signal.number for signal in await store.signals("run")] == list(range(1, 13))


async def test_a_run_that_is_stored_while_another_of_its_id_is_purged_begins_above_it(
    tmp_path: Path, database: Any
) -> None:
    """It waits for the purge, though it began before: no lease of the old run is good for the new one."""
    async with store_at(tmp_path) as store, store_at(tmp_path) as second:
        run = await ended(await owned(store))
        old = await store.claim(await store.read("run"))
        await store.release(old, "failed")
        async with database.transaction():
            # What purge.sql does, in the same order.
            await database.execute("SELECT FROM flowneer_schema FOR UPDATE")
            await database.execute("SELECT FROM flowneer_runs WHERE run_id = 'run' FOR UPDATE")
            create = asyncio.create_task(second.create(new_run()))
            await until_blocked(database)
            epoch = await database.fetchval("DELETE FROM flowneer_runs WHERE run_id = 'run' RETURNING epoch")
            await database.execute("UPDATE flowneer_schema SET epoch = $1", epoch)
        lease = await create
        assert lease is not None
        assert lease.epoch > epoch
        for lost in (run.lease, old):
            with pytest.raises(Fenced):
                await store.append(lost, run.versions[:1])


@pytest.mark.parametrize("meanwhile", ["versions", "signals"])
async def test_a_purge_leaves_nothing_that_came_while_it_waited(tmp_path: Path, database: Any, meanwhile: str) -> None:
    """Not even what was committed after the purge began."""
    async with store_at(tmp_path) as store:
        await ended(await owned(store, stored=2))
        await store.send("run", "go", b"1")
        async with database.transaction():
            await database.execute("SELECT FROM flowneer_runs FOR UPDATE")
            purge = asyncio.create_task(store.purge("run"))
            await until_blocked(database)
            if meanwhile == "versions":
                await database.execute(
                    "INSERT INTO flowneer_versions SELECT run, 2, base, fork_of, step_index, path, timestamp, body, "
                    "parent_digest, digest FROM flowneer_versions WHERE seq = 1"
                )
            else:
                await database.execute(
                    "INSERT INTO flowneer_signals SELECT run, 2, name, payload, sent, 7 FROM flowneer_signals"
                )
        await purge
        assert await database.fetchval(f"SELECT count(*) FROM flowneer_{meanwhile}") == 0
        with pytest.raises(UnknownRun):
            await store.read("run")


IDS = [f"run-{number}" for number in range(8)]


async def claim(store: PostgresStore, run: Owned) -> object:
    return await store.claim(await store.read(run.lease.run_id))


async def send(store: PostgresStore, run: Owned) -> object:
    return await store.send(run.lease.run_id, "go", b"1")


async def release(store: PostgresStore, run: Owned) -> object:
    return await store.release(run.lease, "failed")


async def drop(store: PostgresStore, run: Owned) -> object:
    return await store.drop(run.lease.run_id, 1)


async def append(store: PostgresStore, run: Owned) -> object:
    return await store.append(run.lease, run.versions[1:3])


async def purge(store: PostgresStore, run: Owned) -> object:
    return await store.purge(run.lease.run_id)


@pytest.mark.parametrize(
    ("write", "other"),
    [(claim, claim), (send, send), (release, release), (drop, drop), (append, append), (send, append), (purge, purge)],
)
async def test_two_stores_that_write_many_runs_at_once_never_wait_for_each_other(
    tmp_path: Path, database: Any, write: Write, other: Write
) -> None:
    """Statements over many rows lock them in one order, whichever order they were asked in: there is no deadlock."""
    before = await deadlocks(database)
    async with store_at(tmp_path) as store, store_at(tmp_path) as second:
        runs = [await owned(store, run_id) for run_id in IDS]
        if write in (claim, purge):
            for run in runs:
                await store.release(run.lease, "failed")
        done = await both(
            store,
            second,
            [write(store, run) for run in runs],
            [other(second, run) for run in reversed(runs)],
            "SELECT FROM {schema}.flowneer_runs WHERE run_id = ANY($1) FOR UPDATE",
        )
    assert {type(each) for each in done if isinstance(each, BaseException)} <= {RunBusy, VersionConflict, UnknownRun}
    assert await deadlocks(database) == before


@pytest.mark.parametrize("length", [0, 2])
async def test_two_stores_that_create_the_same_runs_never_wait_for_each_other(
    tmp_path: Path, database: Any, length: int
) -> None:
    """In opposite orders, with and without versions: each run has one owner."""
    before = await deadlocks(database)
    async with store_at(tmp_path) as store, store_at(tmp_path) as second:
        await owned(store, "seed")
        runs = [(new_run(run_id), counting(run_id, length)) for run_id in IDS]
        leases = await both(
            store,
            second,
            [store.create(*run) for run in runs],
            [second.create(*run) for run in reversed(runs)],
            "INSERT INTO {schema}.flowneer_runs (run_id, flow, state_type, steps, status, epoch, ticket, lease_until, "
            "created, updated, first, tags, seal) SELECT each, flow, state_type, steps, status, epoch, ticket, "
            "lease_until, created, updated, first, tags, seal "
            "FROM {schema}.flowneer_runs, unnest($1::text[]) AS each WHERE run_id = 'seed'",
        )
        assert sorted(lease.run_id for lease in leases if isinstance(lease, Lease)) == IDS
        for run_id in IDS:
            assert len(await store.versions(run_id)) == length
    assert await deadlocks(database) == before


async def both(
    store: PostgresStore,
    second: PostgresStore,
    writes: list[Coroutine[Any, Any, object]],
    others: list[Coroutine[Any, Any, object]],
    lock: str,
) -> list[object]:
    """Let both stores do their writes as one statement each, which meet in the middle.

    What is asked for first is done alone. It is kept waiting until all else is there; that is kept waiting at the run
    in the middle, until both statements have locked what comes before it.
    """
    lock = lock.replace("{schema}", store._database.schema)
    rest, middle = [await asyncpg.connect(server().dsn) for _ in range(2)]
    at_the_rest, in_the_middle = rest.transaction(), middle.transaction()
    try:
        await at_the_rest.start()
        await rest.execute(lock, [run_id for run_id in IDS if run_id != IDS[4]])
        await in_the_middle.start()
        await middle.execute(lock, [IDS[4]])
        tasks = [asyncio.ensure_future(each) for each in (*writes, *others)]
        for each in (store, second):
            assert each._opened is not None
            while each._opened.writer._queued < len(IDS) - 1:
                await asyncio.sleep(0)
        await at_the_rest.rollback()
        await until_blocked(middle, 2)
        await in_the_middle.rollback()
        return await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await rest.close()
        await middle.close()


async def deadlocks(database: Any) -> int:
    """How many there have been, when all others have told what they know: they do when they end."""
    while await database.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flowneer'"):
        await asyncio.sleep(0.001)
    return int(await database.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))


async def test_a_cancelled_write_is_undone_when_the_cancellation_is_raised(tmp_path: Path, database: Any) -> None:
    """A statement that waits for a lock is taken back: nothing of it comes later, and the same lease goes on."""
    async with store_at(tmp_path) as store:
        run = await owned(store)
        async with database.transaction():
            await database.execute("SELECT FROM flowneer_runs FOR UPDATE")
            append = asyncio.create_task(run.append(1, 3))
            await until_blocked(database)
            append.cancel()
            with pytest.raises(asyncio.CancelledError):
                await append
        assert list(await store.versions("run")) == run.versions[:1]
        await run.append(1, 4)


async def test_the_clock_of_the_database_decides(
    tmp_path: Path, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this process takes the time for, a lease lasts until the database says that it is over."""
    monkeypatch.setattr("time.time", lambda: 1e12)
    monkeypatch.setattr("time.time_ns", lambda: 10**21)
    async with store_at(tmp_path, lease=50.0) as store, store_at(tmp_path) as second:
        await owned(store)
        now = await database.fetchval("SELECT extract(epoch FROM now()) * 1000")
        until = await database.fetchval("SELECT lease_until FROM flowneer_runs")
        assert 0 < until - now < 51_000
        with pytest.raises(RunBusy):
            await second.claim(await second.read("run"))
        await store.send("run", "go", b"1")
        (signal,) = await store.signals("run")
        assert abs(signal.sent - float(now)) < 50_000
        await database.execute("UPDATE flowneer_runs SET lease_until = extract(epoch FROM clock_timestamp()) * 1000")
        assert (await second.claim(await second.read("run"))).epoch == 2
        assert abs((await second.read("run")).updated - float(now)) < 50_000
