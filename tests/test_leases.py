"""One writer for each run: who owns it, how it is taken over, and what the one before it may still do."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import Fenced, FlowBuilder, FlowError, Lease, Run, RunBusy, StoreFull
from flowneer_async.policy import unix_ms
from flowneer_async.testing import FakeWorld
from flowneer_async.testing.chains import counting
from flowneer_stores import SqliteStore, owner
from flowneer_stores.sqlite import queries
from flowneer_stores.writer import Writer
from tests.support.counting import State, count, counts
from tests.support.talking import Talking, talking

LEASE = 30.0

# Works on run r, and in its second step waits until it is told to go on.
WORKER = """
import asyncio, sys
from flowneer_async import FlowBuilder, FlowneerError
from flowneer_stores import SqliteStore
from tests.support.counting import count

async def wait(state):
    state["n"] += 1
    print("working", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

async def main(path):
    flow = FlowBuilder("counting").start_with(count, name="1").then(wait, name="2").then(count, name="3")
    async with SqliteStore(path) as store:
        try:
            print((await flow.with_versioned_checkpoint(store).run({"n": 0}, run_id="r")).version)
        except FlowneerError as error:
            print(type(error).__name__)

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def killed(worker: Talking) -> None:
    """Kill a process, and wait until it is dead: a zombie, for nobody has asked for its exit code."""
    worker.process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, worker.process.pid, os.WEXITED | os.WNOWAIT)


class Waiting:
    """The flow of `counts`, with a second step that waits until the test lets it go on."""

    def __init__(self) -> None:
        self.entered, self.leave = asyncio.Event(), asyncio.Event()

    async def step(self, state: State) -> None:
        self.entered.set()
        await self.leave.wait()
        await count(state)

    async def start(self, store: SqliteStore) -> "asyncio.Task[Any]":
        flow = (
            FlowBuilder[State]("counting").start_with(count, name="1").then(self.step, name="2").then(count, name="3")
        )
        task = asyncio.create_task(flow.with_versioned_checkpoint(store).run({"n": 0}, run_id="r"))
        await self.entered.wait()
        return task


async def beats(world: FakeWorld, number: int, hearts: int = 2) -> None:
    """Let so many heartbeats pass, each of them done before the next."""
    async with asyncio.timeout(30):
        for _ in range(number):
            await world.asleep(hearts)
            world.move(LEASE / 3)
        await world.asleep(hearts)


async def never(seconds: float) -> None:
    """The sleep of a process that does not come to its heartbeat."""
    await asyncio.Event().wait()


# Several processes ----------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_before_any_step_of_its_own(path: Path) -> None:
    """As long as one process works on a run, another is told so, and the first ends undisturbed."""
    with talking(WORKER, path) as first, talking(WORKER, path) as second:
        answers = [first.hear()]
        answers.append(second.hear())
        assert sorted(answers) == ["RunBusy", "working"]
        working = first if answers[0] == "working" else second
        working.tell()
        assert working.hear() == "r@3"


async def test_the_lease_of_a_killed_process_is_free_at_once(path: Path) -> None:
    """Whoever comes next goes on from the last version, be the dead process a zombie or gone altogether."""
    with talking(WORKER, path) as first:
        assert first.hear() == "working"
        killed(first)
        with talking(WORKER, path) as second:
            assert second.hear() == "working"
            killed(second)
            second.process.wait()
            async with SqliteStore(path) as store:
                assert (await store.read("r")).head == 1
                await counts(store, "r")


async def test_a_process_that_wakes_up_too_late_is_fenced(path: Path) -> None:
    """A process that was stopped for longer than its lease loses the run, and writes nothing when it wakes up."""
    with talking(WORKER, path) as stopped:
        assert stopped.hear() == "working"
        stopped.process.send_signal(signal.SIGSTOP)
        async with SqliteStore(path, now=lambda: unix_ms() + 60_000) as store:
            await counts(store, "r")
            before = await store.read("r"), await store.versions("r")
            stopped.process.send_signal(signal.SIGCONT)
            stopped.tell()
            assert stopped.hear() == "Fenced"
            assert (await store.read("r"), await store.versions("r")) == before


