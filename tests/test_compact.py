"""Space that pruned versions and purged runs leave behind in a SQLite file, and how it is given back."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from flowneer_async import FlowBuilder
from flowneer_stores import SqliteStore

KB = 1000


def grow(state: dict[str, Any]) -> None:
    state["log"].append("x" * 20 * KB)


many = FlowBuilder[dict[str, Any]]("growing").loop(
    lambda state: len(state["log"]) < 50, lambda body: body.start_with(grow), name="grow 50 times"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def size(path: Path) -> int:
    return path.stat().st_size


def reported_damage(path: Path) -> object:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA integrity_check").fetchall()


async def test_the_pages_of_purged_runs_are_given_back(path: Path) -> None:
    """The file shrinks to what it holds, by as much as is said, and is whole."""
    async with SqliteStore(path) as store:
        flow = many.with_versioned_checkpoint(store)
        await flow.run({"log": []}, run_id="kept")
        await store.compact()
        before = size(path)
        for number in range(3):
            await flow.run({"log": []}, run_id=f"purged-{number}")
            await store.purge(f"purged-{number}")
        assert await store.compact() >= 3 * 50 * 20 * KB
        assert size(path) <= before + 100 * KB
        assert await store.compact() == 0
        last = await store.resolve(f"kept@{(await store.read('kept')).head}")
        assert len(cast(list[str], last.state["log"])) == 50
    assert reported_damage(path) == [("ok",)]


async def test_runs_go_on_while_a_file_is_made_smaller(path: Path) -> None:
    """Flows that run meanwhile end as ever."""
    async with SqliteStore(path) as store:
        flow = many.with_versioned_checkpoint(store)
        await flow.run({"log": []}, run_id="purged")
        await store.purge("purged")
        runs = [asyncio.create_task(flow.run({"log": []}, run_id=f"r{number}")) for number in range(5)]
        while not all(run.done() for run in runs):
            await store.compact()
        assert {len((await run).state["log"]) for run in runs} == {50}
    assert reported_damage(path) == [("ok",)]


async def test_a_file_of_an_earlier_release_is_written_anew(path: Path) -> None:
    """One that was made without room for it is made smaller all the same, and the next time as any other."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript((Path(__file__).parent / "data" / "schema-2.sql").read_text("utf-8"))
    async with SqliteStore(path) as store:
        for number in range(2):
            await many.with_versioned_checkpoint(store).run({"log": []}, run_id=f"r{number}")
            await store.purge(f"r{number}")
            assert await store.compact() >= 50 * 20 * KB
        assert (await store.read("done")).status == "completed"
    assert reported_damage(path) == [("ok",)]
