"""A store in one SQLite file, for the processes of one machine."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import orjson

from flowneer_async.errors import BadOption, RunBusy, UnknownRun
from flowneer_async.policy import unix_ms
from flowneer_async.store import Due, Lease, Page, RunFilter, check_first, check_row
from flowneer_async.versions import Run, Signal, Status, Version
from flowneer_stores.database import DatabaseStore
from flowneer_stores.leases import Leases
from flowneer_stores.methods import row_of
from flowneer_stores.readable import readable
from flowneer_stores.rows import Row, append_rows, as_row, as_run
from flowneer_stores.sqlite import queries
from flowneer_stores.sqlite.compact import compacted
from flowneer_stores.sqlite.connect import open_reader, open_writer
from flowneer_stores.sqlite.desk import SqliteDesk
from flowneer_stores.sqlite.finding import conditions
from flowneer_stores.sqlite.opened import Opened
from flowneer_stores.sqlite.transaction import SqliteTransaction, Transactions
from flowneer_stores.sqlite.translate import translated
from flowneer_stores.sqlite.watches import Watches
from flowneer_stores.writer import Refused, Writer


class SqliteStore(DatabaseStore[Opened]):
    """Runs, versions and signals in one file, `path`, created with mode 0600: `async with SqliteStore(path) as store`.

    Every version is synced to the disk (WAL, synchronous=FULL) before it is acknowledged; what all runs of this process
    have to store is committed together. `timeout` is how long, in seconds, to wait while another program keeps the file
    locked. A lease lasts `lease` seconds and is renewed three times in that time; that of a process which died on this
    host is free at once. Raises NotADatabase, SchemaTooNew, StoreBusy, StoreFull, StoreFailed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 5.0,
        lease: float = 30.0,
        now: Callable[[], int] = unix_ms,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        if os.fspath(path) in ("", ":memory:"):
            raise BadOption("path", path, "it is the path of a file; for a store in memory use MemoryStore")
        super().__init__(os.fspath(path), "aiosqlite", queries, Leases(lease, sleep))
        self._path, self._timeout, self._now, self._sleep = Path(path), timeout, now, sleep

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        check_first(run, versions)
        row = as_row(run, self._leases.owner, self._until())
        rows = [(*row, *version[1:]) for version in versions] or [row]
        return await self._create(run, queries.START if versions else queries.CREATE, rows)

    async def claim(self, run: Run) -> Lease:
        steps, gone = orjson.dumps(run.steps).decode(), self._leases.gone(run)
        read = (run.run_id, run.epoch, steps, run.seal)
        row = (*read, self._leases.owner, self._until(), self._now(), gone, run.begun, run.cancelling)
        lease = await self._take(run.run_id, queries.CLAIM, [row])
        if lease is None:
            raise RunBusy(run.run_id, (await self.read(run.run_id)).owner)
        return lease

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        check_row(lease, versions)
        if not versions:
            return
        try:
            await self._writer.write(queries.APPEND, append_rows(lease, versions))
        except Refused:
            await self._refused(lease, versions[0])

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        # First of all: should the write fail, this process may still claim the run anew.
        self._leases.drop(lease)
        await self._writer.write(queries.RELEASE, [(lease.run_id, lease.epoch, status, error, seal, self._now(), wake)])

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        now = self._now()
        moment = now if sent is None else sent
        numbers = await self._writer.write(queries.SEND, [(run_id, name, payload, moment, now)])
        if run_id not in numbers:
            raise UnknownRun(run_id)
        return Signal(run_id, numbers[run_id], name, payload, moment)

    async def ask_cancel(self, run_id: str) -> bool:
        asked = await self._writer.write(queries.ASK_CANCEL, [(run_id, self._now())])
        if run_id not in asked:
            raise UnknownRun(run_id)
        return bool(asked[run_id])

    async def due(self, wanted: Due, limit: int) -> Sequence[Run]:
        lists = [orjson.dumps(list(each)).decode() for each in (wanted.flows, wanted.busy, await self._dead())]
        return await readable(partial(self._fetch, queries.DUE, self._now(), *lists), as_run, limit)

    async def find(self, runs: RunFilter, limit: int, after: str | None = None) -> Page:
        before = None if after is None else row_of(after)
        fits, parameters = conditions(runs, self._now(), await self._gone(runs), before)
        rows = await self._fetch(queries.FIND.replace("{conditions}", fits), *parameters, limit + 1)
        found = tuple(as_run(columns, str(row)) for row, *columns in rows[:limit])
        return Page(found, str(rows[limit - 1][0]) if len(rows) > limit else None)

    async def count(self, runs: RunFilter) -> Mapping[Status, int]:
        fits, parameters = conditions(runs, self._now(), await self._gone(runs))
        return dict(cast(Any, await self._fetch(queries.COUNT.replace("{conditions}", fits), *parameters)))

    async def purge(self, run_id: str) -> None:
        row, run = await self._read(run_id)
        cells = (run_id, row, self._now(), self._leases.gone(run))
        if run_id not in await self._writer.write(queries.PURGE, [cells]):
            raise RunBusy(run_id, (await self.read(run_id)).owner)

    @asynccontextmanager
    async def changes(self, run_id: str) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
        await self.read(run_id)
        async with self._open.watches.watch(run_id) as changed:
            yield changed

    async def compact(self) -> int:
        """Give the pages of what was dropped or purged back to the file system, while runs go on; how many bytes.

        A file of a release that did not prepare for it is written anew as a whole, during which nothing else is stored.
        """
        return await compacted(self._open.db, self._path, self._timeout)

    async def begin(self) -> SqliteTransaction:
        """A transaction for statements of the user's and a version, on a connection of its own; raises StoreBusy."""
        return await self._open.transactions.begin()

    async def _make(self) -> Opened:
        db = await open_writer(self._path, self._timeout, self._sleep)
        try:
            reader = await open_reader(self._path, self._timeout)
        except BaseException:
            await db.close()
            raise
        writer = Writer(SqliteDesk(db, self._place, self._timeout))
        transactions = Transactions(self._path, self._timeout, self._sleep, self._refused)
        return Opened(db, writer, reader, transactions, Watches(self._place, self._fetch, self._sleep))

    async def _extend(self, writer: Writer, leases: Sequence[Lease]) -> Container[str]:
        until = self._until()
        return await writer.write(queries.RENEW, [(lease.run_id, lease.epoch, until) for lease in leases])

    def _until(self) -> int:
        return self._now() + self._leases.ms

    async def _fetch(self, question: str, *parameters: Any) -> Sequence[Row]:
        reader = self._open.reader
        try:
            return cast(Sequence[Row], await reader.execute_fetchall(question, parameters))
        except Exception as error:
            raise translated(error, self._place, "reading", self._timeout) from error
