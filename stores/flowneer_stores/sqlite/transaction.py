"""Transactions for steps: one at a time, each on a connection of its own, which is closed with it."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import aiosqlite

from flowneer_async.errors import StoreFailed
from flowneer_async.shield import complete
from flowneer_async.store import Lease, check_row
from flowneer_async.versions import Version
from flowneer_stores.rows import append_rows
from flowneer_stores.sqlite import queries
from flowneer_stores.sqlite.connect import Sleep, do_when_free
from flowneer_stores.sqlite.desk import SqliteDesk
from flowneer_stores.sqlite.lent import LentConnection
from flowneer_stores.sqlite.translate import translated
from flowneer_stores.sqlite.turns import Turns
from flowneer_stores.writer import Refused

_MOST_ROWS = 128  # in one statement

Refuse: TypeAlias = Callable[[Lease, Version], Awaitable[None]]
"""Raises why a version does not fit: Fenced or VersionConflict."""


class SqliteTransaction:
    """One of them; `end` is called when it is over."""

    def __init__(self, path: Path, timeout: float, refuse: Refuse, end: Callable[[], None]) -> None:
        self._path, self._timeout, self._refuse, self._end = path, timeout, refuse, end
        self._lent: LentConnection | None = None
        self._is_over = False
        # It waits in Python for those who keep the file locked: so the wait can be cancelled.
        self._db = aiosqlite.connect(path, timeout=0, isolation_level=None, factory=self._made)

    @property
    def connection(self) -> aiosqlite.Connection:
        """For the step's own statements; whatever would end the transaction is refused."""
        return self._db

    async def is_open(self) -> bool:
        """Can it be committed?"""
        try:
            return not self._is_over and self._db.in_transaction
        except ValueError:  # it was closed
            return False

    async def begin(self, sleep: Sleep) -> None:
        """Lock the file; raises a StoreError."""
        try:
            await complete(self._connect())
            await do_when_free(self._db, "BEGIN IMMEDIATE", self._timeout, sleep)
        except sqlite3.Error as error:
            raise translated(error, str(self._path), "beginning", self._timeout) from error
        self._lend(True)

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        """Append to the head of the owned run; raises Fenced, VersionConflict."""
        check_row(lease, versions)
        self._lend(False)
        if not await self.is_open():
            raise StoreFailed(str(self._path), "committing", "the transaction was ended on its connection")
        desk = SqliteDesk(self._db, str(self._path), self._timeout)
        for first in range(0, len(versions), _MOST_ROWS):
            part = versions[first : first + _MOST_ROWS]
            try:
                await desk.execute(queries.APPEND, append_rows(lease, part))
            except Exception as error:
                failure = desk.failure(error)
                if isinstance(failure, Refused):
                    await self._refuse(lease, part[0])
                raise failure from error

    async def commit(self) -> None:
        """Store all of it; where this raises, nothing is."""
        await complete(self._commit())

    async def rollback(self) -> None:
        """Undo all of it, unless it is over already."""
        await complete(self._close())

    def stop(self) -> None:
        """End the connection's thread, and with it the transaction, where no time is left."""
        self._db.stop()  # pyright: ignore[reportUnknownMemberType]

    async def _connect(self) -> None:
        await self._db

    async def _commit(self) -> None:
        self._lend(False)
        try:
            await self._db.commit()
        except Exception as error:
            raise translated(error, str(self._path), "committing", self._timeout) from error
        finally:
            await self._close()

    async def _close(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._lend(False)
        try:
            with suppress(Exception):  # then it is closed all the same
                await self._db.close()
        finally:
            self._end()

    def _made(self, *args: Any, **options: Any) -> LentConnection:
        """Make the connection, in the thread that it is used in."""
        self._lent = LentConnection(*args, **options)
        return self._lent

    def _lend(self, is_lent: bool) -> None:
        if self._lent is not None:
            self._lent.is_lent = is_lent


class Transactions:
    """Those of one store."""

    def __init__(self, path: Path, timeout: float, sleep: Sleep, refuse: Refuse) -> None:
        self._path, self._timeout, self._sleep, self._refuse = path, timeout, sleep, refuse
        self._turns = Turns(str(path), timeout)
        self._open: SqliteTransaction | None = None

    async def begin(self) -> SqliteTransaction:
        """The next one; raises StoreBusy where those before it, or another process, do not come to an end."""
        await self._turns.take()
        transaction = self._open = SqliteTransaction(self._path, self._timeout, self._refuse, self._end)
        try:
            await transaction.begin(self._sleep)
        except BaseException:
            await transaction.rollback()
            raise
        return transaction

    async def close(self) -> None:
        """Roll back what is still open."""
        if self._open is not None:
            await self._open.rollback()

    def stop(self) -> None:
        """The same, where no time is left."""
        if self._open is not None:
            self._open.stop()

    def _end(self) -> None:
        self._open = None
        self._turns.leave()
