"""The tables of a PostgreSQL store: where they are, how they come to be, and who may open them."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import trio

from flowneer_async import (
    BadName,
    BadOption,
    ExtraMissing,
    Run,
    SchemaTooNew,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreFull,
)
from flowneer_async.testing.chains import new_run, owned
from flowneer_stores import PostgresStore
from flowneer_stores.postgres import queries
from flowneer_stores.postgres.translate import translated
from tests.support.postgres import ROOT, own_server, schema_of, server, store_at

OPENER = """
import asyncio, sys
from flowneer_async.versions import Run
from flowneer_stores import PostgresStore

async def main(dsn, schema, run_id):
    print("ready", flush=True)
    sys.stdin.readline()
    async with PostgresStore(dsn, schema=schema) as store:
        assert await store.create(Run(run_id, "flow", "dict", ())) is not None

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Any, None]:
    """A connection of our own, to the tables of this test."""
    connection = await asyncpg.connect(server().dsn, server_settings={"search_path": schema_of(tmp_path)})
    yield connection
    await connection.close()


def in_a_process(code: str, *args: str, **env: str) -> "subprocess.Popen[str]":
    path = f"{ROOT}{os.pathsep}{ROOT / 'stores'}"
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **env},
    )


@pytest.mark.parametrize(
    "schema",
    ["", "a b", "a-b", 'a"b', "a.b", "ü", "1a", "a;b", "pg_catalog", "pg_x", "a" * 64, "a\n", "$user", "{schema}"],
)
def test_a_name_that_is_no_plain_word_is_no_schema(schema: str) -> None:
    """It would be a part of statements; the error says what a name looks like."""
    with pytest.raises(BadName, match="schema"):
        PostgresStore("postgresql://localhost/x", schema=schema)


@pytest.mark.parametrize("schema", ["select", "Runs", "_", "a" * 63, "public"])
async def test_any_plain_word_is_a_schema(schema: str) -> None:
    """Also one that means something in SQL, or has capital letters, or is as long as can be."""
    async with PostgresStore(server().dsn, schema=schema) as store:
        run = await owned(store)
        assert list(await store.versions("run")) == run.versions[:1]
        await store.release(run.lease, "completed")
        await store.purge("run")
    connection = await asyncpg.connect(server().dsn)
    try:
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename LIKE 'flowneer_%'", schema
            )
            == 4
        )
        if schema == "public":
            await connection.execute(
                "DROP TABLE flowneer_runs, flowneer_versions, flowneer_signals, flowneer_schema; "
                "DROP FUNCTION flowneer_forget"
            )
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("option", "value"), [("timeout", 0), ("lease", 0), ("lease", -1), ("readers", 0), ("writers", 0)]
)
def test_options_that_make_no_sense_are_named(option: str, value: float) -> None:
    """When the store is made, not when it is used."""
    with pytest.raises(BadOption, match=option):
        PostgresStore("postgresql://localhost/x", **{option: value})  # type: ignore[arg-type]


def test_processes_that_open_a_new_database_at_once_all_succeed(tmp_path: Path) -> None:
    """The tables are made once, by one of them; the others wait, and find them."""
    openers = [in_a_process(OPENER, server().dsn, schema_of(tmp_path), f"run-{number}") for number in range(4)]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    for opener in openers:
        assert opener.communicate(timeout=60)[0] == ""
        assert opener.returncode == 0


async def test_stores_that_open_a_new_database_at_once_all_succeed(tmp_path: Path) -> None:
    """Many in one process, too: no error of one that came second is shown."""
    stores = [store_at(tmp_path) for _ in range(8)]
    await asyncio.gather(*(store.__aenter__() for store in stores))
    leases = await asyncio.gather(*(store.create(new_run()) for store in stores))
    assert sum(lease is not None for lease in leases) == 1
    for store in stores:
        await store.__aexit__(None, None, None)


async def test_tables_of_a_newer_release_are_refused(tmp_path: Path, database: Any) -> None:
    """Neither opened nor changed; the error gives both numbers."""
    known = len(queries.MIGRATIONS)
    async with store_at(tmp_path):
        pass
    await database.execute("UPDATE flowneer_schema SET version = 999")
    with pytest.raises(SchemaTooNew, match=f"999.*{known}"):
        await store_at(tmp_path).__aenter__()
    assert await database.fetchval("SELECT version FROM flowneer_schema") == 999