# One clock ------------------------------------------------------------------------------------------------------------


async def test_a_live_owner_keeps_its_lease(path: Path) -> None:
    """Its heartbeat renews the lease, however long a step takes."""
    world, waiting = FakeWorld(held=True), Waiting()
    options: dict[str, Any] = {"lease": LEASE, "now": world.now, "sleep": world.sleep}
    async with SqliteStore(path, **options) as store, SqliteStore(path, **options) as other:
        task = await waiting.start(store)
        await beats(world, 20)
        with pytest.raises(RunBusy):
            await counts(other, "r")
        waiting.leave.set()
        assert (await task).version == "r@3"


async def test_a_heartbeat_may_fail_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease is renewed three times in its time, so that one write that fails does not cost it."""
    world, waiting = FakeWorld(held=True), Waiting()
    options: dict[str, Any] = {"lease": LEASE, "now": world.now, "sleep": world.sleep}
    async with SqliteStore(path, **options) as store, SqliteStore(path, **options) as other:
        task = await waiting.start(store)
        fail_once(monkeypatch, queries.RENEW)
        await beats(world, 4)
        with pytest.raises(RunBusy):
            await counts(other, "r")
        waiting.leave.set()
        await task


async def test_a_lapsed_lease_is_taken_over_and_its_owner_fenced(path: Path) -> None:
    """A lease that was not renewed is free when its time is over, not before; the old owner writes nothing more."""
    world, waiting = FakeWorld(), Waiting()
    slow = SqliteStore(path, lease=LEASE, now=world.now, sleep=never)
    async with slow, SqliteStore(path, lease=LEASE, now=world.now, sleep=never) as other:
        task = await waiting.start(slow)
        world.move(LEASE - 0.001)
        with pytest.raises(RunBusy):
            await counts(other, "r")
        world.move(0.001)
        await counts(other, "r")
        before = await other.read("r"), await other.versions("r")
        waiting.leave.set()
        with pytest.raises(Fenced):
            await task
        assert (await other.read("r"), await other.versions("r")) == before


async def test_a_run_that_was_taken_over_is_not_renewed(path: Path) -> None:
    """The heartbeat of the old owner does not lengthen the lease of the new one."""
    world, waiting = FakeWorld(held=True), Waiting()
    slow = SqliteStore(path, lease=LEASE, now=world.now, sleep=world.sleep)
    async with slow, SqliteStore(path, lease=LEASE, now=lambda: world.now() + 10**6, sleep=never) as other:
        task = await waiting.start(slow)
        lease = await other.claim(await other.read("r"))
        before = lease_until(path)
        await beats(world, 1, hearts=1)
        assert lease_until(path) == before
        waiting.leave.set()
        with pytest.raises(Fenced):
            await task
        await other.release(lease, "running")
        await counts(slow, "r")


def lease_until(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        ((until,),) = db.execute("SELECT lease_until FROM flowneer_runs")
    return until


# Giving back ----------------------------------------------------------------------------------------------------------


async def test_a_store_that_closes_gives_its_leases_back(path: Path) -> None:
    """A run that was still owned when its store was closed is free for the next one."""
    async with SqliteStore(path) as store:
        await counts(store, "other")
        for number in range(3):
            run = Run(f"r{number}", "counting", "dict", ("1", "2", "3"))
            assert await store.create(run, counting(run.run_id, 1)) is not None
    async with SqliteStore(path) as store:
        assert [(await store.read(f"r{number}")).owner for number in range(3)] == [None] * 3
        await counts(store, "r1")


async def test_two_stores_of_one_process_are_two_owners(path: Path) -> None:
    """That their process is alive says nothing of a run in another store of the same process."""
    waiting = Waiting()
    async with SqliteStore(path) as store, SqliteStore(path) as other:
        task = await waiting.start(store)
        with pytest.raises(RunBusy):
            await counts(other, "r")
        waiting.leave.set()
        await task


def fail_once(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Let the next write of this statement fail."""
    write = Writer.write

    async def failing(self: Writer, sql: str, rows: Sequence[Any]) -> Any:
        if sql == statement:
            monkeypatch.setattr(Writer, "write", write)
            raise StoreFull("the disk")
        return await write(self, sql, rows)

    monkeypatch.setattr(Writer, "write", failing)


