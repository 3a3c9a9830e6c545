"""Transactions for steps: on connections of their own, which are lent."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from flowneer_async.errors import StoreError, StoreFailed, VersionConflict
from flowneer_async.shield import complete
from flowneer_async.store import Lease, check_row
from flowneer_async.versions import Version
from flowneer_stores.postgres import queries
from flowneer_stores.postgres.driver import Connection, Pool, Within
from flowneer_stores.postgres.lines import Access, Line, Lines
from flowneer_stores.postgres.translate import is_lost, translated
from flowneer_stores.rows import append_rows

_POINT = "flowneer_step"
"""A savepoint at the beginning: where it is gone, somebody has ended the transaction, and may have begun another."""

Refuse: TypeAlias = Callable[[Lease, Version], Awaitable[None]]
"""Raises why a version does not fit: Fenced or VersionConflict."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """What is common to the sessions that are lent; times are in seconds, that of a lease in ms."""

    place: str
    timeout: float
    sleep: Callable[[float], Awaitable[None]]
    schema: str
    lease_ms: int


class Transactions:
    """Those of one store: so many at a time as the pool has connections."""

    def __init__(
        self, pool: Pool, sessions: Sessions, reading: Lines, refuse: Refuse, changed: Callable[[str], None]
    ) -> None:
        self.pool, self.sessions, self.reading, self.refuse, self.changed = pool, sessions, reading, refuse, changed
        self._begun: set[PostgresTransaction] = set()

    async def open(self) -> None:
        """Make the pool ready; nothing is connected yet."""
        await self.pool

    async def begin(self) -> "PostgresTransaction":
        """The next one; raises a StoreError: StoreBusy where no connection becomes free in time."""
        transaction = PostgresTransaction(self, self._begun.discard)
        self._begun.add(transaction)
        try:
            await transaction.begin()
        except BaseException:
            await transaction.rollback()
            raise
        return transaction

    async def close(self) -> None:
        """Roll back what is still open, and close the connections."""
        for transaction in list(self._begun):
            await transaction.rollback()
        await self.pool.close()

    def stop(self) -> None:
        """The same where no time is left."""
        self.pool.terminate()


class PostgresTransaction:
    """One of them; `over` is called when it is."""

    def __init__(self, of: Transactions, over: Callable[["PostgresTransaction"], None]) -> None:
        self._of, self._over, self._sessions = of, over, of.sessions
        self._connection: Connection | None = None
        self._within: Within | None = None
        self._appended: tuple[Lease, Sequence[Version]] | None = None

    @property
    def connection(self) -> Connection:
        """An asyncpg.Connection, for the step's own statements."""
        assert self._connection is not None
        return self._connection

    async def is_open(self) -> bool:
        """Can it be committed? Not where a statement in it has failed, outside of a savepoint."""
        try:
            await self.connection.execute(f"RELEASE SAVEPOINT {_POINT}; SAVEPOINT {_POINT}")
        except Exception:  # whatever it is, nothing can be committed on this connection
            return False
        return True

    async def begin(self) -> None:
        """Begin, on a connection that works; raises a StoreError."""
        sessions = self._sessions
        line = Line(Access(sessions.place, sessions.timeout, self._acquire, sessions.sleep))
        await line.do("beginning", self._begin)

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        """Append to the head of the owned run; raises Fenced, VersionConflict."""
        check_row(lease, versions)
        if not await self.is_open():
            raise StoreFailed(self._sessions.place, "committing", "the transaction was ended on its connection")
        try:
            # From here on the row of the run is locked: not for longer than the lease, should this process freeze.
            limit = f"SET LOCAL idle_in_transaction_session_timeout = {self._sessions.lease_ms}"
            await self.connection.execute(limit)
            statement = queries.within(queries.APPEND, self._sessions.schema)
            found = await self.connection.fetch(statement, *zip(*append_rows(lease, versions), strict=True))
        except Exception as error:
            raise self._failure(error) from error
        if not found:
            await self._of.refuse(lease, versions[0])
        self._appended = lease, versions

    async def commit(self) -> None:
        """Store all of it; where this raises, nothing is, unless the server cannot be asked any more."""
        await complete(self._commit())

    async def rollback(self) -> None:
        """Undo all of it, unless it is over already."""
        await complete(self._rollback())

    async def _commit(self) -> None:
        assert self._within is not None
        try:
            await self._within.commit()
        except Exception as error:
            if not (is_lost(error) or self.connection.is_closed()) or not await self._was_committed():
                await self._raise_fenced()
                raise self._failure(error) from error
        finally:
            self._within = None
            await self._rollback()
        if self._appended is not None:
            self._of.changed(self._appended[0].run_id)

    async def _was_committed(self) -> bool:
        """The answer was lost: are the versions there?"""
        if self._appended is None:
            return False
        lease, versions = self._appended
        rows = [(lease.run_id, lease.epoch, version.seq, version.digest) for version in versions]
        question = queries.within(queries.APPENDED, self._sessions.schema)

        async def ask(connection: Connection, timeout: float) -> bool:
            return bool(await connection.fetch(question, *zip(*rows, strict=True), timeout=timeout))

        return await self._of.reading.do("committing", ask)

    async def _raise_fenced(self) -> None:
        """Where the run is another's by now, that is what the owner has to know."""
        if self._appended is not None:
            lease, versions = self._appended
            with suppress(VersionConflict):  # it is still ours
                await self._of.refuse(lease, versions[0])

    async def _rollback(self) -> None:
        await self._end()
        self._over(self)

    async def _end(self) -> None:
        """Roll back what is open, and give the connection back; the step's handle of it is void from then on."""
        connection, self._connection = self._connection, None
        within, self._within = self._within, None
        if connection is None:
            return
        if within is not None:
            try:
                await within.rollback()
            except Exception:  # somebody has ended it, or is still at work on it
                with suppress(Exception):  # it was lost, and is no more
                    connection.terminate()
        with suppress(Exception):  # then the pool closes it
            await self._of.pool.release(connection)

    async def _acquire(self, timeout: float) -> Connection:
        await self._end()
        self._connection = await self._of.pool.acquire(timeout=timeout)
        return self._connection

    async def _begin(self, connection: Connection, timeout: float) -> None:
        self._within = connection.transaction()
        await self._within.start()
        await connection.execute(f"SAVEPOINT {_POINT}", timeout=timeout)

    def _failure(self, error: Exception) -> StoreError:
        return translated(error, self._sessions.place, "committing", self._sessions.timeout)
