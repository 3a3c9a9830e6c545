"""A store in a PostgreSQL database, for the processes of many machines."""

import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import anyio
import orjson

from flowneer_async.errors import (
    BadName,
    BadOption,
    RunBusy,
    UnknownRun,
)
from flowneer_async.store import Due, Lease, Page, RunFilter, check_first, check_row
from flowneer_async.versions import Run, Signal, Status, Version
from flowneer_stores.database import DatabaseStore
from flowneer_stores.leases import Leases
from flowneer_stores.methods import row_of
from flowneer_stores.postgres import queries
from flowneer_stores.postgres.connect import Database, prepared
from flowneer_stores.postgres.desk import PostgresDesk
from flowneer_stores.postgres.driver import Connection
from flowneer_stores.postgres.finding import conditions
from flowneer_stores.postgres.lines import Access, Line, Lines
from flowneer_stores.postgres.news import News
from flowneer_stores.postgres.opened import Opened
from flowneer_stores.postgres.transaction import PostgresTransaction, Sessions, Transactions
from flowneer_stores.readable import readable
from flowneer_stores.rows import Row, as_row, as_run
from flowneer_stores.writer import Writer

_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_LAST = 2**63 - 1
_TABLES = ("flowneer_runs", "flowneer_versions", "flowneer_signals")


