"""Where a store is, in words that another process can be given on its command line."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from flowneer_stores import SqliteStore

KINDS = ("sqlite", "postgres")


def place_of(kind: str, folder: Path) -> tuple[str, ...]:
    """The words for the store of this kind that belongs to a folder."""
    if kind == "sqlite":
        return (str(folder / "runs.db"),)
    from tests.support import postgres

    return postgres.server().dsn, postgres.schema_of(folder)


def store_at(*place: str, **options: Any) -> Any:
    """The store at a place."""
    if len(place) == 1:
        return SqliteStore(place[0], **options)
    from flowneer_stores import PostgresStore

    dsn, schema = place
    return PostgresStore(dsn, schema=schema, **options)


async def ask(place: Sequence[str], sql: str) -> Any:
    """One value, by a statement on `{runs}` that the store has nothing to do with."""
    if len(place) == 1:
        with closing(sqlite3.connect(place[0], isolation_level=None)) as db:
            return (db.execute(sql.format(runs="flowneer_runs")).fetchone() or [None])[0]
    import asyncpg

    connection = await asyncpg.connect(place[0])
    try:
        return await connection.fetchval(sql.format(runs=f'"{place[1]}".flowneer_runs'))
    finally:
        await connection.close()


async def lapse(place: Sequence[str]) -> None:
    """Let the time of every lease be over."""
    await ask(place, "UPDATE {runs} SET lease_until = 0")


async def lease_until(place: Sequence[str]) -> int:
    """When the lease of the only run will lapse: Unix time in ms."""
    return int(await ask(place, "SELECT lease_until FROM {runs}"))
