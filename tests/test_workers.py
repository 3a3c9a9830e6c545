"""Several processes at work on the runs of one store, killed and frozen at random; their server crashes, too."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic, sleep
from typing import Literal

import pytest

from flowneer_async import VersionStore
from flowneer_stores import MemoryStore
from tests.support import postgres
from tests.support.chains import stored_versions
from tests.support.children import ENVIRONMENT
from tests.support.places import KINDS, place_of, store_at
from tests.support.witness import Note, Reader, by_run, check_effects, check_kept, check_owners
from tests.support.worker_child import LEASE, LINES, Nothing, durability_of, jobs, start

LONGEST = 60.0  # seconds, after which something is wrong
ENOUGH = 6 * LEASE  # seconds for another to take over, were there not a lock of the file that a frozen process may have

Disturbance = Literal["kill", "freeze", "freeze and kill", "restart"]
DISTURBANCES: tuple[Disturbance, ...] = ("kill", "freeze", "freeze and kill")


@pytest.mark.parametrize("kind", KINDS)
async def test_workers_that_are_killed_and_frozen_lose_nothing(kind: str, tmp_path: Path) -> None:
    """No version that was acknowledged is lost or doubled, no owner writes after the next one, and every run ends."""
    await disturb(kind, tmp_path, times=2)


@pytest.mark.torture
@pytest.mark.parametrize("kind", KINDS)
async def test_workers_that_are_killed_and_frozen_two_hundred_times_lose_nothing(kind: str, tmp_path: Path) -> None:
    """The same for two hundred rounds; among the processes that woke up were some that found themselves fenced."""
    notes = await disturb(kind, tmp_path, times=67)
    assert sum(note.kind == "fenced" for note in notes) > 10


async def disturb(kind: str, folder: Path, times: int) -> list[Note]:
    """Let two workers work, disturb one of them in each way so often, and look at what is left."""
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"KILL_SEED={seed}")  # shown where the test fails
    moments = random.Random(seed)
    place = place_of(kind, folder)
    async with store_at(*place):
        pass  # so that there is one
    with ExitStack() as stack:
        supervisor = Supervisor(folder, place, moments, stack)
        rounds = disturbances(kind, times)
        for disturbance in moments.sample(rounds, len(rounds)):
            supervisor.disturb(disturbance)
        supervisor.finish()
        notes = supervisor.notes
    async with store_at(*place) as store:
        await check(store, kind, notes)
    return notes


def disturbances(kind: str, times: int) -> Sequence[Disturbance]:
    """Each so often; now and then the server, where it is ours to restart."""
    restarts: Sequence[Disturbance] = ("restart",) * (times // 2)
    is_ours = kind == "postgres" and isinstance(postgres.server(), postgres.Own)
    return (*(times * DISTURBANCES), *(restarts if is_ours else ()))


async def check(store: VersionStore, kind: str, notes: list[Note]) -> None:
    # A frozen process may have the lock of the file, until it wakes up.
    assert {note.said for note in notes if note.kind == "failed"} <= ({"StoreBusy"} if kind == "sqlite" else set())
    undisturbed = MemoryStore()
    result = await jobs(0, 0).with_versioned_checkpoint(undisturbed).run(start(), run_id="r", deps=Nothing())
    paths = sorted(version.path for version in await undisturbed.versions("r"))
    for run_id, told in by_run(notes).items():
        check_owners(told)
        check_effects(told, LINES, is_behind=durability_of(run_id) == "async")
        await check_kept(store, run_id, told)
        run, versions = await store.read(run_id), await stored_versions(store, run_id)
        assert (run.status, run.owner, run.head) == ("completed", None, versions[-1].seq)
        assert sorted(version.path for version in versions) == paths
        assert (await store.resolve(versions[-1].id)).state == result.state  # type: ignore[attr-defined]


# The supervisor -------------------------------------------------------------------------------------------------------


class Supervisor:
    """Two workers, one of them perhaps of another machine, for all that can be seen; the dead are replaced."""

    def __init__(self, folder: Path, place: Sequence[str], moments: random.Random, stack: ExitStack) -> None:
        self._folder, self._place, self._moments, self._stack = folder, place, moments, stack
        self._reader = stack.enter_context(closing(Reader(folder / "witness")))
        self.notes: list[Note] = []
        self._noted = Counter[int]()
        self._owner: dict[str, int] = {}
        self._workers = [self._started(), self._started()]

    def disturb(self, disturbance: Disturbance) -> None:
        """Wait for a random moment, and kill a worker, or freeze it until another has taken something over."""
        number, more = self._moments.randrange(2), self._moments.randint(0, 30)
        match disturbance:
            case "restart":
                self._wait_for_notes(more)
                postgres.server().restart()
            case "kill":
                self._wait_for_notes(more)
                self._kill(number)
            case "freeze":
                self._freeze(number, more)
                self._workers[number].send_signal(signal.SIGCONT)
            case "freeze and kill":
                self._freeze(number, more)
                self._kill(number)

    def finish(self) -> None:
        """No more runs are begun; those that were are done by whoever is alive."""
        (self._folder / "last").touch()
        self._until(lambda: all(worker.poll() == 0 for worker in self._workers))
        self._read()

    def _started(self) -> "subprocess.Popen[bytes]":
        host = self._moments.choice("-b")
        script = Path(__file__).parent / "support" / "worker_child.py"
        command = [sys.executable, "-W", "error", script, self._folder, host, *self._place]
        with (self._folder / "said").open("ab") as said:
            worker = subprocess.Popen(command, env=ENVIRONMENT, stdout=said, stderr=said)
        self._stack.callback(worker.wait)
        self._stack.callback(worker.kill)
        return worker

    def _kill(self, number: int) -> None:
        self._workers[number].kill()
        self._workers[number].wait()
        self._workers[number] = self._started()

    def _freeze(self, number: int, more: int) -> None:
        pid = self._workers[number].pid
        self._wait_for_notes(more, pid)
        self._workers[number].send_signal(signal.SIGSTOP)
        self._wait_for_another(pid)

    def _wait_for_notes(self, more: int, pid: int | None = None) -> None:
        """Until the worker of this id, or any, has noted so many more; and works on something."""

        def noted() -> int:
            return len(self.notes) if pid is None else self._noted[pid]

        self._read()
        end = noted() + more
        self._until(lambda: noted() >= end and (pid is None or pid in self._owner.values()))

    def _wait_for_another(self, pid: int) -> None:
        """Until a run of a worker that is frozen is another's; in vain where it has the lock of the file."""
        self._read()
        held = {run_id for run_id, owner in self._owner.items() if owner == pid}
        end = monotonic() + ENOUGH
        self._until(lambda: monotonic() > end or any(self._owner.get(run_id) != pid for run_id in held))

    def _until(self, condition: Callable[[], bool]) -> None:
        end = monotonic() + LONGEST
        while not condition():
            assert monotonic() < end, self._said()
            assert all(worker.poll() in (None, 0) for worker in self._workers), self._said()
            self._read()
            sleep(0.002)

    def _read(self) -> None:
        for note in self._reader.more():
            self.notes.append(note)
            self._noted[note.pid] += 1
            if note.kind == "owns":
                self._owner[note.run_id] = note.pid
            elif note.kind == "ended":
                self._owner.pop(note.run_id, None)

    def _said(self) -> str:
        return f"the workers said: {(self._folder / 'said').read_text()}"