async def test_a_release_that_fails_does_not_lock_its_process_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store that could not give a lease back may take it again at once; others may once it has lapsed."""

    def fail(state: State) -> None:
        fail_once(monkeypatch, queries.RELEASE)
        raise ValueError

    world = FakeWorld()
    failing = FlowBuilder[State]("counting").start_with(count, name="1").then(fail, name="2")
    options: dict[str, Any] = {"lease": LEASE, "now": world.now, "sleep": never}
    async with SqliteStore(path, **options) as store, SqliteStore(path, **options) as other:
        for run_id in ("r", "s"):
            with pytest.raises(FlowError):
                await failing.with_versioned_checkpoint(store).run({"n": 0}, run_id=run_id)
        with pytest.raises(RunBusy):
            await counts(other, "r")
        await counts(store, "r")
        world.move(LEASE)
        await counts(other, "s")


async def test_a_claim_that_fails_takes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that could not be stored leaves the run to whoever asks next."""
    async with SqliteStore(path) as store, SqliteStore(path) as other:
        lease = await store.create(Run("r", "counting", "dict", ()), counting("r", 1))
        assert isinstance(lease, Lease)
        await store.release(lease, "running")
        fail_once(monkeypatch, queries.CLAIM)
        with pytest.raises(StoreFull):
            await store.claim(await store.read("r"))
        await counts(other, "r")


# Who is alive ---------------------------------------------------------------------------------------------------------


def test_this_process_is_alive() -> None:
    """A process does not take itself for dead."""
    assert not owner.is_gone(owner.this_owner())


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    """The time a process was started tells it from an older one of the same id."""
    host, pid, started = owner.this_owner().rsplit(":", 2)
    assert owner.is_gone(f"{host}:{pid}:{int(started) - 1}")


def test_of_another_host_nothing_can_be_known() -> None:
    """Neither another machine's processes, nor those of another boot or container, are called dead."""
    host, pid, started = owner.this_owner().rsplit(":", 2)
    assert not owner.is_gone(f"other{host}:{pid}:{int(started) - 1}")


def ends(worker: Talking, wait: bool) -> None:
    killed(worker)
    if wait:
        worker.process.wait()


@pytest.mark.parametrize("wait", [False, True], ids=["zombie", "gone"])
@pytest.mark.parametrize("proc", ["/proc", "/none"], ids=["with /proc", "without"])
def test_a_dead_process_is_gone(monkeypatch: pytest.MonkeyPatch, path: Path, proc: str, wait: bool) -> None:
    """A process that was killed is gone, waited for or not; without /proc a zombie cannot be told from a live one."""
    host = owner.this_owner().rsplit(":", 2)[0]
    with talking(WORKER, path) as worker:
        assert worker.hear() == "working"
        name = f"{host}:{worker.process.pid}:{owner._started(worker.process.pid) or ''}"
        monkeypatch.setattr(owner, "_PROC", Path(proc))
        assert not owner.is_gone(name)
        ends(worker, wait)
        assert owner.is_gone(name) == (wait or proc == "/proc")


def test_a_process_of_another_user_is_alive_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system forbids to ask a process, it is there."""

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    host = owner.this_owner().rsplit(":", 2)[0]
    monkeypatch.setattr(owner, "_PROC", Path("/none"))
    monkeypatch.setattr(os, "kill", forbidden)
    assert not owner.is_gone(f"{host}:1:")


@pytest.mark.parametrize("name", ["sh", "a b", ") Z 1 (", "(x) R"])
@pytest.mark.parametrize(("state", "started"), [("S", "777"), ("R", "777"), ("Z", None)])
def test_the_name_of_a_program_may_hold_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, state: str, started: str | None
) -> None:
    """Brackets and blanks in a program's name do not shift what is read behind it."""
    (tmp_path / "12").mkdir()
    fields = " ".join(str(number) for number in range(4, 22))
    (tmp_path / "12" / "stat").write_text(f"12 ({name}) {state} {fields} 777 23 24\n")
    monkeypatch.setattr(owner, "_PROC", tmp_path)
    assert owner._started(12) == started
