"""Opening a SQLite file: its mode, its settings, its schema."""

import errno
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import aiosqlite

from flowneer_async.errors import SchemaTooNew, StoreFailed
from flowneer_stores.sqlite import queries
from flowneer_stores.sqlite.translate import is_busy, translated

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

_PAUSE = 0.005  # seconds between two tries
_LEAST_SQLITE = (3, 37, 0)
_SETTINGS = (
    # Larger than SQLite's own 4096: versions of about 1 KB then leave little of a page unused.
    "PRAGMA page_size = 8192",
    # So that pages of what was dropped can be given back without writing the whole file anew; for new files only.
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA wal_autocheckpoint = 500",
)
_SCHEMA_TABLE = "CREATE TABLE IF NOT EXISTS flowneer_schema (version INTEGER NOT NULL) STRICT"


async def open_writer(path: Path, timeout: float, sleep: Sleep) -> aiosqlite.Connection:
    """The connection that writes, to a file of the current schema; raises a StoreError."""
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise StoreFailed(str(path), "opening", f"SQLite {sqlite3.sqlite_version} is older than 3.37")
    _create_private(path)
    db = await _connect(path, timeout)
    try:
        for setting in _SETTINGS:
            await do_when_free(db, setting, timeout, sleep)
        ((mode,),) = await db.execute_fetchall("PRAGMA journal_mode")
        if mode != "wal":
            raise StoreFailed(str(path), "opening", "its file system has no shared memory, which WAL needs")
        await _migrate(db, str(path))
    except BaseException as error:
        raise await _closed(db, error, path, timeout) from error
    return db


async def open_reader(path: Path, timeout: float) -> aiosqlite.Connection:
    """A connection that only reads."""
    db = await _connect(path, timeout)
    try:
        await db.execute_fetchall("PRAGMA query_only = ON")
    except BaseException as error:
        raise await _closed(db, error, path, timeout) from error
    return db


async def _closed(db: aiosqlite.Connection, error: BaseException, path: Path, timeout: float) -> BaseException:
    """Close a connection that cannot be used, and give the error to raise for `error`."""
    await db.close()
    if isinstance(error, (sqlite3.Error, UnicodeDecodeError)):
        return translated(error, str(path), "opening", timeout)
    return error


async def _connect(path: Path, timeout: float) -> aiosqlite.Connection:
    try:
        # In autocommit mode each statement is a transaction of its own.
        return await aiosqlite.connect(path, timeout=timeout, isolation_level=None)
    except sqlite3.Error as error:
        raise translated(error, str(path), "opening", timeout) from error


def _create_private(path: Path) -> None:
    """Create the file for its owner alone; SQLite gives the files beside it (-wal, -shm) the same mode.

    A file that is there is never opened: closing it again would drop all locks that this process has on it, behind
    SQLite's back (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        _check_usable(path)
    except OSError as error:
        raise StoreFailed(str(path), "opening", error.strerror or str(error)) from error


def _check_usable(path: Path) -> None:
    if path.is_dir():
        raise StoreFailed(str(path), "opening", os.strerror(errno.EISDIR))
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreFailed(str(path), "opening", os.strerror(errno.EACCES))


async def do_when_free(db: aiosqlite.Connection, statement: str, timeout: float, sleep: Sleep) -> None:
    """Do what other programs may be in the way of, and wait for them: for the change to WAL, SQLite itself does not."""
    waited = 0.0
    while True:
        try:
            await db.execute_fetchall(statement)
        except sqlite3.OperationalError as error:
            if waited >= timeout or not is_busy(error):
                raise
        else:
            return
        await sleep(_PAUSE)
        waited += _PAUSE


async def _migrate(db: aiosqlite.Connection, place: str) -> None:
    await db.execute_fetchall("BEGIN IMMEDIATE")
    try:
        await _upgrade(db, await _schema(db), place)
    except BaseException:
        await db.rollback()
        raise
    await db.commit()


async def _schema(db: aiosqlite.Connection) -> int:
    """The number of the schema that the file has; 0 for a new one."""
    await db.execute_fetchall(_SCHEMA_TABLE)
    rows = list(await db.execute_fetchall("SELECT version FROM flowneer_schema"))
    return int(rows[0][0]) if rows else 0


async def _upgrade(db: aiosqlite.Connection, found: int, place: str) -> None:
    known = len(queries.MIGRATIONS)
    if found > known:
        raise SchemaTooNew(place, found, known)
    for script in queries.MIGRATIONS[found:]:
        for statement in script.split(";\n\n"):
            await db.execute_fetchall(statement)
    if found == 0:
        await db.execute_fetchall("INSERT INTO flowneer_schema (version) VALUES (?)", (known,))
    elif found < known:
        await db.execute_fetchall("UPDATE flowneer_schema SET version = ?", (known,))
