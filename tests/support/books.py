"""A database with a store in it, and a table of the user's that steps write to in transactions."""

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast

import aiosqlite
import asyncpg
import pytest

from flowneer_async import Context, FlowBuilder, FlowError, TransactionalStore, VersionStore
from flowneer_stores import PostgresStore, SqliteStore
from tests.support.postgres import schema_of, server

State: TypeAlias = dict[str, Any]
Ctx: TypeAlias = Context[Any]


class Books(ABC):
    """One database; what is booked there is a row with the path of the step that did it."""

    CREATE = "CREATE TABLE IF NOT EXISTS booked (number INTEGER PRIMARY KEY, step TEXT NOT NULL)"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @asynccontextmanager
    async def store(self, **options: Any) -> AsyncGenerator[TransactionalStore, None]:
        """The store, as a process of its own opens it, with the user's table beside its own ones."""
        async with self._store(**options) as store:
            self._do(self.CREATE)
            yield store

    def rows(self) -> list[str]:
        """What was booked, in order."""
        return [step for (step,) in self._do("SELECT step FROM booked ORDER BY number")]

    def clear(self) -> None:
        """Forget what was booked."""
        self._do("DELETE FROM booked")

    def take_over(self, run_id: str) -> None:
        """Let another owner claim a run."""
        self._do(f"UPDATE flowneer_runs SET epoch = epoch + 1 WHERE run_id = '{run_id}'")

    @abstractmethod
    def _store(self, **options: Any) -> AbstractAsyncContextManager[TransactionalStore]: ...

    @abstractmethod
    def _do(self, sql: str) -> Sequence[Any]: ...


class SqliteBooks(Books):
    """In a file."""

    def _store(self, **options: Any) -> SqliteStore:
        return SqliteStore(self.folder / "runs.db", **options)

    def _do(self, sql: str) -> Sequence[Any]:
        db = sqlite3.connect(self.folder / "runs.db")
        try:
            with db:
                return db.execute(sql).fetchall()
        finally:
            db.close()


class PostgresBooks(Books):
    """In a schema of the tests' server, which is where its sessions look for tables."""

    CREATE = "CREATE TABLE IF NOT EXISTS booked (number SERIAL PRIMARY KEY, step TEXT NOT NULL)"

    @property
    def dsn(self) -> str:
        given = server().dsn
        return f"{given}{'&' if '?' in given else '?'}search_path={schema_of(self.folder)}"

    def _store(self, **options: Any) -> PostgresStore:
        return PostgresStore(self.dsn, schema=schema_of(self.folder), **options)

    def _do(self, sql: str) -> Sequence[Any]:
        with ThreadPoolExecutor() as thread:  # where no event loop runs
            return thread.submit(asyncio.run, self._fetch(sql)).result()

    async def _fetch(self, sql: str) -> Sequence[Any]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetch(sql)
        finally:
            await connection.close()


BOOKS: dict[str, type[Books]] = {"sqlite": SqliteBooks, "postgres": PostgresBooks}


async def book(connection: object, step: str) -> None:
    """Add a row."""
    if isinstance(connection, aiosqlite.Connection):
        await connection.execute("INSERT INTO booked (step) VALUES (?)", (step,))
    else:
        assert isinstance(connection, asyncpg.Connection)
        await cast(Any, connection).execute("INSERT INTO booked (step) VALUES ($1)", step)


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


async def failure_of(flow: FlowBuilder[State], store: VersionStore, run_id: str = "r") -> BaseException:
    """What the failed step of a run has raised."""
    with pytest.raises(FlowError) as failed:
        await flow.with_versioned_checkpoint(store).run({}, run_id=run_id)
    return failed.value.cause
