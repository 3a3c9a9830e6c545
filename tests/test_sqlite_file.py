"""The file of a SqliteStore: how it is opened, kept and closed."""

import asyncio
import os
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import flowneer_stores.sqlite.store
from flowneer_async import BadOption, NotADatabase, Run, SchemaTooNew, Signal, StoreClosed, StoreFailed
from flowneer_async.store import resolve
from flowneer_stores import SqliteStore
from tests.support.counting import counts, sidecars
from tests.support.talking import talking

NOBODY = 65534

# Opens a new file when told, many times; the other process is told the same.
OPENER = """
import asyncio, sys
from flowneer_stores import SqliteStore
from tests.support.counting import counts

async def main(folder, name):
    for number, _ in enumerate(sys.stdin):
        async with SqliteStore(f"{folder}/{number}.db") as store:
            await counts(store, name)
        print("done", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


READER = """
import asyncio, sys
from flowneer_stores import SqliteStore

async def main():
    async with SqliteStore(sys.argv[1]) as store:
        print((await store.resolve("r@3")).state)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def folder_of_others() -> Iterator[Path]:
    """A folder in which this process may not write; root may do so anywhere, and so becomes somebody else."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "old.db").touch(0o444)
        Path(folder).chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            if user == 0:
                os.seteuid(0)
            Path(folder).chmod(0o700)


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    """What another connection sees, or does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(sql).fetchall()


