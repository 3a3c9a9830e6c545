"""Group commit: one task per store writes what all runs have asked for meanwhile, in one transaction.

Every write has one shape: one statement over many rows, `… (VALUES (…), (…), …)`. SQLite runs it in a transaction of
its own, and one hop to the connection's thread does it all. Rows that do not fit (a lost lease, another head) are left
out by the statement, and the keys that it returns tell which; or they make it fail, and then each is tried alone.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple, TypeAlias

import aiosqlite

from flowneer_async.errors import StoreBusy, StoreClosed
from flowneer_async.shield import complete
from flowneer_stores import queries
from flowneer_stores.translate import translated

Cell: TypeAlias = str | int | bytes | None

# Within one turn runs end before they are claimed again, and exist before they are written to.
_ORDER = (queries.CREATE, queries.APPEND, queries.RENEW, queries.RELEASE, queries.CLAIM, queries.ABANDON)
# While one transaction is being committed, the runs of the one before it work on: so not all of them in one.
_MOST_ROWS = 128


class Refused(Exception):
    """The rows do not fit what is stored."""


class _Job(NamedTuple):
    statement: str
    rows: Sequence[tuple[Cell, ...]]
    done: "asyncio.Future[frozenset[Cell]]"


class Writer:
    """The only user of the connection that writes."""

    def __init__(self, db: aiosqlite.Connection, place: str, timeout: float) -> None:
        self._db, self._place, self._timeout = db, place, timeout
        self._jobs: deque[_Job] = deque()
        self._taken: list[_Job] = []
        self._wake = asyncio.Event()
        self._busy = self._closing = False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._work(), name=f"writer of {place}")

    async def write(self, statement: str, rows: Sequence[tuple[Cell, ...]]) -> frozenset[Cell]:
        """Commit rows of one statement, and give the keys that it returned; raises Refused, or a StoreError.

        Cancelled, it waits until the rows are stored as a whole or not at all, and then raises the cancellation.
        """
        if self._closing:
            raise StoreClosed(self._place)
        job = _Job(statement, rows, self._loop.create_future())
        try:
            if self._busy:
                self._jobs.append(job)
                return await job.done
            await self._write_now(job)
        except asyncio.CancelledError:
            await complete(self._settle())
            raise
        return job.done.result()

    async def close(self) -> None:
        """Do what is left, and end."""
        self._closing = True
        self._wake.set()
        await self._task

    async def _write_now(self, job: _Job) -> None:
        """Nobody writes: then the caller does it itself, which saves two turns of the event loop."""
        self._busy = True
        try:
            await self._commit(job.statement, [job])
        finally:
            self._busy = bool(self._jobs)
            if self._busy:  # those that came meanwhile are the writer's
                self._wake.set()

    async def _settle(self) -> None:
        """Wait until all that has begun is done: the connection's thread does one thing after the other."""
        await self._db.execute_fetchall("SELECT 1")

    async def _work(self) -> None:
        try:
            while self._jobs or not self._closing:
                await self._wake.wait()
                self._wake.clear()
                while self._jobs:
                    await self._turn()
                self._busy = False
        finally:
            # However it ends, and a loop that is torn down cancels every task: nobody waits for an answer in vain.
            self._closing = True
            for job in (*self._taken, *self._jobs):
                if not job.done.done():
                    job.done.set_exception(StoreClosed(self._place))

    async def _turn(self) -> None:
        self._taken = list(self._jobs)
        self._jobs.clear()
        for statement in _ORDER:
            for group in _groups([job for job in self._taken if job.statement is statement]):
                await self._commit(statement, group)

    async def _commit(self, statement: str, jobs: Sequence[_Job]) -> None:
        rows = list(chain.from_iterable([job.rows for job in jobs]))
        try:
            returned = await self._execute(statement, rows)
        except Exception as error:  # whatever it is, each caller has to hear of it
            await self._alone(statement, jobs, error)
        else:
            keys = frozenset(key for (key,) in returned)
            for job in jobs:
                if not job.done.done():
                    job.done.set_result(keys)

    async def _alone(self, statement: str, jobs: Sequence[_Job], error: Exception) -> None:
        """A failed transaction is tried again job by job, so that a bad one fails alone.

        A locked file is no job's fault, and all of them have waited for it.
        """
        refused = isinstance(error, sqlite3.IntegrityError)
        failure = Refused() if refused else translated(error, self._place, "writing", self._timeout)
        if len(jobs) > 1 and not isinstance(failure, StoreBusy):
            for job in jobs:
                if not job.done.cancelled():
                    await self._commit(statement, [job])
            return
        for job in jobs:
            if not job.done.done():
                job.done.set_exception(failure)

    async def _execute(self, statement: str, rows: Sequence[tuple[Cell, ...]]) -> Iterable[tuple[Cell]]:
        # Few sizes, so that SQLite finds each text prepared: a row of nothing but NULL fits nowhere.
        size = 1 << (len(rows) - 1).bit_length()
        nothing = (None,) * len(rows[0])
        cells = list(chain.from_iterable([*rows, *[nothing] * (size - len(rows))]))
        return await self._db.execute_fetchall(_sql(statement, len(nothing), size), cells)  # type: ignore[return-value]


@cache
def _sql(statement: str, columns: int, size: int) -> str:
    marks = "(" + ",".join("?" * columns) + ")"
    return statement.replace("{rows}", ",".join([marks] * size))


def _groups(jobs: Iterable[_Job]) -> Iterable[Sequence[_Job]]:
    """Jobs that go into one transaction: never two of one run, for a key that comes back is then one job's alone.

    Those whose caller was cancelled before it began are dropped.
    """
    group: list[_Job] = []
    runs: set[Cell] = set()
    room = _MOST_ROWS
    for job in jobs:
        if job.done.cancelled():
            continue
        run = job.rows[0][0]
        if group and (len(job.rows) > room or run in runs):
            yield group
            group, runs, room = [], set[Cell](), _MOST_ROWS
        group.append(job)
        runs.add(run)
        room -= len(job.rows)
    if group:
        yield group
