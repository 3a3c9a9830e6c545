"""Group commit: what all runs have asked for meanwhile is written in one transaction.

Every write has one shape: one statement over many rows, which is a transaction of its own. Rows that do not fit are
left out, and what the statement returns, for each of the others its run and a number, tells which. Where one row makes
the whole statement fail, each job is tried alone.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple, Protocol, TypeAlias

from flowneer_async.errors import StoreBusy, StoreClosed, StoreError, StoreFailed
from flowneer_async.shield import complete

Cell: TypeAlias = str | int | bytes | None
Returned: TypeAlias = Mapping[str, int]
"""What a statement returned: of each run that its rows fit, a number, which is its epoch or that of its signal."""

_MOST_ROWS = 128
# Of so many jobs that wait, some go into a transaction of their own: while it is committed, the runs of the other work.
_ENOUGH = 64


class Refused(StoreFailed):
    """The rows do not fit what is stored."""


class Desk(Protocol):
    """What a database is to its writer."""

    place: str
    """What it is called in errors."""

    @property
    def order(self) -> Sequence[str]:
        """All statements that write; of those that wait, the first is done first."""
        ...

    async def execute(self, statement: str, rows: Sequence[tuple[Cell, ...]]) -> Returned:
        """Commit rows of one statement, all that fit."""
        ...

    async def settle(self) -> None:
        """Wait until all that has begun is done, or was undone."""
        ...

    def failure(self, error: Exception) -> Exception:
        """What to tell a caller whose rows could not be committed for `error`; Refused where the rows are at fault."""
        ...


class Statements(Protocol):
    """The texts of what every database writes: a module."""

    CREATE: str
    START: str
    APPEND: str
    SEND: str
    ASK_CANCEL: str
    RENEW: str
    RELEASE: str
    CLAIM: str
    DROP: str
    PURGE: str
    ABANDON: str


def in_order(of: Statements) -> Sequence[str]:
    """What runs ask for first of all comes first: they exist before they are written to, and end before a claim."""
    of_runs = (of.CREATE, of.START, of.APPEND, of.SEND, of.ASK_CANCEL, of.RENEW, of.RELEASE, of.CLAIM)
    return (*of_runs, of.DROP, of.PURGE, of.ABANDON)


class _Job(NamedTuple):
    statement: str
    rows: Sequence[tuple[Cell, ...]]
    done: "asyncio.Future[Returned]"


class Writer:
    """The only user of the desk at which a store writes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._queues: dict[str, deque[_Job]] = {statement: deque() for statement in desk.order}
        self._queued = self._writing = 0
        self._asked: dict[object, float] = {}
        """When each write that is not done was asked for, the oldest first."""
        self._closing = self._together = False
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._hands = [asyncio.create_task(self._work(), name=f"writer of {desk.place}") for _ in range(2)]

    async def write(self, statement: str, rows: Sequence[tuple[Cell, ...]]) -> Returned:
        """Commit rows of one statement, and give what it returned; raises Refused, or a StoreError.

        Cancelled, it waits until the rows are stored as a whole or not at all, and then raises the cancellation.
        """
        if self._closing:
            raise StoreClosed(self._desk.place)
        write = object()
        self._asked[write] = self._loop.time()
        try:
            if self._writing or self._queued or self._together:
                return await self._put(statement, rows)
            # The only one that writes: then the caller does it itself, which saves two turns of the event loop.
            return await self._write_alone(statement, rows)
        except asyncio.CancelledError:
            await complete(self._desk.settle())
            raise
        finally:
            del self._asked[write]

    @property
    def lag(self) -> float:
        """For how long the oldest write that is not done has been waiting, in seconds; 0 without one."""
        return self._loop.time() - next(iter(self._asked.values())) if self._asked else 0.0

    async def close(self) -> None:
        """Do what is left, and end."""
        self._closing = True
        self._wake.set()
        await asyncio.gather(*self._hands)

    def _put(self, statement: str, rows: Sequence[tuple[Cell, ...]]) -> "asyncio.Future[Returned]":
        job = _Job(statement, rows, self._loop.create_future())
        self._queues[statement].append(job)
        self._queued += 1
        self._call()
        return job.done

    async def _write_alone(self, statement: str, rows: Sequence[tuple[Cell, ...]]) -> Returned:
        self._writing += 1
        try:
            return await self._desk.execute(statement, rows)
        except StoreError:
            raise
        except Exception as error:
            raise self._desk.failure(error) from error
        finally:
            self._writing -= 1
            self._call()

    def _call(self) -> None:
        """Call a hand where there is work for one."""
        if not self._wake.is_set() and self._is_due():
            self._wake.set()

    def _is_due(self) -> bool:
        return self._queued >= (_ENOUGH if self._writing else 1) and self._writing < len(self._hands)

    async def _work(self) -> None:
        group: Sequence[_Job] = ()
        try:
            while self._queued or not self._closing:
                while self._is_due():
                    group = self._take()
                    await self._write(group)
                    if self._queued < _ENOUGH:
                        # Runs that were just answered may have more to store: together with those that wait.
                        await asyncio.sleep(0)
                await self._wake.wait()
                self._wake.clear()
        finally:
            # However it ends, and a loop that is torn down cancels every task: nobody waits for an answer in vain.
            self._closing = True
            self._wake.set()
            for job in chain(group, *self._queues.values()):
                if not job.done.done():
                    job.done.set_exception(StoreClosed(self._desk.place))

    def _take(self) -> Sequence[_Job]:
        """Jobs for one transaction: never two of one run, so that what comes back of a run is one job's alone."""
        queue = next(queue for queue in self._queues.values() if queue)
        group: list[_Job] = []
        runs: set[Cell] = set()
        room = _MOST_ROWS
        while queue and queue[0].rows[0][0] not in runs and (len(queue[0].rows) <= room or not group):
            job = queue.popleft()
            self._queued -= 1
            group.append(job)
            runs.add(job.rows[0][0])
            room -= len(job.rows)
        return group

    async def _write(self, jobs: Sequence[_Job]) -> None:
        self._writing += 1
        self._together = len(jobs) > 1
        try:
            await self._commit([job for job in jobs if not job.done.cancelled()])
        finally:
            self._writing -= 1
            self._call()

    async def _commit(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        try:
            returned = await self._desk.execute(
                jobs[0].statement, list(chain.from_iterable([job.rows for job in jobs]))
            )
        except Exception as error:  # whatever it is, each caller has to hear of it
            await self._one_by_one(jobs, self._desk.failure(error))
        else:
            for job in jobs:
                if not job.done.done():
                    job.done.set_result(returned)

    async def _one_by_one(self, jobs: Sequence[_Job], failure: Exception) -> None:
        """A failed transaction is tried again job by job, so that a bad one fails alone.

        A locked file is no job's fault, and all of them have waited for it.
        """
        if len(jobs) > 1 and not isinstance(failure, StoreBusy):
            for job in jobs:
                if not job.done.cancelled():
                    await self._commit([job])
            return
        for job in jobs:
            if not job.done.done():
                job.done.set_exception(failure)
