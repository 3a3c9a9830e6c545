"""Health: whether the store can be written, found out by writing, once a second at most, and leaving nothing behind."""

import os
import sqlite3
from pathlib import Path

import anyio
import pytest

from flowneer_async import Lease, Run, RunFilter, StoreFailed, StoreFull, Version
from flowneer_async.engine import Engine, Health
from flowneer_stores import LimitedStore, MemoryStore, ReadOnlyStore, SqliteStore
from tests.support.engine_life import Steps, flow_of, nothing
from tests.support.engines import Clock, engines, watched
from tests.support.stores import KINDS

every_kind = pytest.mark.parametrize("kind", KINDS)

WELL = Health(True, None, 0)


@every_kind
async def test_an_engine_at_work_on_a_store_that_can_be_written_is_well(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps(hang_at=1)
    flow = flow_of().then(steps.do)
    async with engines(kind, tmp_path, [flow], clock) as [engine]:
        assert await engine.health() == WELL
        await engine.start(flow, {})
        await steps.hung.wait()
        assert await engine.health() == Health(True, None, 1)


@every_kind
async def test_an_engine_that_is_not_at_work_or_stops_is_not_well(kind: str, tmp_path: Path) -> None:
    async with watched(kind, tmp_path, Clock()) as [store]:
        engine = Engine(store, [flow_of().then(nothing)], world=Clock())
        assert await engine.health() == Health(False, "the engine is not at work", 0)
        async with engine:
            assert await engine.health() == WELL
            engine.stop()
            assert not (await engine.health()).is_ok
        assert not (await engine.health()).is_ok


@every_kind
async def test_asked_a_thousand_times_also_together_the_store_is_written_once_a_second(
    kind: str, tmp_path: Path
) -> None:
    clock = Clock()
    async with engines(kind, tmp_path, [], clock) as [engine]:
        store = engine.store
        for second in range(1, 4):
            async with anyio.create_task_group() as group:
                for _ in range(500):
                    group.start_soon(engine.health)
            for _ in range(500):
                await engine.health()
            assert store.calls["create"] == second  # type: ignore[attr-defined]
            clock.move(1)
        assert await store.count(RunFilter()) == {}


async def test_health_is_asked_again_where_the_clock_was_set_back() -> None:
    clock, store = Clock(), Failing()
    async with Engine(store, world=clock) as engine:
        assert await engine.health() == WELL
        store.reason = "broken"
        clock.move(-3600)
        assert not (await engine.health()).is_ok


async def test_whoever_stops_asking_leaves_no_run_behind() -> None:
    class Slow(MemoryStore):
        asked, go = anyio.Event(), anyio.Event()

        async def purge(self, run_id: str) -> None:
            self.asked.set()
            await self.go.wait()
            await super().purge(run_id)

    store = Slow()
    async with Engine(store, world=Clock()) as engine:
        async with anyio.create_task_group() as group:
            group.start_soon(engine.health)
            await store.asked.wait()
            group.cancel_scope.cancel()
            store.go.set()
        assert await store.count(RunFilter()) == {}
        assert await engine.health() == WELL


async def test_a_store_that_fails_is_told_with_its_reason_until_it_works_again() -> None:
    clock, store = Clock(), Failing()
    async with Engine(store, world=clock) as engine:
        assert await engine.health() == WELL
        store.reason = "the disk is on fire"
        assert await engine.health() == WELL  # what was found out is good for a second
        clock.move(1)
        health = await engine.health()
        assert not health.is_ok
        assert health.reason is not None
        assert "the disk is on fire" in health.reason
        store.reason = None
        clock.move(1)
        assert await engine.health() == WELL


async def test_whatever_a_store_raises_is_told_by_its_type_alone() -> None:
    class Foreign(MemoryStore):
        async def create(self, run: Run, versions: object = ()) -> Lease | None:
            raise OSError("secret")

    async with Engine(Foreign(), world=Clock()) as engine:
        assert await engine.health() == Health(False, "OSError", 0)


async def test_a_locked_file_is_not_well_until_it_is_free(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "runs.db"
    async with SqliteStore(path, timeout=0.05, now=clock.now) as store, Engine(store, world=clock) as engine:
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            health = await engine.health()
            assert not health.is_ok
            assert "locked" in (health.reason or "")
            other.execute("ROLLBACK")
        other.close()
        clock.move(1)
        assert await engine.health() == WELL
        assert await store.count(RunFilter()) == {}


async def test_a_full_file_is_not_well(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "runs.db"
    async with SqliteStore(path, now=clock.now) as store, Engine(store, world=clock) as engine:
        assert await engine.health() == WELL
        pages = (await store._open.db.execute_fetchall("PRAGMA page_count"))[0][0]  # type: ignore[index]
        await store._open.db.execute_fetchall(f"PRAGMA max_page_count={pages}")
        flow, filled = flow_of().then(nothing).with_versioned_checkpoint(store), False
        while not filled:
            try:
                await flow.run({"text": os.urandom(2000).hex()})
            except StoreFull:
                filled = True
        clock.move(1)
        # There may be room for a small row in a page that is not full: then it is well.
        health = WELL
        for _ in range(200):
            health = await engine.health()
            if not health.is_ok:
                break
            await store.create(Run("r" + os.urandom(8).hex(), "flow", "dict", (), "waiting"))
            clock.move(1)
        assert "full" in (health.reason or "")


async def test_a_store_that_is_read_only_or_closed_is_not_well(tmp_path: Path) -> None:
    clock = Clock()
    async with (
        SqliteStore(tmp_path / "runs.db", now=clock.now) as store,
        Engine(ReadOnlyStore(store), world=clock) as engine,
    ):
        health = await engine.health()
        assert not health.is_ok
        assert "read" in (health.reason or "")
    store = SqliteStore(tmp_path / "runs.db", now=clock.now)
    async with Engine(store, world=clock) as engine:
        health = await engine.health()
        assert not health.is_ok
        assert "not open" in (health.reason or "") or "closed" in (health.reason or "")


async def test_a_store_in_wrappers_is_asked_through_them() -> None:
    async with Engine(LimitedStore(MemoryStore(), versions=1), world=Clock()) as engine:
        assert await engine.health() == WELL


class Failing(MemoryStore):
    """Fails for a reason, as long as there is one."""

    reason: str | None = None

    async def create(self, run: Run, versions: "tuple[Version, ...]" = ()) -> Lease | None:  # type: ignore[override]
        if self.reason is not None:
            raise StoreFailed("a failing store", "create", self.reason)
        return await super().create(run, versions)
