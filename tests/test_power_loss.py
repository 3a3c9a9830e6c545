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
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from flowneer_stores import SqliteStore
from tests.support import power_child
from tests.support.chains import stored_versions
from tests.support.disk import Disk, Record, records
from tests.support.faulty_io import compiled, environment
from tests.support.power_child import STEPS, ten_steps
from tests.support.promised import Promises, acknowledged, done_in, lost, promises

# So that there are several checkpoints, and the files are small.
SMALL = "wal_autocheckpoint = 24"


class Watched(NamedTuple):
    """What a process did in `folder`; it was killed after the first `killed` lines of the log, and went on."""

    folder: Path
    log: Sequence[Record]
    killed: int
    promised: Promises


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def full(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(library, tmp_path_factory.mktemp("full"), SMALL)


def live(library: Path, place: Path, life: int, *settings: str, sync: int = 0) -> Sequence[Record]:
    """Let a process live one of its lives on the folder `runs`; all that was ever done there."""
    folder, log = place / "runs", place / "log"
    command = [sys.executable, power_child.__file__, folder, str(life), str(sync), *settings]
    done = subprocess.run(command, env=environment(library, folder, log), timeout=60, check=False)
    assert done.returncode == (-9 if life == 1 else 0)
    return list(records(log))


def watched(library: Path, place: Path, *settings: str) -> Watched:
    """The first two lives of a process; what was there between them is in `killed`."""
    (place / "runs").mkdir()
    killed = live(library, place, 1, *settings)
    shutil.copytree(place / "runs", place / "killed")
    log = live(library, place, 2, *settings)
    return Watched(place / "runs", log, len(killed), promises(log))


def losses(
    log: Sequence[Record], ways: int, dice: random.Random, *, ordered: bool = False
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """So many ways to lose power: after how many lines of the log, and the files that are left then."""
    disk, done = Disk(ordered=ordered), 0
    for place in sorted(dice.choices(range(1, len(log) + 1), k=ways)):
        for record in log[done:place]:
            disk.do(record)
        done = place
        yield place, disk.left(dice)


@asynccontextmanager
async def after(left: dict[str, bytes], folder: Path) -> AsyncIterator[SqliteStore]:
    """The store, opened on what is left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in left.items():
        (folder / name).write_bytes(content)
    async with SqliteStore(folder / "runs.db") as store:
        yield store


async def forgotten(work: Watched, ways: int, folder: Path) -> int:
    """How many acknowledged requests are forgotten, in so many ways to lose power. After some of them a run goes on."""
    dice, total = thrown(), 0
    for place, left in losses(work.log, ways, dice):
        # What is in memory is lost, and nothing of its file may be believed.
        shared = {"runs.db-shm": dice.randbytes(32768)} if dice.random() < 0.2 else {}
        async with after(left | shared, folder) as store:
            total += await lost(store, work.promised, place)
            if dice.random() < 0.3:
                await goes_on(store, dice.choice(sorted(work.promised)))
    return total


def thrown() -> random.Random:
    """The dice; POWER_SEED throws the same again."""
    seed = int(os.environ.get("POWER_SEED") or random.randrange(2**32))
    print(f"POWER_SEED={seed}")  # shown where the test fails
    return random.Random(seed)


async def goes_on(store: SqliteStore, run_id: str) -> None:
    """A run, whatever is left of it, ends as it should."""
    result = await ten_steps().with_versioned_checkpoint(store).run({"log": []}, run_id=run_id)
    assert result.state["log"] == list(range(STEPS))
    assert (await store.resolve(f"{run_id}@{STEPS}")).state == result.state


def files(folder: Path) -> dict[str, bytes]:
    """All that lasts in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".db-shm"}


# What the tests can see -----------------------------------------------------------------------------------------------


OLD, NEW = b"o" * 2048, b"n" * 2048


def left_of(*records: Record, ways: int = 400) -> list[bytes | None]:
    """What may be left of a file that was `OLD`, was synced with the folder, and had this done to it."""
    disk, dice = Disk(), random.Random(0)
    opened = Record(b"D", 3, 0, b"/runs"), Record(b"O", 4, 0, b"/runs/file")
    written = Record(b"W", 4, 0, OLD), Record(b"S", 4, 0, b""), Record(b"S", 3, 0, b"")
    for record in (*opened, *written, *records):
        disk.do(record)
    return [disk.left(dice).get("file") for _ in range(ways)]


def test_an_unsynced_write_is_there_or_not_or_torn() -> None:
    """Whole, absent, or any of its four sectors: nothing else, and each of them at times. Once synced it is there."""
    write = Record(b"W", 4, 0, NEW)
    sectors = {tuple(left[at : at + 512] for at in range(0, 2048, 512)) for left in left_of(write) if left is not None}
    assert sectors == set(product((OLD[:512], NEW[:512]), repeat=4))
    assert set(left_of(write, Record(b"S", 4, 0, b""))) == {NEW}


def test_a_cut_or_a_removal_is_there_or_not() -> None:
    """A file that was cut is as long as before at times, and one that was removed is back, until that is synced."""
    cut, removed, synced = Record(b"T", 4, 512, b""), Record(b"U", -1, 0, b"/runs/file"), Record(b"S", 3, 0, b"")
    assert set(left_of(cut)) == {OLD, OLD[:512]}
    assert set(left_of(removed)) == {OLD, None}
    assert set(left_of(removed, synced)) == {None}


def test_a_sync_that_failed_makes_nothing_sure() -> None:
    """Nor does a later one that succeeds, but for what was written in between."""
    failed, synced = Record(b"F", 4, 0, b""), Record(b"S", 4, 0, b"")
    assert {OLD, NEW} < set(left_of(Record(b"W", 4, 0, NEW), failed, synced))
    again = Record(b"W", 4, 0, NEW)
    assert set(left_of(again, failed, again, synced)) == {NEW}


def test_every_write_is_seen(full: Watched) -> None:
    """All that was written down, done again, gives the very files: after the process was killed, and when it ended."""
    disk = Disk()
    for record in full.log[: full.killed]:
        disk.do(record)
    killed = files(full.folder.with_name("killed"))
    assert disk.whole() == killed
    assert {"runs.db", "runs.db-wal"} <= killed.keys()
    for record in full.log[full.killed :]:
        disk.do(record)
    assert disk.whole() == files(full.folder)


def test_the_process_did_all_there_is_to_lose(full: Watched) -> None:
    """It wrote the file, its log and its journal, synced them and the folder, cut files and removed some."""
    kinds = {record.kind for record in full.log}
    assert kinds == {b"O", b"D", b"W", b"T", b"S", b"U", b"C", b"N"}
    names = {Path(record.data.decode()).name for record in full.log if record.kind == b"O"}
    assert names == {"runs.db", "runs.db-wal", "runs.db-journal"}
    methods = {done.method for done in done_in(full.log)}
    assert methods == {"create", "refuse", "claim", "append", "release", "send", "drop", "purge"}


async def test_without_its_syncs_a_store_forgets(library: Path, tmp_path: Path) -> None:
    """With synchronous=NORMAL, what was acknowledged last is lost at times, and what is left is whole.

    So these tests see what is lost.
    """
    work = watched(library, tmp_path, SMALL, "synchronous = NORMAL")
    assert await forgotten(work, 25, tmp_path / "left") > 0


# What holds -----------------------------------------------------------------------------------------------------------


async def test_nothing_acknowledged_is_lost(full: Watched, tmp_path: Path) -> None:
    """In two hundred ways to lose power, each run has all that was acknowledged of it, and can go on."""
    assert await forgotten(full, 200, tmp_path / "left") == 0


@pytest.mark.torture
@pytest.mark.parametrize(
    "settings",
    [
        (SMALL,),
        ("wal_autocheckpoint = 4",),
        (SMALL, "page_size = 512"),
        ("wal_autocheckpoint = 100", "page_size = 4096"),
    ],
)
async def test_nothing_acknowledged_is_lost_in_twenty_thousand_ways(
    library: Path, tmp_path: Path, settings: Sequence[str]
) -> None:
    """The same for 5,000 ways, with pages and checkpoints of several sizes."""
    assert await forgotten(watched(library, tmp_path, *settings), 5000, tmp_path / "left") == 0


async def test_a_sync_that_failed_is_not_trusted_again(library: Path, tmp_path: Path) -> None:
    """A sync fails, so that writes before it may be lost though a later one succeeds: nothing is lost either."""
    await after_failed_syncs(library, tmp_path, (5, 31), 10)


@pytest.mark.torture
async def test_no_sync_that_failed_is_trusted_again(library: Path, tmp_path: Path) -> None:
    """The same for every sync that the process makes."""
    await after_failed_syncs(library, tmp_path, range(1, 1000), 15)


async def after_failed_syncs(library: Path, place: Path, syncs: Sequence[int], ways: int) -> None:
    dice = thrown()
    for sync in syncs:
        (place / str(sync) / "runs").mkdir(parents=True)
        log = live(library, place / str(sync), 3, SMALL, sync=sync)
        if not any(record.kind == b"F" for record in log):
            assert sync > 50
            return  # there are no more than these
        # SQLite passes over a sync of the folder that fails: then it hangs on what the file system does by itself.
        for at, left in losses(log, ways, dice, ordered=True):
            async with after(left, place / "left") as store:
                kept = {version for run_id in "abcd" for version in await stored_versions(store, run_id)}
                assert acknowledged(log[:at]) <= kept
                await goes_on(store, dice.choice("abcd"))
