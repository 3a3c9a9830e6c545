"""Tables of earlier releases, which are brought to the schema of this one when they are opened.

`data/postgres-N.sql` is what a release of schema N stored: a finished run, a fork, one that failed, one that waits and
has a signal, and one whose owner died.
"""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from flowneer_async import FlowBuilder, StoreFailed
from flowneer_async.store import Due
from flowneer_async.testing.chains import chain_of, new_run, owned
from flowneer_stores import PostgresStore
from flowneer_stores.postgres import queries
from tests.support.chains import stored_states
from tests.support.postgres import schema_of, server, store_at

DUMP = Path(__file__).parent / "data" / "postgres-1.sql"
STATES = [{"text": "hello", "n": 0}, {"text": "hello, wörld", "n": 0}, {"text": "hello, wörld", "n": 1}]
DUE = Due(frozenset({"greeting", "waiting"}))

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name, is_generated,
       replace(generation_expression, $1, '')
FROM information_schema.columns WHERE table_schema = $1
ORDER BY table_name, ordinal_position
"""
INDEXES = "SELECT replace(indexdef, $1 || '.', '') FROM pg_indexes WHERE schemaname = $1 ORDER BY indexname"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Any, None]:
    """A connection of our own, to the tables that an earlier release has left in the schema of this test."""
    connection = await asyncpg.connect(server().dsn)
    await connection.execute(DUMP.read_text("utf-8").replace("{schema}", schema_of(tmp_path)))
    await connection.execute(f"SET search_path = {schema_of(tmp_path)}")
    yield connection
    await connection.close()


async def check_first(store: PostgresStore) -> None:
    assert await stored_states(store, "done") == STATES
    assert await stored_states(store, "failed") == STATES[:2]
    assert (await store.read("failed")).error == "step 'count' of run 'failed' failed with ValueError"
    assert (await store.read("fork")).fork_of == "done@1"
    assert [run.run_id for run in (await store.runs(tags={"team": "b"})).runs] == ["failed"]


async def test_what_an_earlier_release_stored_is_kept(tmp_path: Path, database: Any) -> None:
    for _ in range(2):
        async with store_at(tmp_path) as store:
            await check_first(store)
    assert await database.fetchval("SELECT version FROM flowneer_schema") == len(queries.MIGRATIONS)


async def test_runs_of_an_earlier_release_began_when_they_were_created(tmp_path: Path, database: Any) -> None:
    async with store_at(tmp_path) as store:
        async for run in store.every_run():
            assert (run.begun, run.priority, run.key) == (run.created, 0, "")
            assert (run.recoveries, run.cancelling, run.wake is None) == (0, False, run.status != "waiting")


async def test_an_engine_goes_on_with_what_an_earlier_release_left(tmp_path: Path, database: Any) -> None:
    async with store_at(tmp_path) as store:
        runs = await store.due(DUE, 10)
        assert [run.run_id for run in runs] == ["left", "waiting"]
        for run in runs:
            await store.release(await store.claim(run), "waiting")
        assert list(await store.due(DUE, 10)) == []
        assert (await store.read("left")).recoveries == 1


async def test_runs_of_an_earlier_release_can_do_all_that_new_ones_can(tmp_path: Path, database: Any) -> None:
    async with store_at(tmp_path) as store:
        lease = await store.claim(await store.read("failed"))
        (*_, last) = chain_of("failed", [b"", b"", b""])
        await store.append(lease, [last])
        assert await store.ask_cancel("failed") is True
        assert (await store.send("waiting", "go", b"1")).number == 2
        assert await store.create(new_run(), chain_of("run", [b"", b""])) is not None
        await store.purge("done")

        def count(state: dict[str, Any]) -> None:
            state["n"] += 1

        flow = FlowBuilder("waiting").start_with(lambda _: None, name="greet").wait_for("go").then(count)
        result = await flow.with_versioned_checkpoint(store).run(run_id="waiting")
        assert result.state == STATES[-1]


async def test_earlier_tables_become_those_of_a_new_database(tmp_path: Path, database: Any) -> None:
    new = tmp_path / "new"
    for folder in (tmp_path, new):
        async with store_at(folder):
            pass
    for question in (COLUMNS, INDEXES):
        assert await database.fetch(question, schema_of(tmp_path)) == await database.fetch(question, schema_of(new))


async def test_a_migration_is_done_as_a_whole_or_not_at_all(tmp_path: Path, database: Any) -> None:
    await database.execute("CREATE VIEW flowneer_runs_due AS SELECT 7")
    with pytest.raises(StoreFailed, match="42P07"):
        await store_at(tmp_path).__aenter__()
    assert await database.fetchval("SELECT version FROM flowneer_schema") == 1
    await database.execute("DROP VIEW flowneer_runs_due")
    async with store_at(tmp_path) as store:
        await check_first(store)


async def test_of_stores_that_open_earlier_tables_one_migrates_them(tmp_path: Path, database: Any) -> None:
    async def use(number: int) -> None:
        async with store_at(tmp_path) as store:
            await check_first(store)
            await owned(store, f"run-{number}")

    await asyncio.gather(*map(use, range(4)))
    assert await database.fetchval("SELECT count(*) FROM flowneer_runs") == 9