def tables(path: Path) -> set[object]:
    return {name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


async def refused(path: Path) -> str:
    """What is said where a file cannot be opened."""
    with pytest.raises(StoreFailed) as caught:
        async with SqliteStore(path):
            pass
    assert caught.value.place == str(path)
    return str(caught.value)


# Opening ------------------------------------------------------------------------------------------------------------


async def test_the_file_and_those_beside_it_are_for_their_owner_alone(path: Path) -> None:
    """State may be secret: the file, -wal and -shm have mode 0600, whatever the umask."""
    umask = os.umask(0)
    try:
        async with SqliteStore(path) as store:
            await counts(store, "r")
            assert [stat.S_IMODE(file.stat().st_mode) for file in sidecars(path)] == [0o600] * 3
    finally:
        os.umask(umask)


async def test_a_commit_survives_a_power_cut(path: Path) -> None:
    """The journal is a WAL, and every commit is synced to it."""
    async with SqliteStore(path) as store:
        writer = store._open.db
        assert list(await writer.execute_fetchall("PRAGMA journal_mode")) == [("wal",)]
        assert list(await writer.execute_fetchall("PRAGMA synchronous")) == [(2,)]
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("no_file", ["", ":memory:", Path(":memory:")])
def test_only_a_file_keeps_runs(no_file: str | Path) -> None:
    """SQLite's own memory databases, which two connections cannot share, are refused at once."""
    with pytest.raises(BadOption, match="MemoryStore"):
        SqliteStore(no_file)


@pytest.mark.parametrize("lease", [0, -1])
def test_a_lease_lasts_some_time(lease: float) -> None:
    """A lease of no time would never be held."""
    with pytest.raises(BadOption, match="lease"):
        SqliteStore("runs.db", lease=lease)


async def test_a_store_is_used_while_it_is_open(path: Path) -> None:
    """Before it is opened, after it was closed, and when it is closed again, it says so."""
    store = SqliteStore(path)
    with pytest.raises(StoreClosed):
        await counts(store, "r")
    async with store:
        await counts(store, "r")
    for use in (store.read("r"), store.chain("r@1"), store.versions("r"), store.signals("r"), counts(store, "s")):
        with pytest.raises(StoreClosed, match="async with"):
            await use
    with pytest.raises(StoreClosed):
        await store.__aexit__(None, None, None)


async def test_a_store_may_be_opened_again(path: Path) -> None:
    """What it kept is there, and it works as before."""
    store = SqliteStore(path)
    for run_id in ("r", "s"):
        async with store:
            await counts(store, run_id)
            assert (await store.read("r")).status == "completed"


async def test_an_open_store_is_not_opened_twice(path: Path) -> None:
    """The second opening is refused, and the first goes on."""
    async with SqliteStore(path) as store:
        with pytest.raises(StoreFailed, match="open already"):
            await store.__aenter__()
        await counts(store, "r")


async def test_signals_are_there_when_a_file_is_opened_again(path: Path) -> None:
    """What was sent before is read, and what is sent now is numbered after it."""
    sent: list[Signal] = []
    for name in ("one", "two", "three"):
        async with SqliteStore(path) as store:
            await store.create(Run("r", "counting", "dict", ()))
            assert list(await store.signals("r")) == sent
            sent.append(await store.send("r", name, bytes(range(256))))
    async with SqliteStore(path) as store:
        assert list(await store.signals("r")) == sent
    assert [signal.number for signal in sent] == [1, 2, 3]


async def test_a_file_remembers_its_schema(path: Path) -> None:
    """The number of the schema stands in a table of its own, once, however often the file is opened."""
    for _ in range(2):
        async with SqliteStore(path):
            pass
        assert rows(path, "SELECT version FROM flowneer_schema") == [(4,)]


async def test_a_newer_schema_is_left_alone(path: Path) -> None:
    """A file of a later release is not written to, and the error says what to do."""
    async with SqliteStore(path) as store:
        await counts(store, "r")
    rows(path, "UPDATE flowneer_schema SET version = 99")
    with pytest.raises(SchemaTooNew, match="upgrade") as caught:
        async with SqliteStore(path):
            pass
    assert (caught.value.found, caught.value.known) == (99, 4)
    assert rows(path, "SELECT version FROM flowneer_schema") == [(99,)]


@pytest.mark.parametrize(
    "content", [b"no database, but a text of some length\n" * 99, b"SQLite format 3\0" + b"\xff" * 5000]
)
async def test_what_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    """A file of another kind is named, and not changed."""
    path.write_bytes(content)
    with pytest.raises(NotADatabase, match="another file") as caught:
        async with SqliteStore(path):
            pass
    assert caught.value.path == str(path)
    assert path.read_bytes() == content


async def test_a_directory_is_no_store(tmp_path: Path) -> None:
    """Nor is a file in a directory that is not there."""
    assert "directory" in await refused(tmp_path)
    assert "No such file" in await refused(tmp_path / "none" / "runs.db")
    assert list(tmp_path.iterdir()) == []


async def test_a_place_that_cannot_be_written_is_no_store(folder_of_others: Path) -> None:
    """Neither a new file nor an existing one is opened where this process may not write."""
    assert "Permission denied" in await refused(folder_of_others / "new.db")
    assert "readonly" in await refused(folder_of_others / "old.db")
    assert [file.name for file in folder_of_others.iterdir()] == ["old.db"]


async def test_tables_of_others_are_left_alone(path: Path) -> None:
    """A program may keep its own tables in the same file."""
    rows(path, "CREATE TABLE mine AS SELECT 7 AS x")
    async with SqliteStore(path) as store:
        await counts(store, "r")
    assert rows(path, "SELECT x FROM mine") == [(7,)]
    ours = {"flowneer_runs", "flowneer_versions", "flowneer_signals", "flowneer_schema", "flowneer_tags"}
    assert tables(path) == {"mine", *ours}


async def test_a_schema_is_there_as_a_whole_or_not_at_all(path: Path) -> None:
    """Where one of the tables cannot be made, none is, and the file can be opened once the reason is gone."""
    rows(path, "CREATE TABLE flowneer_versions (x)")
    assert "already exists" in await refused(path)
    assert tables(path) == {"flowneer_versions"}
    rows(path, "DROP TABLE flowneer_versions")
    async with SqliteStore(path) as store:
        await counts(store, "r")


def test_processes_that_open_one_new_file_at_once_both_work(tmp_path: Path) -> None:
    """Whoever comes first makes the schema, and the other waits for it."""
    with ExitStack() as stack:
        openers = [stack.enter_context(talking(OPENER, tmp_path, name)) for name in "abc"]
        for _ in range(6):
            for opener in openers:
                opener.tell("open")
            assert [opener.hear() for opener in openers] == ["done"] * 3
        assert [opener.end() for opener in openers] == [0, 0, 0]


# Closing ------------------------------------------------------------------------------------------------------------


def resources() -> tuple[int, int, int]:
    """Threads, open files and tasks of this process, once the threads that are ending have ended."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(1)
    return threading.active_count(), len(os.listdir("/dev/fd")), len(asyncio.all_tasks())


async def test_opening_and_closing_leaves_nothing_behind(path: Path) -> None:
    """No thread, file or task outlives its store."""
    before = resources()
    for number in range(20):
        async with SqliteStore(path) as store:
            await counts(store, f"r{number}")
    assert resources() == before
    assert not any(file.exists() for file in sidecars(path)[1:])


async def test_an_opening_that_fails_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the first connection fails, or the second, none stays open."""

    async def fails(path: Path, timeout: float) -> None:
        raise StoreFailed(str(path), "opening", "as told")

    before = resources()
    monkeypatch.setattr(flowneer_stores.sqlite.store, "open_reader", fails)
    await refused(path)
    monkeypatch.undo()
    path.write_bytes(b"no database" * 99)
    with pytest.raises(NotADatabase):
        async with SqliteStore(path):
            pass
    assert resources() == before


async def test_a_cancelled_opening_leaves_nothing_behind(tmp_path: Path) -> None:
    """Wherever the opening is cancelled, the store is closed again, and can be opened."""

    async def use(store: SqliteStore) -> None:
        async with store:
            await counts(store, "r")

    before = resources()
    for turns in (0, 1, 2, 3, 5, 10, 30, 100, 300, 1000):
        store = SqliteStore(tmp_path / f"{turns}.db")
        task = asyncio.create_task(use(store))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert resources() == before, f"after {turns} turns"
        await use(store)


async def test_a_cancelled_closing_closes(path: Path) -> None:
    """A cancellation that comes while the store is closed waits until it is."""

    async def use() -> None:
        async with SqliteStore(path) as store:
            await counts(store, "r")
            closing.set()

    before, closing = resources(), asyncio.Event()
    for turns in (0, 1, 2, 3, 5, 10, 30):
        closing.clear()
        task = asyncio.create_task(use())
        await closing.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert resources() == before


async def test_what_is_asked_for_while_it_closes_is_done_or_refused(path: Path) -> None:
    """Whoever still uses a store that is being closed gets an answer."""
    async with SqliteStore(path) as store:
        tasks = [asyncio.create_task(counts(store, f"r{number}")) for number in range(20)]
        await asyncio.sleep(0)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in done} <= {type(None), StoreClosed}
    async with SqliteStore(path) as store:
        for number in range(20):
            await counts(store, f"r{number}")


async def test_a_whole_new_process_reads_what_was_stored(path: Path) -> None:
    """What one process stored, another resolves."""
    async with SqliteStore(path) as store:
        await counts(store, "r", text="ü" * 1000)
        expected = (await resolve(store, "r@3")).state
    with talking(READER, path) as reader:
        assert reader.hear() == str(expected)
        assert reader.end() == 0
