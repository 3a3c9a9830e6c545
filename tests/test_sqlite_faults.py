"""A SqliteStore on a disk that is full, in a file that is locked, and with rows that are damaged or gone."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import (
    BrokenChain,
    CorruptRun,
    CorruptVersion,
    FlowBuilder,
    FlowError,
    NotADatabase,
    RunBusy,
    StoreBusy,
    StoreError,
    StoreFull,
    UnknownVersion,
)
from flowneer_async.store import resolve
from flowneer_stores import SqliteStore
from flowneer_stores.sqlite.desk import SqliteDesk
from tests.support.counting import COUNTING, State, count, counts

BIG = "x" * 2_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(path, timeout=0) as store:
        yield store


# A full disk --------------------------------------------------------------------------------------------------------


async def leave_room(store: SqliteStore, pages: int) -> None:
    """As if the disk had so many pages left."""
    writer = store._open.db
    ((count,),) = await writer.execute_fetchall("PRAGMA page_count")
    await writer.execute_fetchall(f"PRAGMA max_page_count = {count + pages}")


async def grow(state: State) -> None:
    state["n"] += 1
    state["text"] = BIG


def fail(state: State) -> None:
    raise ValueError


GROWING = FlowBuilder[State]("growing").start_with(count).then(grow).then(count, name="last")


async def test_a_full_disk_stops_only_what_does_not_fit(store: SqliteStore) -> None:
    """Of runs that are stored together, those that fit are stored, and the one that does not is told so."""
    await leave_room(store, 40)
    growing = GROWING.with_versioned_checkpoint(store)
    runs = (counts(store, f"r{number}") for number in range(5))
    done = await asyncio.gather(growing.run({"n": 0}, run_id="big"), *runs, return_exceptions=True)
    assert [type(each) for each in done] == [StoreFull, *[type(None)] * 5]
    assert "free some room" in str(done[0])


async def test_a_run_goes_on_once_there_is_room(store: SqliteStore) -> None:
    """What was stored before the disk was full is kept; the run is free, and the same id ends it."""
    await leave_room(store, 40)
    flow = GROWING.with_versioned_checkpoint(store)
    with pytest.raises(StoreFull):
        await flow.run({"n": 0}, run_id="big")
    read = await store.read("big")
    assert (read.status, read.head, read.owner) == ("running", 1, None)
    await leave_room(store, 10_000)
    result = await flow.run(run_id="big")
    assert (result.state, result.version) == ({"n": 3, "text": BIG}, "big@3")


# A locked file ------------------------------------------------------------------------------------------------------


async def test_a_file_locked_by_another_program_is_named(path: Path, store: SqliteStore) -> None:
    """As long as another holds the file, writers are told to try again, readers read on; afterwards all works."""
    await counts(store, "before")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="try again") as caught:
            await counts(store, "r")
        assert (caught.value.place, caught.value.seconds) == (str(path), 0)
        assert (await resolve(store, "before@3")).state == {"n": 3}
        with pytest.raises(StoreBusy):
            async with SqliteStore(path, timeout=0):
                pass
    await counts(store, "r")


async def test_a_run_goes_on_after_the_file_was_locked(path: Path, store: SqliteStore) -> None:
    """A run that met a locked file in its middle is not over, and not locked out of itself."""
    other = sqlite3.connect(path, isolation_level=None)

    def lock(state: State) -> None:
        state["n"] += 1
        other.execute("BEGIN IMMEDIATE")

    locking = FlowBuilder[State]("counting").start_with(count, name="1").then(lock, name="2")
    with closing(other), pytest.raises(StoreBusy):
        await locking.with_versioned_checkpoint(store).run({"n": 0}, run_id="r")
    assert (await store.read("r")).head == 1
    await counts(store, "r")


async def test_runs_wait_for_a_locked_file_together(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock is nobody's own fault: writes that share a transaction are not tried again one by one."""
    tries: list[int] = []
    execute = SqliteDesk.execute

    async def counted(self: SqliteDesk, statement: str, rows: Sequence[Any]) -> Any:
        tries.append(len(rows))
        return await execute(self, statement, rows)

    monkeypatch.setattr(SqliteDesk, "execute", counted)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        done = await asyncio.gather(*(counts(store, f"r{number}") for number in range(50)), return_exceptions=True)
    assert {type(each) for each in done} == {StoreBusy}
    assert len(tries) < 5


# Rows ---------------------------------------------------------------------------------------------------------------


