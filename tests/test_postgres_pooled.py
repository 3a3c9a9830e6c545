"""A PostgreSQL store behind a pooler of transactions: nothing of a session is relied on."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import FlowBuilder, StoreFailed
from flowneer_async.store import RunFilter
from flowneer_async.testing import StoreContract
from flowneer_stores import PostgresStore
from tests.support.cut_line import lines_to_the_server
from tests.support.pooler import Pooler, pooler
from tests.support.postgres import own_server, schema_of


@pytest.fixture(scope="module")
def pool() -> Generator[Pooler, None, None]:
    with pooler() as pool:
        yield pool


def count(state: dict[str, Any]) -> None:
    state["n"] += 1


async def test_flows_run_behind_a_pooler(pool: Pooler, tmp_path: Path) -> None:
    """Each statement may meet another session: nothing is prepared by name, and nothing is set."""
    flow: FlowBuilder[dict[str, Any]] = FlowBuilder("counting")
    for number in range(10):
        flow = flow.then(count, name=f"step-{number}")
    async with PostgresStore(pool.dsn, schema=schema_of(tmp_path), pgbouncer=True) as store:
        stored = flow.then(count, name="last").wait_for("go", into="got").with_versioned_checkpoint(store)
        await asyncio.gather(*(stored.run({"n": 0}, run_id=f"run-{number}") for number in range(8)))
        async with store.changes("run-1") as changed:
            await stored.signal("run-1", "go", 1)
            await changed()
        assert (await stored.resume("run-1")).state == {"n": 11, "got": 1}
        assert dict(await store.counts(owned=False)) == {"waiting": 7, "completed": 1}
        assert len((await store.find(RunFilter(), 100)).runs) == 8
        assert await store.prune(keep=1) > 0
        await store.purge("run-1")
        await store.compact()
    assert pool.switched > 50
    assert pool.prepared == {""}
    assert pool.settings <= {"user", "database", "client_encoding"}


async def test_without_being_told_it_does_not_run_behind_a_pooler(pool: Pooler, tmp_path: Path) -> None:
    """A pooler refuses what is set for a session, or a statement is not found: so this test's pooler is one."""

    async def count_often() -> None:
        async with PostgresStore(pool.dsn, schema=schema_of(tmp_path)) as store:
            for _ in range(3):
                await store.counts()

    with pytest.raises(StoreFailed, match="SQLSTATE"):
        await count_often()


async def test_who_follows_a_run_is_told_past_the_pooler(pool: Pooler, tmp_path: Path) -> None:
    """With `listen_dsn` a follower hears of what another process does, over a connection of its own."""
    async with lines_to_the_server() as lines:
        options: dict[str, Any] = {"schema": schema_of(tmp_path), "pgbouncer": True, "listen_dsn": lines.dsn}
        async with PostgresStore(pool.dsn, **options) as store:
            stored = FlowBuilder("waits").wait_for("go", into="got").with_versioned_checkpoint(store)
            await stored.run({}, run_id="run")
            async with store.changes("run"):
                assert len(lines.lines) == 1
            async with store.changes("run"):
                assert len(lines.lines) == 1


async def test_a_server_that_may_lose_what_it_acknowledges_is_refused(pool: Pooler, tmp_path: Path) -> None:
    """Behind a pooler it cannot be set for the session: the error says where it is set."""
    dsn = f"{own_server().dsn}&options=-csynchronous_commit%3Doff"
    with pytest.raises(StoreFailed, match="synchronous_commit is off"):
        async with PostgresStore(dsn, schema=schema_of(tmp_path), pgbouncer=True):
            pass
    async with PostgresStore(dsn, schema=schema_of(tmp_path)) as store:
        assert store is not None


@pytest.mark.torture
class TestPooledPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _pooled(self, pool: Pooler) -> None:
        self._pool = pool

    def make_store(self, tmp_path: Path) -> PostgresStore:
        return PostgresStore(self._pool.dsn, schema=schema_of(tmp_path), pgbouncer=True)
