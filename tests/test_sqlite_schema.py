"""Files of earlier releases, which are brought to the schema of this one when they are opened.

`data/schema-N.sql` is what a release of schema N stored, as SQLite's own dump: a finished run and one that failed; from
schema 2 on also a fork, and a run that waits and has a signal; from schema 3 on also tags, and a run whose owner died.
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import FlowBuilder, SchemaTooNew, StoreFailed
from flowneer_async.store import Due
from flowneer_async.testing.chains import chain_of, new_run
from flowneer_stores import SqliteStore
from tests.support.chains import stored_states

DATA = Path(__file__).parent / "data"
FIRST = [{"text": "hello", "n": 0}, {"text": "hello, wörld", "n": 0}, {"text": "hello, wörld", "n": 1}]


@pytest.fixture(params=[1, 2, 3])
def earlier(request: pytest.FixtureRequest) -> int:
    """The schema of an earlier release."""
    return request.param


@pytest.fixture
def path(tmp_path: Path, earlier: int) -> Path:
    """A file of that schema."""
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((DATA / f"schema-{earlier}.sql").read_text("utf-8"))
    return path


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    """What another connection sees, or does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(sql).fetchall()


def schema(path: Path) -> list[tuple[object, ...]]:
    return rows(path, "SELECT type, name, sql FROM sqlite_master ORDER BY name")


async def check_first(store: SqliteStore) -> None:
    """What the earlier release stored is there, and can be read."""
    done, failed = await store.read("done"), await store.read("failed")
    assert (done.status, done.head, done.steps) == ("completed", 2, ("greet", "count"))
    assert (failed.status, failed.head, failed.error) == (
        "failed", 1, "step 'count' of run 'failed' failed with ValueError",
    )  # fmt: skip
    assert await stored_states(store, "done") == FIRST
    assert await stored_states(store, "failed") == FIRST[:2]


async def test_what_an_earlier_release_stored_is_kept(path: Path) -> None:
    """Runs and versions stay as they are, however often the file is opened."""
    for _ in range(2):
        async with SqliteStore(path) as store:
            await check_first(store)
    assert rows(path, "SELECT version FROM flowneer_schema") == [(4,)]


@pytest.mark.parametrize("earlier", [2, 3], indirect=True)
async def test_forks_and_waiting_runs_are_kept(path: Path) -> None:
    """A fork knows what it is a fork of, and a signal that was sent is there, so that the run goes on."""

    def count(state: dict[str, Any]) -> None:
        state["n"] += 1

    def greet(state: dict[str, Any]) -> None:
        raise AssertionError("it was done before")

    async with SqliteStore(path) as store:
        assert [(await store.read(run_id)).fork_of for run_id in ("fork", "done")] == ["done@1", None]
        flow = FlowBuilder("waiting").start_with(greet).wait_for("go").then(count).with_versioned_checkpoint(store)
        result = await flow.run(run_id="waiting")
        assert (result.status, result.state) == ("completed", {"text": "hello, wörld", "n": 1})


async def test_runs_of_an_earlier_release_began_when_they_were_created(path: Path) -> None:
    """They share no limit, and none is to be cancelled."""
    async with SqliteStore(path) as store:
        async for run in store.every_run():
            assert (run.begun, run.priority, run.key) == (run.created, 0, "")
            assert (run.recoveries, run.cancelling, run.wake is None) == (0, False, run.status != "waiting")


@pytest.mark.parametrize("earlier", [3], indirect=True)
async def test_an_engine_goes_on_with_what_an_earlier_release_left(path: Path) -> None:
    """With runs whose owner died, and, to see when they are to be woken, once with those that wait."""
    async with SqliteStore(path) as store:
        due = Due(frozenset({"greeting", "waiting"}))
        runs = await store.due(due, 10)
        assert [run.run_id for run in runs] == ["left", "waiting"]
        for run in runs:
            await store.release(await store.claim(run), "waiting")
        assert list(await store.due(due, 10)) == []
        assert (await store.read("left")).recoveries == 1
        assert [run.run_id for run in (await store.runs(tags={"team": "b"})).runs] == ["failed"]


async def test_runs_of_an_earlier_release_can_do_all_that_new_ones_can(path: Path) -> None:
    """They take signals, and go on."""
    async with SqliteStore(path) as store:
        assert list(await store.signals("done")) == []
        assert [run.run_id for run in (await store.runs(status="failed")).runs] == ["failed"]
        sent = [await store.send(run_id, "go", b"1") for run_id in ("done", "failed", "failed")]
        assert [signal.number for signal in sent] == [1, 1, 2]
        assert list(await store.signals("failed")) == sent[1:]
        lease = await store.claim(await store.read("failed"))
        (*_, last) = chain_of("failed", [b"", b"", b""])
        await store.append(lease, [last])
        assert (await store.read("failed")).head == 2
        assert await store.create(new_run(), chain_of("run", [b"", b""])) is not None
        assert (await store.read("run")).head == 1
        assert await store.drop("failed", 1) == 0
        await store.purge("done")


async def test_an_earlier_file_gets_the_schema_of_a_new_one(path: Path, tmp_path: Path) -> None:
    """It makes no difference with which release a file began."""
    for file in (path, tmp_path / "new.db"):
        async with SqliteStore(file):
            pass
    assert schema(path) == schema(tmp_path / "new.db")


async def test_a_migration_is_done_as_a_whole_or_not_at_all(path: Path, earlier: int) -> None:
    """Where a part of it fails, the file stays as it was, and can be opened once the reason is gone."""
    rows(path, "CREATE VIEW flowneer_wakers AS SELECT 7")
    before = schema(path)
    with pytest.raises(StoreFailed, match="already exists"):
        async with SqliteStore(path):
            pass
    assert (schema(path), rows(path, "SELECT version FROM flowneer_schema")) == (before, [(earlier,)])
    rows(path, "DROP VIEW flowneer_wakers")
    async with SqliteStore(path) as store:
        await check_first(store)


async def test_of_two_stores_that_open_an_earlier_file_one_migrates_it(path: Path) -> None:
    """The other waits, and finds it done."""

    async def use() -> None:
        async with SqliteStore(path) as store:
            await check_first(store)
            await store.send("done", "go", b"1")

    await asyncio.gather(*(use() for _ in range(4)))
    assert rows(path, "SELECT version FROM flowneer_schema") == [(4,)]
    assert rows(path, "SELECT number FROM flowneer_signals WHERE run = 1") == [(1,), (2,), (3,), (4,)]


async def test_a_migrated_file_is_too_new_for_the_release_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and does not write to it."""
    async with SqliteStore(path):
        pass
    monkeypatch.setattr("flowneer_stores.sqlite.queries.MIGRATIONS", ("",))
    with pytest.raises(SchemaTooNew, match="upgrade") as caught:
        async with SqliteStore(path):
            pass
    assert (caught.value.found, caught.value.known) == (4, 1)
