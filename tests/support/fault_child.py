"""A process that lets calls fail while runs are stored, a case after the other, and says what became of each.

    python fault_child.py SCRATCH < CASES > OUTCOMES

Each case is a line of JSON, and so is each outcome. Runs of thirty versions are stored by a copy of the process as it
was before the first case: one that has imported everything, and has no thread yet. Another copy then looks at what is
stored.
"""

import asyncio
import gc
import json
import os
import pickle
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flowneer_async import FlowBuilder, FlowneerError, Lease, Run, Version
from flowneer_stores import SqliteStore
from flowneer_stores.sqlite import connect
from tests.support.chains import stored_states
from tests.support.faulty_io import Faults

STEPS = 29
MOST_SECONDS = 60
"""A case that takes longer hangs."""

State = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Which calls fail, and how, and what for: runs at once, `half` of which a process has stored that was killed."""

    kinds: str = ""
    call: int = 0
    error: int = 0
    calls: int = 1
    half_write: bool = False
    runs: tuple[str, ...] = ("r",)
    half: bool = False


@dataclass
class Outcome:
    """What became of a case."""

    calls: int = 0
    """How many there were of its kinds until the first error."""
    killed: int = 0
    """By which signal."""
    errors: list[str] = field(default_factory=list[str])
    """All that were ours, in order."""
    wrong: list[str] = field(default_factory=list[str])
    """All that should not be."""


def thirty(stop_at: int | None = None) -> FlowBuilder[State]:
    """A flow of thirty versions, its root one of them; it kills its process in step `stop_at`."""
    flow: FlowBuilder[State] = FlowBuilder("thirty")
    for index in range(STEPS):
        flow = flow.then(_step(index, index == stop_at), name=str(index))
    return flow


def _step(index: int, stops: bool) -> Callable[[State], None]:
    def step(state: State) -> None:
        if stops:
            os.kill(os.getpid(), signal.SIGKILL)
        state["log"].append(index)
        state["page"] = f"{index} " * 500

    return step


def state_after(versions: int) -> State:
    """The state of a run that has so many versions."""
    done = versions - 1
    return {"log": list(range(done))} | ({"page": f"{done - 1} " * 500} if done else {})


class Acknowledging(SqliteStore):
    """A store that writes down, elsewhere, what it has acknowledged."""

    def __init__(self, path: Path, told: Path) -> None:
        super().__init__(path)
        self._told = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        lease = await super().create(run, versions)
        if lease is not None:
            os.write(self._told, pickle.dumps(tuple(versions)))
        return lease

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        await super().append(lease, versions)
        os.write(self._told, pickle.dumps(tuple(versions)))


def acknowledged(told: Path) -> list[Version]:
    versions: list[Version] = []
    with told.open("rb") as file:
        while file.peek(1):
            versions += pickle.load(file)
    return versions


class Place:
    """Where a case is played."""

    def __init__(self, scratch: Path) -> None:
        self.files, self.told, self.outcome = scratch / "files", scratch / "told", scratch / "outcome"
        self.database = self.files / "runs.db"
        self._half = scratch / "half"

    def clear(self, half: bool) -> None:
        """Have nothing there, or half of a run."""
        shutil.rmtree(self.files, ignore_errors=True)
        for path in (self.told, self.outcome):
            path.unlink(missing_ok=True)
        if half:
            shutil.copytree(self._half / "files", self.files)
            shutil.copy(self._half / "told", self.told)
        else:
            self.files.mkdir()
            self.told.touch()

    def keep_half(self) -> None:
        """What is there now is what others begin with."""
        shutil.copytree(self.files, self._half / "files")
        shutil.copy(self.told, self._half / "told")


async def run_all(store: SqliteStore, run_ids: Sequence[str], stop_at: int | None = None) -> list[str]:
    """Do the runs at once, begun or not; what is wrong with their results. Raises what any of them does, at the end."""
    flow = thirty(stop_at).with_versioned_checkpoint(store)
    runs = (flow.run({"log": []}, run_id=run_id) for run_id in run_ids)
    results = await asyncio.gather(*runs, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    right = state_after(STEPS + 1)
    return [
        f"the state of {each.run_id}" for each in results if not isinstance(each, BaseException) and each.state != right
    ]


async def half_a_run(place: Place) -> None:
    async with SqliteStore(place.database) as other:
        await thirty().with_versioned_checkpoint(other).run({"log": []}, run_id="other")
    async with Acknowledging(place.database, place.told) as store:
        await run_all(store, Case.runs, stop_at=STEPS // 2)


async def disturbed(place: Place, faults: Faults, case: Case, outcome: Outcome) -> None:
    """Run until it goes well. Nothing fails any more from the first error on."""
    faults.arm(case.kinds, case.call, case.error, calls=case.calls, half=case.half_write)

    async def tried(work: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await work()
        except FlowneerError as error:
            outcome.calls = outcome.calls or faults.calls
            outcome.errors.append(type(error).__name__)
            faults.lift()
            return False

    async def opened() -> bool:
        async with Acknowledging(place.database, place.told) as store:

            async def run() -> bool:
                outcome.wrong += await run_all(store, case.runs)
                return True

            return await tried(run) or await tried(run)

    for _ in range(3):
        if await tried(opened):
            break
    else:
        outcome.wrong.append("it fails over and over")
    outcome.calls = outcome.calls or faults.calls


async def looked_at(place: Place, case: Case, outcome: Outcome) -> None:
    """In a new process: do the runs once more, and read all that is stored."""
    stored: list[Version] = []
    async with SqliteStore(place.database) as store:
        outcome.wrong += await run_all(store, case.runs)
        for run_id in case.runs:
            if await stored_states(store, run_id) != [state_after(number + 1) for number in range(STEPS + 1)]:
                outcome.wrong.append(f"the states of the versions of {run_id}")
            stored += await store.versions(run_id)
    lost = set(acknowledged(place.told)) - set(stored)
    outcome.wrong += [f"{version.id}, which was acknowledged, is lost" for version in lost]
    with closing(sqlite3.connect(place.database)) as db:
        found = db.execute("PRAGMA integrity_check").fetchone()
    if found != ("ok",):
        outcome.wrong.append(f"the file: {found}")


def watched(work: Callable[[Outcome], Awaitable[None]], outcome: Outcome) -> None:
    """Do it, and note all that is not one of our errors; threads that are left, and errors that nobody was told."""

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: outcome.wrong.append(str(context)))
        await work(outcome)
        gc.collect()

    sys.unraisablehook = lambda stray: outcome.wrong.append(repr(stray.exc_value))
    try:
        asyncio.run(main())
    except Exception as error:
        outcome.wrong.append(repr(error))
    gc.collect()
    for thread in threading.enumerate()[1:]:
        thread.join(MOST_SECONDS / 2)
        outcome.wrong += [f"a thread is left: {thread.name}"] * thread.is_alive()


def in_a_copy(place: Place, work: Callable[[Outcome], Awaitable[None]]) -> Outcome:
    """Do it in a copy of this process, and give what it says."""
    place.outcome.unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        signal.alarm(MOST_SECONDS)
        outcome = Outcome()
        watched(work, outcome)
        place.outcome.write_text(json.dumps(asdict(outcome)))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    outcome = Outcome(**json.loads(place.outcome.read_text())) if place.outcome.exists() else Outcome()
    outcome.killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return outcome


def played(place: Place, faults: Faults, case: Case) -> Outcome:
    place.clear(case.half)
    outcome = in_a_copy(place, lambda outcome: disturbed(place, faults, case, outcome))
    after = in_a_copy(place, lambda outcome: looked_at(place, case, outcome))
    outcome.wrong += after.wrong + ["a new process was killed"] * bool(after.killed)
    return outcome


def main(scratch: str) -> None:
    # So that there are checkpoints in the midst of it.
    small = "PRAGMA wal_autocheckpoint = 8"
    connect._SETTINGS = tuple(small if "autocheckpoint" in setting else setting for setting in connect._SETTINGS)
    place, faults = Place(Path(scratch)), Faults()
    place.clear(False)
    in_a_copy(place, lambda _: half_a_run(place))
    place.keep_half()
    gc.freeze()  # so that no copy looks at what all of them share
    for line in sys.stdin:
        print(json.dumps(asdict(played(place, faults, Case(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
