"""A database with a store in it, and a table of the user's that steps write to in transactions."""

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import aiosqlite

from flowneer_async import Context, TransactionalStore, VersionStore
from flowneer_stores import SqliteStore

KINDS = ("sqlite",)

State: TypeAlias = dict[str, Any]
Ctx: TypeAlias = Context[Any]


class Books:
    """One database; what is booked there is a row with the path of the step that did it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.path = folder / "runs.db"

    @asynccontextmanager
    async def store(self, **options: Any) -> AsyncGenerator[TransactionalStore, None]:
        """The store, as a process of its own opens it, with the user's table beside its own ones."""
        async with SqliteStore(self.path, **options) as store:
            self._do("CREATE TABLE IF NOT EXISTS booked (step TEXT NOT NULL)")
            yield store

    def rows(self) -> list[str]:
        """What was booked, in order."""
        return [step for (step,) in self._do("SELECT step FROM booked ORDER BY rowid")]

    def clear(self) -> None:
        """Forget what was booked."""
        self._do("DELETE FROM booked")

    def take_over(self, run_id: str) -> None:
        """Let another owner claim a run."""
        self._do(f"UPDATE flowneer_runs SET epoch = epoch + 1 WHERE run_id = '{run_id}'")

    def _do(self, sql: str) -> list[Any]:
        db = sqlite3.connect(self.path)
        try:
            with db:
                return db.execute(sql).fetchall()
        finally:
            db.close()


async def book(connection: object, step: str) -> None:
    """Add a row."""
    assert isinstance(connection, aiosqlite.Connection)
    await connection.execute("INSERT INTO booked VALUES (?)", (step,))


async def booking(state: State, ctx: Ctx) -> None:
    """A step that books."""
    async with ctx.transaction() as connection:
        await book(connection, ctx.step)
    state["booked"] = state.get("booked", 0) + 1


def then(end: Callable[[State, Ctx], Awaitable[None]]) -> Callable[[State, Ctx], Awaitable[None]]:
    """A step that books, and then does something else before it ends."""

    async def step(state: State, ctx: Ctx) -> None:
        await booking(state, ctx)
        await end(state, ctx)

    return step


async def versions_of(store: VersionStore, run_id: str, steps: Sequence[str] = ()) -> list[str]:
    """The paths of the versions of a run, but for the root and notes; of these steps only, if any are named."""
    paths = [version.path for version in await store.versions(run_id)]
    kept = [path for path in paths if path and "@" not in path.rpartition("/")[2]]
    return [path for path in kept if not steps or path.rpartition("/")[2] in steps]