async def test_a_migration_that_fails_leaves_nothing_behind(
    tmp_path: Path, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-made tables are no tables: the next one to open makes them all."""
    monkeypatch.setattr(queries, "MIGRATIONS", (*queries.MIGRATIONS, "SELECT 1 / 0"))
    with pytest.raises(StoreFailed, match="22012"):
        await store_at(tmp_path).__aenter__()
    assert await database.fetchval("SELECT to_regclass('flowneer_runs')") is None
    monkeypatch.undo()
    async with store_at(tmp_path) as store:
        await owned(store)


async def test_who_may_not_make_a_schema_may_use_one(tmp_path: Path, database: Any) -> None:
    """Where the schema is there, no right to make one is needed; where it is not, the server's own code is shown."""
    schema, user = schema_of(tmp_path), f"user_{schema_of(tmp_path)}"
    dsn = own_server().dsn.replace("postgres@", f"{user}@")
    await database.execute(f"CREATE ROLE {user} LOGIN")
    try:
        with pytest.raises(StoreFailed, match="42501"):
            await PostgresStore(dsn, schema=schema).__aenter__()
        await database.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {user}")
        async with PostgresStore(dsn, schema=schema) as store:
            await owned(store)
    finally:
        await database.execute(f"DROP OWNED BY {user} CASCADE")
        await database.execute(f"DROP ROLE {user}")


@pytest.mark.parametrize("dsn", ["nonsense", "http://localhost/x", "postgresql://postgres@/none?host={host}"])
async def test_a_dsn_that_leads_nowhere_is_told_at_once(dsn: str, tmp_path: Path) -> None:
    """What does not pass is not waited for."""
    with pytest.raises(StoreFailed):
        await PostgresStore(dsn.format(host=own_server().folder)).__aenter__()


async def test_no_error_shows_the_password(tmp_path: Path) -> None:
    """A place is a host, a database and a schema."""
    dsn = own_server().dsn.replace("postgres@/postgres", "postgres:hunter2@/none")
    with pytest.raises(StoreFailed) as caught:
        await PostgresStore(dsn).__aenter__()
    assert "hunter2" not in f"{caught.value!r} {caught.value} {caught.value.__dict__}"
    assert "/none" in str(caught.value)


async def test_no_error_shows_a_dsn_that_is_none() -> None:
    """What is written in another way may have the password anywhere."""
    with pytest.raises(StoreFailed) as caught:
        async with PostgresStore("host=db password=hunter2"):
            pass
    assert "hunter2" not in str(caught.value)
    assert "DSN" in str(caught.value)


async def test_no_error_shows_what_was_to_be_stored(tmp_path: Path, database: Any) -> None:
    """Neither the server's message nor the driver's: both may hold values. Nor are they what it was raised from."""
    async with store_at(tmp_path) as store:
        run = await owned(store)
        await database.execute("ALTER TABLE flowneer_versions ADD CHECK (length(body) < 5) NOT VALID")
        with pytest.raises(StoreFailed, match="23514") as caught:
            await run.append(1, 2)
        shown: BaseException | None = caught.value
        while shown is not None:
            assert "Failing row" not in str(shown)
            assert type(shown).__module__.startswith("flowneer")
            shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
        too_great = [run.versions[1]._replace(timestamp=2**70)]
        with pytest.raises(StoreError) as caught:
            await store.append(run.lease, too_great)
        assert str(2**70) not in str(caught.value)


async def test_a_store_is_used_inside_its_block_only(tmp_path: Path) -> None:
    """Before and after it, the error says so; and it is entered once at a time."""
    store = store_at(tmp_path)
    with pytest.raises(StoreClosed):
        await store.read("run")
    async with store:
        with pytest.raises(StoreFailed, match="open already"):
            await store.__aenter__()
    with pytest.raises(StoreClosed):
        await store.create(new_run())
    async with store:
        await owned(store)


def test_under_trio_it_says_what_it_needs() -> None:
    """Not asyncpg's own error."""

    async def main() -> None:
        with pytest.raises(StoreFailed, match="asyncio"):
            await PostgresStore("postgresql://localhost/x").__aenter__()

    trio.run(main)


def test_the_package_is_imported_without_asyncpg() -> None:
    """Who does not ask for the store does not load its driver; who asks for it, and has none, is told the extra."""
    code = """
    import sys
    import flowneer_stores
    assert "asyncpg" not in sys.modules
    assert "PostgresStore" in flowneer_stores.__all__
    from flowneer_stores import PostgresStore
    assert "asyncpg" in sys.modules
    """
    process = in_a_process(code)
    assert process.communicate(timeout=60)[0] == ""
    process = in_a_process("import sys; sys.modules['asyncpg'] = None; from flowneer_stores import PostgresStore")
    assert (
        process.communicate(timeout=60)[0]
        .strip()
        .endswith("ExtraMissing: PostgresStore needs the extra 'postgres': pip install 'flowneer-async[postgres]'")
    )
    assert issubclass(ExtraMissing, StoreError)


class _ServerError(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


def test_a_full_disk_is_named() -> None:
    """The server's code for it is that of our own error."""
    assert isinstance(translated(_ServerError("53100"), "place", "writing", 1.0), StoreFull)


async def test_a_closed_store_leaves_no_lease_and_no_session(tmp_path: Path, database: Any) -> None:
    """Whoever comes next has every run at once."""
    async with store_at(tmp_path) as store:
        await owned(store)
        async with store.changes("run"):
            pass
    assert await database.fetchval("SELECT owner FROM flowneer_runs") is None
    while await database.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flowneer'"):
        await asyncio.sleep(0.001)
    async with store_at(tmp_path) as store:
        await store.claim(await store.read("run"))


async def test_compacting_gives_back_what_was_purged(tmp_path: Path, database: Any) -> None:
    """What is stored next takes the place of it: the tables grow no further."""
    async with store_at(tmp_path) as store:

        async def stored_and_purged() -> int:
            for number in range(20):
                run = await owned(store, f"run-{number}", length=20, stored=20)
                await store.release(run.lease, "completed")
                await store.purge(f"run-{number}")
            await store.compact()
            return int(await database.fetchval("SELECT pg_relation_size('flowneer_versions')"))

        first = await stored_and_purged()
        assert max([await stored_and_purged() for _ in range(3)]) <= first
        assert await store.create(Run("run", "flow", "dict", ())) is not None
