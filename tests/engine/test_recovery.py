"""Runs whose process is gone, which sleep, or cannot go on: found again, and none of them at the cost of another."""

import logging
import random
import resource
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowneer_async import FlowBuilder, Lease, Run, RunFilter, StoreBusy, Version, VersionStore
from flowneer_async.engine import Engine, Telemetry
from flowneer_async.errors import Fenced
from flowneer_async.store import Due
from flowneer_stores import MemoryStore, SqliteStore
from flowneer_stores.wrapper import Wrapper
from tests.engine import engine_child
from tests.engine.engine_child import RUNS, STEPS, many
from tests.support import places
from tests.support.children import ENVIRONMENT
from tests.support.engine_life import Flow, State, Steps, abandon, flow_of, is_put_down, nothing, owned, until
from tests.support.engines import Clock, engines, pass_time, quiet, watched
from tests.support.stores import KINDS

every_kind = pytest.mark.parametrize("kind", KINDS)
every_place = pytest.mark.parametrize("kind", places.KINDS)


class Recovered(Telemetry):
    """Who was recovered."""

    def __init__(self) -> None:
        self.runs = Counter[str]()

    def recovered(self, run: Run) -> None:
        self.runs[run.run_id] += 1


# The dead -------------------------------------------------------------------------------------------------------------


