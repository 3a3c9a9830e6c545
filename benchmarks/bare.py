"""The peer of the SQLite store: aiosqlite alone, in autocommit mode, with the store's own settings."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite

SETTINGS = (
    "PRAGMA page_size = 8192",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 500",
)
TABLE = "CREATE TABLE rows (run INTEGER, seq INTEGER, body BLOB, PRIMARY KEY (run, seq))"
INSERT = "INSERT INTO rows VALUES (?, ?, ?)"


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[aiosqlite.Connection]:
    async with aiosqlite.connect(path, isolation_level=None) as db:
        for statement in (*SETTINGS, TABLE):
            await db.execute_fetchall(statement)
        yield db


async def insert(db: aiosqlite.Connection, run: int, lengths: Sequence[int]) -> None:
    """One row of each length, one after the other, each a transaction of its own."""
    for seq, length in enumerate(lengths):
        await db.execute(INSERT, (run, seq, bytes(length)))


async def row_lengths(path: Path) -> list[int]:
    """How many bytes each version takes in a store's file, its key left out: what a bare body has to be as long as."""
    async with aiosqlite.connect(path) as db:
        rows = await db.execute_fetchall("SELECT * FROM flowneer_versions ORDER BY run, seq")
        return [sum(map(_cell_length, row[2:])) for row in rows]


def _cell_length(value: object) -> int:
    """A cell's bytes in SQLite's record format, with those that give its type."""
    if isinstance(value, int):
        return 1 + next(width for width in (0, 1, 2, 3, 4, 6, 8) if abs(value) < 1 << 8 * width >> 1)
    content = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b""
    return 1 + (len(content) > 57) + len(content)
