"""Who follows a run in a PostgreSQL database hears of what other processes do, and looks for himself besides."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from flowneer_async.testing.chains import owned
from flowneer_stores import PostgresStore
from flowneer_stores.postgres import news
from tests.support.cut_line import Lines, lines_to_the_server
from tests.support.postgres import schema_of, server, store_at


@pytest.fixture
async def lines() -> AsyncGenerator[Lines, None]:
    async with lines_to_the_server() as lines:
        yield lines


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks for himself."""
    monkeypatch.setattr(news, "_LOOK", 1e9)


@pytest.mark.usefixtures("patience")
async def test_a_follower_hears_of_what_another_store_does(tmp_path: Path) -> None:
    """Of the run that it follows, and of no other one."""
    async with store_at(tmp_path) as store, store_at(tmp_path) as other:
        run, aside = await owned(other, stored=0), await owned(other, "aside", stored=0)
        async with store.changes("run") as changed, store.changes("aside") as also_changed:
            waiting = asyncio.ensure_future(also_changed())
            for seq in range(3):
                await run.append(seq, seq + 1)
                await changed()
            assert not waiting.done()
            await aside.append(0, 1)
            await waiting


@pytest.mark.usefixtures("patience")
async def test_a_follower_in_a_schema_of_its_own_hears_nothing_of_others(tmp_path: Path) -> None:
    """Runs of one id in two schemas have nothing to do with each other."""
    async with store_at(tmp_path) as store, store_at(tmp_path / "other") as other:
        run, same = await owned(store, stored=0), await owned(other, stored=0)
        async with store.changes("run") as changed, other.changes("run") as other_changed:
            waiting = asyncio.ensure_future(changed())
            await same.append(0, 1)
            await other_changed()
            async with store_at(tmp_path / "other") as third:
                await third.send("run", "go", b"1")
                await other_changed()
            assert not waiting.done()
            await run.append(0, 1)
            await waiting


async def test_what_was_missed_while_the_line_was_lost_is_looked_for(
    lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower whose connection ends opens another one, and then is woken up: there may have been something."""
    monkeypatch.setattr(news, "_LOOK", 1e9)
    async with PostgresStore(lines.dsn, schema=schema_of(tmp_path)) as store, store_at(tmp_path) as other:
        run = await owned(other)
        async with store.changes("run") as changed:
            for seq in range(1, 4):
                lines.drop_all()
                await run.append(seq, seq + 1)
                await changed()


async def test_a_follower_that_is_told_nothing_looks_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no hint ever comes, it goes on all the same."""
    monkeypatch.setattr(news, "_LOOK", 0.001)
    async with PostgresStore(server().dsn, schema=schema_of(tmp_path), pgbouncer=True) as store:
        await owned(store)
        async with store.changes("run") as changed:
            await changed()
            await changed()


@pytest.mark.usefixtures("patience")
async def test_one_connection_listens_however_many_follow(lines: Lines, tmp_path: Path) -> None:
    """It is opened for the first of them, and kept."""
    options: dict[str, Any] = {"schema": schema_of(tmp_path), "pgbouncer": True, "listen_dsn": lines.dsn}
    async with PostgresStore(server().dsn, **options) as store:
        await owned(store)
        assert len(lines.lines) == 0
        for _ in range(2):
            async with store.changes("run"), store.changes("run"):
                assert len(lines.lines) == 1


async def test_a_commit_never_waits_for_the_notices_of_another(tmp_path: Path) -> None:
    """The lock that every notice takes in the whole database is not taken where a version is stored."""
    async with store_at(tmp_path) as store:
        run = await owned(store)
        connection = await asyncpg.connect(server().dsn)
        async with connection.transaction():
            await connection.execute("LISTEN held; NOTIFY held")
            # As long as this is not committed, what is told by others waits in line behind it, if anything does.
            await run.append(1, 2)
            assert list(await store.versions("run")) == run.versions[:2]
        await connection.close()


def test_many_runs_are_told_in_few_notices() -> None:
    """Each notice is as short as the server demands, and none of the runs is left out."""
    runs = [f"{number:0>128}" for number in range(500)]
    notices = list(news._notices("teller", runs))
    assert [run for notice in notices for run in notice.split()[1:]] == runs
    assert max(len(notice.encode()) for notice in notices) < 8000
    assert len(notices) < 12
    assert {notice.split()[0] for notice in notices} == {"teller"}