@every_place
@pytest.mark.parametrize("noted", [1, 60, 120])
async def test_runs_of_a_killed_process_are_recovered_once_by_two_engines_and_repeat_one_step_at_most(
    kind: str, noted: int, tmp_path: Path
) -> None:
    place, ledger, recovered = places.place_of(kind, tmp_path), tmp_path / "ledger", Recovered()
    program = [sys.executable, Path(engine_child.__file__), "many", str(tmp_path), *place]
    with subprocess.Popen(program, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "accepted\n"
        while len(ledger.read_text().splitlines()) < noted:
            time.sleep(0.001)
        process.kill()
    options: dict[str, Any] = {"deps": tmp_path, "telemetry": recovered}
    async with places.store_at(*place) as first, places.store_at(*place) as second:
        async with Engine(first, [many()], **options) as engine, Engine(second, [many()], **options):
            for number in range(RUNS):
                result = await (await engine.handle(f"r{number}")).result()
                assert result.state == {f"s{step}": True for step in range(STEPS)}
                assert result.version == f"r{number}@{STEPS}"
        assert await owned(first) == 0
    assert set(recovered.runs.values()) <= {1}
    done = Counter(tuple(line.split()[:2]) for line in ledger.read_text().splitlines())
    assert len(done) == RUNS * STEPS
    assert set(done.values()) <= {1, 2}
    repeated = Counter(run_id for (run_id, _), times in done.items() if times > 1)
    assert set(repeated.values()) <= {1}
    assert repeated.keys() <= recovered.runs.keys()


@every_kind
async def test_runs_of_a_dead_owner_are_found_when_an_engine_starts(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps()
    flow = flow_of().then(steps.do)
    async with watched(kind, tmp_path, clock) as [store]:
        for number in range(3):
            await (await abandon(store, flow, f"r{number}")).die()
        async with Engine(store, [flow], world=clock) as engine:
            for number in range(3):
                await (await engine.handle(f"r{number}")).result()


@every_kind
async def test_runs_of_an_owner_that_dies_are_found_within_a_poll(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps()
    flow = flow_of().then(steps.do)
    async with watched(kind, tmp_path, clock) as [store]:
        process = await abandon(store, flow, "r")
        async with Engine(store, [flow], world=clock, poll=3) as engine:
            await pass_time(clock, 9, engine)
            assert steps.log == []
            await process.die()
            await pass_time(clock, 3, engine)
            assert (await store.read("r")).status == "completed"


class Stale(Wrapper):
    """What is due it tells late."""

    def __init__(self, store: VersionStore) -> None:
        super().__init__(store)
        self.asked, self.go = anyio.Event(), anyio.Event()

    async def due(self, wanted: Due, limit: int) -> Sequence[Run]:
        found = await super().due(wanted, limit)
        self.asked.set()
        await self.go.wait()
        return found


@every_kind
@pytest.mark.parametrize("fails", [True, False])
async def test_a_run_that_is_over_by_the_time_that_a_late_engine_comes_to_take_it_stays_as_it_is(
    fails: bool, kind: str, tmp_path: Path
) -> None:
    clock, log, recovered, found = Clock(), list[str](), Recovered(), list[Run]()

    async def end(state: State) -> None:
        log.append("done")
        if fails:
            raise OSError

    flow = flow_of().then(end)
    async with watched(kind, tmp_path, clock) as [store]:
        await (await abandon(store, flow, "r")).die()
        late = Stale(store)

        async def come_late() -> None:
            async with Engine(late, [flow], world=clock, telemetry=recovered):
                await store.quiet()

        async with anyio.create_task_group() as group:
            group.start_soon(come_late)
            await late.asked.wait()
            async with Engine(store, [flow], world=clock, telemetry=recovered):
                await until(store, "r", lambda run: run.status in ("completed", "failed"))
            found.append(replace(await store.read("r"), epoch=0, updated=0))
            late.go.set()
        assert replace(await store.read("r"), epoch=0, updated=0) == found[0]
        assert log == ["done"]
        assert await owned(store) == 0


async def test_an_engine_whose_process_was_frozen_finds_itself_fenced_and_leaves_the_run_to_the_next(
    tmp_path: Path,
) -> None:
    clock, frozen, steps = Clock(), Clock(), Steps(hang_at=2)
    flow = flow_of().then(steps.do, name="a").then(steps.do, name="b").then(steps.do, name="c")
    path, options = tmp_path / "runs.db", {"now": clock.now, "lease": 30.0}
    async with SqliteStore(path, **options, sleep=frozen.sleep) as first, SqliteStore(path, **options) as second:
        async with Engine(first, [flow], world=frozen, grace=0) as engine:
            await engine.start(flow, {}, run_id="r")
            await steps.hung.wait()
            clock.move(31)
            async with Engine(second, [flow], world=clock) as other:
                result = await (await other.handle("r")).result()
                assert result.state == {"a": True, "b": True, "c": True}
            assert engine._work is not None
            job = engine._work.workshop.jobs["r"]
            steps.go.set()
            await job.over.wait()
            assert isinstance(job.error, Fenced)
        assert steps.log == ["a", "b", "b", "c"]
        assert [version.path for version in await second.versions("r", 1)] == ["a", "b", "c"]


async def test_runs_of_a_store_that_was_closed_go_on_in_the_next_one(tmp_path: Path) -> None:
    clock, steps = Clock(), Steps()
    flow = flow_of().then(steps.do)
    async with SqliteStore(tmp_path / "runs.db", now=clock.now) as store:
        await flow.with_versioned_checkpoint(store).execution({}, run_id="r").open()
    async with SqliteStore(tmp_path / "runs.db", now=clock.now) as store, Engine(store, [flow], world=clock) as engine:
        await (await engine.handle("r")).result()
        assert (await store.read("r")).recoveries == 0


# Sleeping -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_sleeping_runs_wake_on_time(kind: str, tmp_path: Path) -> None:
    clock, woken = Clock(), dict[str, int]()

    async def wake(state: State) -> None:
        woken[state["id"]] = clock.now()

    flow = flow_of().sleep(lambda state: state["seconds"], name="sleep").then(wake)
    async with engines(kind, tmp_path, [flow], clock) as [engine]:
        begun = clock.now()
        for seconds in (0.25, 1.5, 3, 7):
            await engine.start(flow, {"id": str(seconds), "seconds": seconds}, run_id=f"r{seconds}")
        await quiet(engine)
        await pass_time(clock, 8, engine, step=0.25)
    # Whoever is to wake within a poll is woken to the moment; a later one by the look that comes within a poll.
    late = {seconds: woken[str(seconds)] - begun - seconds * 1000 for seconds in (0.25, 1.5, 3, 7)}
    assert late[0.25] == 0
    assert all(0 <= ms <= 1000 for ms in late.values())


async def test_runs_that_have_fallen_asleep_beside_ten_thousand_others_take_next_to_no_memory(tmp_path: Path) -> None:
    clock = Clock()
    flow = flow_of().sleep(1e6, name="sleep").then(nothing)
    async with SqliteStore(tmp_path / "runs.db", now=clock.now, lease=1e9) as store:
        _asleep_by_hand(tmp_path / "runs.db", await _one_asleep(store, clock, flow), 10_000)
        async with Engine(store, [flow], world=clock) as engine:
            await _beat(clock, engine)
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            for number in range(300):
                await engine.start(flow, {}, run_id=f"r{number}")
            for number in range(300):
                await until(store, f"r{number}", is_put_down)
            await _beat(clock, engine)
            after, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert (after - before) / 300 < 500  # bytes: what caches of the interpreter and the driver have grown by


@pytest.mark.torture
async def test_a_look_at_a_hundred_thousand_sleeping_runs_takes_a_few_ms_of_the_processor(tmp_path: Path) -> None:
    clock = Clock()
    flow = flow_of().sleep(1e6, name="sleep").then(nothing)
    async with SqliteStore(tmp_path / "runs.db", now=clock.now, lease=1e9) as store:
        _asleep_by_hand(tmp_path / "runs.db", await _one_asleep(store, clock, flow), 100_000)
        async with Engine(store, [flow], world=clock) as engine:
            assert engine._work is not None
            dispatcher, begun, rounds = engine._work.dispatcher, _used(), 50
            for _ in range(rounds):
                await store.due(Due(frozenset(["flow"])), 100)
                await dispatcher.look_around()
            assert (_used() - begun) / rounds < 0.01
            handle = await engine.start(flow, {}, run_id="new")
            begun = _used()
            assert await handle.cancel()
            assert _used() - begun < 0.05


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _beat(clock: Clock, engine: Engine) -> None:
    """One poll of the engine."""
    await clock.asleep()
    clock.move(1)
    assert engine._work is not None
    await engine._work.dispatcher.look_around()


async def _one_asleep(store: SqliteStore, clock: Clock, flow: FlowBuilder[State]) -> str:
    async with Engine(store, [flow], world=clock) as engine:
        await engine.start(flow, {}, run_id="first")
        await until(store, "first", is_put_down)
    return "first"


def _asleep_by_hand(path: Path, run_id: str, number: int) -> None:
    """So many copies of a sleeping run, good enough to be passed over: they have no digests of their own."""
    base = 0
    with closing(sqlite3.connect(path)) as db, db:
        for table, key in (
            ("flowneer_runs", "run_id = ?"),
            ("flowneer_versions", "run = (SELECT id FROM flowneer_runs WHERE run_id = ?)"),
        ):
            columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
            rows = db.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE {key}", (run_id,)).fetchall()
            base = base or db.execute("SELECT max(id) FROM flowneer_runs").fetchone()[0]
            marks = ", ".join("?" * len(columns))
            made = (
                tuple(
                    base + copy if name in ("id", "run") else f"copy-{copy}" if name == "run_id" else cell
                    for name, cell in zip(columns, row, strict=True)
                )
                for copy in range(1, number + 1)
                for row in rows
            )
            db.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", made)


# Those that cannot go on ----------------------------------------------------------------------------------------------


def waiting_for(word: str) -> Flow:
    return flow_of().then(nothing).wait_for(word)


async def bad_migration(state: State, change: Exception) -> str:
    raise KeyError("secret")


def unfit(store: VersionStore, reason: str) -> Flow:
    """Another flow than it was when the run came to its wait, with a migration that fails, or none."""
    flow = flow_of().then(nothing, name="another").wait_for("word")
    return flow if reason == "FlowChanged" else flow.with_versioned_checkpoint(store, migrate=bad_migration)


@every_kind
@pytest.mark.parametrize("reason", ["FlowChanged", "KeyError"])
async def test_a_run_that_cannot_go_on_stops_no_other_and_is_tried_again_less_and_less_often(
    reason: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, steps = Clock(draws=[0.0]), Steps()
    before, well = waiting_for("word"), flow_of("well").then(steps.do)
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [before], world=clock) as engine:
            await engine.start(before, {}, run_id="r")
            await until(store, "r", is_put_down)
        await before.with_versioned_checkpoint(store).signal("r", "word")
        with caplog.at_level(logging.WARNING):
            async with Engine(store, [unfit(store, reason), well], world=clock) as engine:
                for number in range(3):
                    await (await engine.start(well, {}, run_id=f"w{number}")).result()
                await pass_time(clock, 70, engine)
                tried = [each.getMessage() for each in caplog.records if "cannot be gone on with" in each.getMessage()]
                assert 5 <= len(tried) <= 7, caplog.text  # after 0, 1, 3, 7, 15, 31 and 63 seconds
                assert "secret" not in caplog.text
                assert (await engine.health()).is_ok
        assert (await store.read("r")).status == "waiting"
        async with Engine(store, [before], world=clock) as engine:
            await (await engine.handle("r")).result()


async def test_a_damaged_run_stops_no_other(tmp_path: Path) -> None:
    clock, flow = Clock(), waiting_for("word")
    async with SqliteStore(tmp_path / "runs.db", now=clock.now, lease=1e9) as store:
        async with Engine(store, [flow], world=clock) as engine:
            for run_id in ("body", "tags", "well"):
                await engine.start(flow, {}, run_id=run_id)
                await until(store, run_id, is_put_down)
        with closing(sqlite3.connect(tmp_path / "runs.db")) as db, db:
            db.execute("UPDATE flowneer_runs SET tags = 'no json', cancelling = 1 WHERE run_id = 'tags'")
            of = "run = (SELECT id FROM flowneer_runs WHERE run_id = 'body')"
            db.execute(f"UPDATE flowneer_versions SET body = x'7b7d' WHERE {of}")
            db.execute("UPDATE flowneer_runs SET status = 'running' WHERE run_id = 'tags'")
            db.execute(f"UPDATE flowneer_runs SET wake = {clock.now()} WHERE run_id <> 'well'")
        async with Engine(store, [flow], world=clock) as engine:
            for _ in range(5):
                await clock.asleep()
                clock.move(1)
                await engine._work.dispatcher.look()  # type: ignore[union-attr]
            await engine.signal("well", "word")
            await (await engine.handle("well")).result()
            assert (await engine.health()).is_ok


class Flaky(MemoryStore):
    """Fails every fourth time or so, for a reason of ours or with whatever else."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(now=clock.now)
        self._moments = random.Random(1)

    def fail(self) -> None:
        if self._moments.random() < 0.25:
            raise self._moments.choice([StoreBusy("flaky", 1.0), OSError("secret")])

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        self.fail()
        await super().append(lease, versions)

    async def claim(self, run: Run) -> Lease:
        self.fail()
        return await super().claim(run)

    async def due(self, wanted: Due, limit: int) -> Sequence[Run]:
        self.fail()
        return await super().due(wanted, limit)


async def test_a_store_that_fails_now_and_then_holds_its_runs_up_and_stops_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, steps = Clock(draws=[0.0]), Steps()
    flow = flow_of().then(steps.do, name="a").then(steps.do, name="b").then(steps.do, name="c")
    store = Flaky(clock)
    async with Engine(store, [flow], world=clock) as engine:
        for number in range(5):
            await engine.start(flow, {}, run_id=f"r{number}")
        for _ in range(400):
            if await store.count(RunFilter(frozenset(["completed"]))) == {"completed": 5}:
                break
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            clock.move(1)
        assert await store.count(RunFilter()) == {"completed": 5}
        for number in range(5):
            assert [version.path for version in await store.versions(f"r{number}", 1)] == ["a", "b", "c"]
    assert "secret" not in caplog.text


async def test_a_store_whose_clock_is_ahead_is_not_asked_over_and_over_for_a_run_that_sleeps_on() -> None:
    clock, claims = Clock(), list[str]()

    class Counting(MemoryStore):
        async def claim(self, run: Run) -> Lease:
            claims.append(run.run_id)
            return await super().claim(run)

    flow = flow_of().sleep(10, name="sleep").then(nothing)
    store = Counting(now=lambda: clock.now() + 60_000)
    async with Engine(store, [flow], world=clock) as engine:
        handle = await engine.start(flow, {}, run_id="r")
        for _ in range(30):
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            clock.move(0.5)
        assert (await handle.result()).status == "completed"
    assert len(claims) <= 12  # once a poll, at most
