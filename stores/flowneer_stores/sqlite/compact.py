"""Giving the pages of what is no longer there back to the file system."""

import sqlite3
from pathlib import Path

import aiosqlite

from flowneer_stores.sqlite.translate import translated

_PAGES = 1000  # at once; then others may write


async def compacted(db: aiosqlite.Connection, path: Path, timeout: float) -> int:
    """Make the file as small as what it holds, and give how many bytes that has freed; raises a StoreError."""
    before = _size(path)
    try:
        await _vacuum(db)
        await db.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise translated(error, str(path), "compacting", timeout) from error
    return before - _size(path)


async def _vacuum(db: aiosqlite.Connection) -> None:
    if await _pragma(db, "auto_vacuum") != 2:
        await db.execute_fetchall("PRAGMA auto_vacuum = INCREMENTAL")
        await db.execute_fetchall("VACUUM")
    while await _pragma(db, "freelist_count"):
        await db.execute_fetchall(f"PRAGMA incremental_vacuum({_PAGES})")


async def _pragma(db: aiosqlite.Connection, name: str) -> int:
    ((value,),) = await db.execute_fetchall(f"PRAGMA {name}")
    return int(value)


def _size(path: Path) -> int:
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