class PostgresStore(DatabaseStore[Opened]):
    """Runs, versions and signals in the tables of one schema of a database: `async with PostgresStore(dsn) as store`.

    Schema and tables are made where they are not there. Every version is on the server's disk before it is acknowledged
    (synchronous_commit); what all runs of this process have to store is committed together, over `writers` connections,
    and read over `readers`. A connection that was lost is opened again: for `timeout` seconds, or as long as a lock is
    waited for. A lease lasts `lease` seconds, by the clock of the database, and is renewed three times in that time;
    that of a process which died on this host is free at once. Steps may have so many `transactions` at a time.

    `pgbouncer=True` is for a DSN that leads to a pgbouncer which pools transactions: nothing is left in a session then.
    `listen_dsn` leads past it, for those who follow a run; without it they look every few seconds.
    Raises SchemaTooNew, StoreBusy, StoreUnreachable, StoreFull, StoreFailed.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "flowneer",
        writers: int = 2,
        readers: int = 4,
        transactions: int = 4,
        timeout: float = 30.0,
        lease: float = 30.0,
        pgbouncer: bool = False,
        listen_dsn: str | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
            raise BadName("schema", schema, f"it matches {_SCHEMA.pattern}, and does not begin with pg_")
        if timeout <= 0:
            raise BadOption("timeout", timeout, "it is a number of seconds above 0")
        for option, value in (("writers", writers), ("readers", readers), ("transactions", transactions)):
            if value < 1:
                raise BadOption(option, value, "it is a number of connections, of 1 or more")
        self._database = Database(dsn, schema, timeout, pgbouncer)
        super().__init__(self._database.place, "asyncpg", queries, Leases(lease, sleep))
        listening = dsn if listen_dsn is None and not pgbouncer else listen_dsn
        self._listening = None if listening is None else replace(self._database, dsn=listening, pgbouncer=False)
        self._writers, self._readers, self._transactions = writers, readers, transactions
        self._timeout, self._sleep = timeout, sleep

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        check_first(run, versions)
        row = (*as_row(run, self._leases.owner, self._leases.ms), _ticket())
        rows = [(*row, *version[1:]) for version in versions] or [row]
        return await self._create(run, queries.START if versions else queries.CREATE, rows)

    async def claim(self, run: Run) -> Lease:
        steps, gone = orjson.dumps(run.steps).decode(), self._leases.gone(run)
        read = (run.run_id, run.epoch, steps, run.seal)
        row = (*read, self._leases.owner, self._leases.ms, gone, run.begun, run.cancelling, _ticket())
        lease = await self._take(run.run_id, queries.CLAIM, [row])
        if lease is None:
            raise RunBusy(run.run_id, (await self.read(run.run_id)).owner)
        self._changed(run.run_id)
        return lease

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        check_row(lease, versions)
        if not versions:
            return
        head = versions[0].seq - 1
        # What append.sql takes: the first three say whether the row fits, then its columns but for the run's id.
        rows = [(lease.run_id, lease.epoch, head, *version[1:]) for version in versions]
        if lease.run_id not in await self._writer.write(queries.APPEND, rows):
            await self._refused(lease, versions[0])
        self._changed(lease.run_id)

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        # First of all: should the write fail, this process may still claim the run anew.
        self._leases.drop(lease)
        row = (lease.run_id, lease.epoch, status, None if error is None else _text(error), seal, wake)
        await self._writer.write(queries.RELEASE, [row])
        self._changed(lease.run_id)

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        if "\0" in run_id:
            raise UnknownRun(run_id)
        numbers = await self._writer.write(queries.SEND, [(run_id, name, payload, sent, _ticket())])
        if run_id not in numbers:
            raise UnknownRun(run_id)
        self._changed(run_id)
        if sent is not None:
            return Signal(run_id, numbers[run_id], name, payload, sent)
        return next(signal for signal in await self.signals(run_id) if signal.number == numbers[run_id])

    async def ask_cancel(self, run_id: str) -> bool:
        if "\0" in run_id:
            raise UnknownRun(run_id)
        asked = await self._writer.write(queries.ASK_CANCEL, [(run_id,)])
        if run_id not in asked:
            raise UnknownRun(run_id)
        self._changed(run_id)
        return bool(asked[run_id])

    async def due(self, wanted: Due, limit: int) -> Sequence[Run]:
        lists = [list(each) for each in (wanted.flows, wanted.busy, await self._dead())]
        return await readable(partial(self._fetch, queries.DUE, *lists), as_run, limit)

    async def find(self, runs: RunFilter, limit: int, after: str | None = None) -> Page:
        before = None if after is None else row_of(after)
        fits, parameters = conditions(runs, await self._gone(runs), before, given=1)
        rows = await self._fetch(queries.FIND.replace("{conditions}", fits), limit + 1, *parameters)
        found = tuple(as_run(columns, str(row)) for row, *columns in rows[:limit])
        return Page(found, str(rows[limit - 1][0]) if len(rows) > limit else None)

    async def count(self, runs: RunFilter) -> Mapping[Status, int]:
        fits, parameters = conditions(runs, await self._gone(runs))
        return dict(cast(Any, await self._fetch(queries.COUNT.replace("{conditions}", fits), *parameters)))

    async def purge(self, run_id: str) -> None:
        row, run = await self._read(run_id)
        if run_id not in await self._writer.write(queries.PURGE, [(run_id, row, self._leases.gone(run))]):
            raise RunBusy(run_id, (await self.read(run_id)).owner)
        self._changed(run_id)

    @asynccontextmanager
    async def changes(self, run_id: str) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
        await self.read(run_id)
        async with self._open.news.watch(run_id) as changed:
            yield changed

    async def compact(self) -> None:
        """Give what was dropped or purged back for what is to come, while runs go on (VACUUM); it takes its time."""
        _ = self._open  # raises StoreClosed
        line = Line(Access(self._place, self._timeout, self._database.maintaining, self._sleep))

        async def work(connection: Connection, _: float) -> None:
            for table in _TABLES:
                await connection.execute(f'VACUUM (ANALYZE) "{self._database.schema}".{table}')

        try:
            await line.do("compacting", work)
        finally:
            line.stop()

    async def begin(self) -> PostgresTransaction:
        """A transaction for statements of the user's and a version, on a connection of its own; raises StoreBusy."""
        return await self._open.transactions.begin()

    async def _make(self) -> Opened:
        database, place = self._database, self._place
        writing = Lines(Access(place, self._timeout, database.writing, self._sleep), self._writers)
        try:
            await writing.do("opening", prepared(database))
        except BaseException:
            writing.stop()
            raise
        reading = Lines(Access(place, self._timeout, database.reading, self._sleep), self._readers)
        telling = Line(Access(place, self._timeout, database.telling, self._sleep))
        listen = None if self._listening is None else self._listening.reading
        news = News(database.channel, secrets.token_hex(4), telling, listen, self._timeout)
        writer = Writer(PostgresDesk(writing, place, database.schema))
        transactions = Transactions(
            database.lending(self._transactions),
            Sessions(place, self._timeout, self._sleep, database.schema, self._leases.ms),
            reading,
            self._refused,
            self._changed,
        )
        await transactions.open()
        return Opened(writing, writer, reading, news, transactions)

    async def _extend(self, writer: Writer, leases: Sequence[Lease]) -> Container[str]:
        return await writer.write(queries.RENEW, [(each.run_id, each.epoch, self._leases.ms) for each in leases])

    async def _fetch(self, question: str, *parameters: Any) -> Sequence[Row]:
        if any(isinstance(parameter, str) and "\0" in parameter for parameter in parameters):
            return ()  # there is no such text in the database, which cannot even be asked for it
        text = queries.within(question, self._database.schema)

        async def work(connection: Connection, timeout: float) -> Sequence[Row]:
            return await connection.fetch(text, *parameters, timeout=timeout)

        return await self._open.reading.do("reading", work)


def _ticket() -> int:
    return secrets.randbits(63)


def _text(error: str) -> str:
    """An error's text as the database can keep it: without NUL and lone surrogates."""
    return error.replace("\0", "\ufffd").encode(errors="replace").decode()
