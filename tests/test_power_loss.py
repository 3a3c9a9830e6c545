"""The power goes while many runs are stored in SQLite: of what was acknowledged nothing is lost, with synchronous=FULL.

A process is watched (`faulty_io.c`); of every write that it made, and had not synced yet, any part may be missing
(`disk`); and what is stored has to be what had been acknowledged (`promised`).
"""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from flowneer_stores import SqliteStore
from tests.support import power_child
from tests.support.disk import Disk, Record, records
from tests.support.faulty_io import compiled, environment
from tests.support.power_child import STEPS, ten_steps
from tests.support.promised import Promises, lost, promises

# So that there are several checkpoints, and the files are small.
SMALL = "wal_autocheckpoint = 24"


class Watched(NamedTuple):
    """What a process did in `folder`."""

    folder: Path
    log: Sequence[Record]
    promised: Promises


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def full(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(library, tmp_path_factory.mktemp("full"), SMALL)


def live(library: Path, place: Path, life: str, *settings: str) -> None:
    """Let a process live one of its lives on the folder `runs`."""
    command = [sys.executable, power_child.__file__, place / "runs", *settings, life]
    done = subprocess.run(command, env=environment(library, place / "runs", place / "log"), timeout=60, check=False)
    assert done.returncode == {"1": -9, "2": 0}[life]


def watched(library: Path, place: Path, *settings: str) -> Watched:
    """Both lives of a process; what was there between them is in `killed`."""
    (place / "runs").mkdir()
    live(library, place, "1", *settings)
    shutil.copytree(place / "runs", place / "killed")
    live(library, place, "2", *settings)
    log = list(records(place / "log"))
    return Watched(place / "runs", log, promises(log))


def files(folder: Path) -> dict[str, bytes]:
    """All that lasts in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".db-shm"}


def losses(work: Watched, ways: int, dice: random.Random) -> Iterator[tuple[int, dict[str, bytes]]]:
    """So many ways to lose power: after how many lines of the log, and the files that are left then."""
    places = sorted(dice.choices(range(1, len(work.log) + 1), k=ways))
    disk, done = Disk(), 0
    for place in places:
        for record in work.log[done:place]:
            disk.do(record, work.folder)
        done = place
        yield place, disk.left(dice)


@asynccontextmanager
async def after(left: dict[str, bytes], folder: Path) -> AsyncIterator[SqliteStore]:
    """The store, opened on what is left."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in left.items():
        (folder / name).write_bytes(content)
    async with SqliteStore(folder / "runs.db") as store:
        yield store


async def total_loss(work: Watched, ways: int, folder: Path, seed: int) -> int:
    """How many acknowledged requests are forgotten, in so many ways to lose power. Each time a run goes on."""
    print(f"POWER_SEED={seed}")  # shown where the test fails
    dice, total = random.Random(seed), 0
    for place, left in losses(work, ways, dice):
        async with after(left, folder) as store:
            total += await lost(store, work.promised, place)
            await goes_on(store, dice.choice(sorted(work.promised)))
    return total


async def goes_on(store: SqliteStore, run_id: str) -> None:
    """A run, whatever is left of it, ends as it should."""
    result = await ten_steps().with_versioned_checkpoint(store).run({"log": []}, run_id=run_id)
    assert result.state["log"] == list(range(STEPS))
    assert (await store.resolve(f"{run_id}@{STEPS}")).state == result.state


def seed() -> int:
    return int(os.environ.get("POWER_SEED") or random.randrange(2**32))


def test_every_write_is_seen(full: Watched) -> None:
    """All that was written down, done again, gives the very files: after the process was killed, and when it ended."""
    disk, killed = Disk(), full.folder.with_name("killed")
    seen = []
    for record in full.log:
        disk.do(record, full.folder)
        if record.kind == b"N":
            continue
        seen.append(disk.whole() == files(killed))
    assert any(seen)
    assert disk.whole() == files(full.folder)