def change(path: Path, sql: str, *values: object) -> None:
    """Do to the file what no store does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute(sql, values).rowcount == 1


def flip(path: Path, column: str, seq: int) -> None:
    """Change one bit in the middle of a cell."""
    with closing(sqlite3.connect(path)) as db:
        ((cell,),) = db.execute(f"SELECT {column} FROM flowneer_versions WHERE seq = ?", (seq,))
    data = bytearray(cell)
    data[len(data) // 2] ^= 1
    change(path, f"UPDATE flowneer_versions SET {column} = ? WHERE seq = ?", bytes(data), seq)


async def damaged(store: SqliteStore, seq: int) -> None:
    """Version `seq` of r and all that build on it are refused by name; those before it, and other runs, are not."""
    for number in range(4):
        if number < seq:
            assert (await resolve(store, f"r@{number}")).state == {"n": number}
            continue
        for read in (resolve(store, f"r@{number}"), COUNTING.resume_from(f"r@{number}", store).run(run_id="fork")):
            with pytest.raises(CorruptVersion) as caught:
                await read
            assert caught.value.version == f"r@{seq}"
    with pytest.raises(CorruptVersion, match="resume from an earlier one"):
        await COUNTING.with_versioned_checkpoint(store).run(run_id="r")
    if seq:
        fork = await COUNTING.resume_from(f"r@{seq - 1}", store).run()
        assert fork.state == {"n": 3}
    await counts(store, "other")


@pytest.mark.parametrize("seq", range(4))
@pytest.mark.parametrize("column", ["body", "digest"])
async def test_a_single_bit_is_missed(path: Path, store: SqliteStore, column: str, seq: int) -> None:
    """One bit that is not what it was, in the content of a version or in its digest, is found and named."""
    await counts(store, "r")
    flip(path, column, seq)
    await damaged(store, seq)


@pytest.mark.parametrize("seq", [0, 2])
@pytest.mark.parametrize(
    ("column", "value"), [("path", "3"), ("step_index", 7), ("timestamp", 1), ("fork_of", "s@1"), ("body", b"")]
)
async def test_a_changed_field_is_missed(path: Path, store: SqliteStore, column: str, value: object, seq: int) -> None:
    """Position, time and origin of a version are as safe as its content."""
    await counts(store, "r")
    change(path, f"UPDATE flowneer_versions SET {column} = ? WHERE seq = ?", value, seq)
    await damaged(store, seq)


@pytest.mark.parametrize("base", [-1, 1, 2, 3, 10**15])
async def test_a_wrong_keyframe_is_missed(path: Path, store: SqliteStore, base: int) -> None:
    """A version that points to another keyframe than its own never resolves to a wrong state."""
    await counts(store, "r")
    change(path, "UPDATE flowneer_versions SET base = ? WHERE seq = 2", base)
    for seq in (2, 3):
        with pytest.raises((CorruptVersion, BrokenChain, UnknownVersion)):
            await resolve(store, f"r@{seq}")
    await counts(store, "other")


@pytest.mark.parametrize("seq", [0, 1, 2])
async def test_a_missing_row_is_missed(path: Path, store: SqliteStore, seq: int) -> None:
    """A version that is gone is unknown, those that build on it say which is missing, those before it are whole."""
    await counts(store, "r")
    change(path, "DELETE FROM flowneer_versions WHERE seq = ?", seq)
    with pytest.raises(UnknownVersion):
        await resolve(store, f"r@{seq}")
    for version in range(seq):
        assert (await resolve(store, f"r@{version}")).state == {"n": version}
    with pytest.raises(BrokenChain, match="restore the store") as caught:
        await COUNTING.with_versioned_checkpoint(store).run(run_id="r")
    assert (caught.value.version, caught.value.missing) == ("r@3", f"r@{seq}")
    await counts(store, "other")


async def test_a_missing_last_row_is_missed(path: Path, store: SqliteStore) -> None:
    """A finished run whose last version is gone gives no result, rather than an earlier state."""
    await counts(store, "r")
    change(path, "DELETE FROM flowneer_versions WHERE seq = 3")
    with pytest.raises(StoreError):
        await COUNTING.with_versioned_checkpoint(store).run(run_id="r")
    assert (await resolve(store, "r@2")).state == {"n": 2}
    await counts(store, "other")


async def test_two_runs_do_not_share_versions(path: Path, store: SqliteStore) -> None:
    """A row that has come to stand in another run's chain is not taken for that run's."""
    await counts(store, "r")
    await counts(store, "s", secret="s")
    change(path, "DELETE FROM flowneer_versions WHERE run = 1 AND seq = 2")
    change(path, "UPDATE flowneer_versions SET run = 1 WHERE run = 2 AND seq = 2")
    with pytest.raises(CorruptVersion):
        await resolve(store, "r@2")
    with pytest.raises(BrokenChain):
        await resolve(store, "s@3")


async def test_damaged_steps_are_named(path: Path, store: SqliteStore) -> None:
    """A run whose list of steps cannot be read is refused by name; other runs go on."""
    await counts(store, "r")
    change(path, "UPDATE flowneer_runs SET steps = '[' WHERE run_id = 'r'")
    with pytest.raises(CorruptRun, match="'r'"):
        await counts(store, "r")
    await counts(store, "other")


@pytest.mark.parametrize("steps", ["null", "7", "{}", "[1]", '"text"'])
async def test_steps_of_a_wrong_kind_are_named(path: Path, store: SqliteStore, steps: str) -> None:
    """JSON that is no list of texts is no list of steps."""
    await counts(store, "r")
    change(path, "UPDATE flowneer_runs SET steps = ? WHERE run_id = 'r'", steps)
    with pytest.raises(StoreError, match="'r'"):
        await store.read("r")
    await counts(store, "other")


@pytest.mark.parametrize(
    "owner", ["somebody", "", "::", "a:b:c", "host:x:1", "host:-1:1", "host:99999999999999999999:1"]
)
async def test_an_owner_of_an_unknown_kind_is_a_live_one(path: Path, store: SqliteStore, owner: str) -> None:
    """Of an owner whose name says nothing it cannot be known that it is dead: its lease has to lapse."""
    await counts(store, "other")
    flow = FlowBuilder[State]("f").start_with(fail).with_versioned_checkpoint(store)
    with pytest.raises(FlowError):
        await flow.run({}, run_id="r")
    change(path, "UPDATE flowneer_runs SET owner = ?, lease_until = ? WHERE run_id = 'r'", owner, 2**60)
    with pytest.raises(RunBusy):
        await flow.run({}, run_id="r")


async def test_a_file_with_overwritten_pages_is_named(path: Path) -> None:
    """A file that lost its second half is refused or its versions are, and no wrong state is given."""
    async with SqliteStore(path) as store:
        await counts(store, "r", text=BIG)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xff" * (len(data) // 2))
    with pytest.raises((NotADatabase, CorruptVersion)):
        async with SqliteStore(path) as store:
            await store.resolve("r@3")
