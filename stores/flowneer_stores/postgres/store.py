"""A store in a PostgreSQL database, for the processes of many machines."""

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, cast

import anyio
import orjson

from flowneer_async.errors import (
    BadName,
    BadOption,
    BrokenChain,
    Fenced,
    RunBusy,
    StoreClosed,
    StoreError,
    StoreFailed,
    UnknownRun,
    UnknownVersion,
    VersionConflict,
)
from flowneer_async.shield import complete, on_asyncio
from flowneer_async.store import Lease, Page, RunFilter, check_first, check_row
from flowneer_async.versions import Run, Signal, Status, Version, parse_version_id, version_id
from flowneer_stores.methods import Methods, row_of
from flowneer_stores.owner import is_gone, this_owner
from flowneer_stores.postgres import queries
from flowneer_stores.postgres.connect import Database, prepared
from flowneer_stores.postgres.desk import PostgresDesk
from flowneer_stores.postgres.driver import Connection, Row
from flowneer_stores.postgres.finding import Parameter, conditions
from flowneer_stores.postgres.lines import Access, Line, Lines
from flowneer_stores.postgres.news import News
from flowneer_stores.postgres.opened import Opened
from flowneer_stores.postgres.transaction import PostgresTransaction, Sessions, Transactions
from flowneer_stores.rows import as_row, as_run
from flowneer_stores.writer import Writer

_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_LAST = 2**63 - 1
_TABLES = ("flowneer_runs", "flowneer_versions", "flowneer_signals")


class PostgresStore(Methods):
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
        for option, value in (("timeout", timeout), ("lease", lease)):
            if value <= 0:
                raise BadOption(option, value, "it is a number of seconds above 0")
        for option, value in (("writers", writers), ("readers", readers), ("transactions", transactions)):
            if value < 1:
                raise BadOption(option, value, "it is a number of connections, of 1 or more")
        self._database = Database(dsn, schema, timeout, pgbouncer)
        listening = dsn if listen_dsn is None and not pgbouncer else listen_dsn
        self._listening = None if listening is None else replace(self._database, dsn=listening, pgbouncer=False)
        self._writers, self._readers, self._transactions = writers, readers, transactions
        self._place, self._timeout, self._lease, self._sleep = self._database.place, timeout, lease, sleep
        self._owner = f"{this_owner()}:{secrets.token_hex(4)}"
        self._held: dict[str, Lease] = {}
        self._taking: Counter[str] = Counter()
        self._opened: Opened | None = None

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise StoreFailed(self._place, "opening", "it is open already")
        if not on_asyncio():
            raise StoreFailed(self._place, "opening", "asyncpg works on asyncio only: under trio use MemoryStore")
        try:
            await complete(self._enter())
        except BaseException:
            if self._opened is not None:
                await self._leave(self._opened)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(self._opened_or_raise())

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        check_first(run, versions)
        row = (*as_row(run, self._owner, self._ms), _ticket())
        rows = [(*row, *version[1:]) for version in versions] or [row]
        return await self._take(run.run_id, queries.START if versions else queries.CREATE, rows)

    async def claim(self, run: Run) -> Lease:
        steps, gone = orjson.dumps(run.steps).decode(), self._gone(run)
        row = (run.run_id, run.epoch, steps, run.seal, self._owner, self._ms, gone, _ticket())
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

    async def release(self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"") -> None:
        # First of all: should the write fail, this process may still claim the run anew.
        self._drop(lease)
        row = (lease.run_id, lease.epoch, status, None if error is None else _text(error), seal)
        await self._writer.write(queries.RELEASE, [row])
        self._changed(lease.run_id)

    async def read(self, run_id: str) -> Run:
        return (await self._read(run_id))[1]

    async def chain(self, version: str) -> Sequence[Version]:
        run_id, seq = parse_version_id(version)
        rows = await self._fetch(queries.CHAIN, run_id, seq)
        if not rows:
            raise UnknownVersion(version)
        return list(map(Version._make, rows))

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        rows = await self._of(run_id, queries.VERSIONS, first, _LAST if last is None else last)
        if not rows:
            await self.read(run_id)
        return list(map(Version._make, rows))

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

    async def signals(self, run_id: str) -> Sequence[Signal]:
        rows = await self._of(run_id, queries.SIGNALS)
        if not rows:
            raise UnknownRun(run_id)
        return [Signal(*row) for row in rows if row[1] is not None]

    async def find(self, runs: RunFilter, limit: int, after: str | None = None) -> Page:
        fits, parameters = await self._conditions(runs, None if after is None else row_of(after), given=1)
        rows = await self._fetch(queries.FIND.replace("{conditions}", fits), limit + 1, *parameters)
        found = tuple(as_run(columns, str(row)) for row, *columns in rows[:limit])
        return Page(found, str(rows[limit - 1][0]) if len(rows) > limit else None)

    async def count(self, runs: RunFilter) -> Mapping[Status, int]:
        fits, parameters = await self._conditions(runs)
        return dict(cast(Any, await self._fetch(queries.COUNT.replace("{conditions}", fits), *parameters)))

    async def drop(self, run_id: str, keep: int, since: int | None = None) -> int:
        while True:
            was = (await self.read(run_id)).first
            first = await self._writer.write(queries.DROP, [(run_id, was, keep, since)])
            if run_id in first:
                self._changed(run_id)
                return first[run_id] - was

    async def purge(self, run_id: str) -> None:
        row, run = await self._read(run_id)
        if run_id not in await self._writer.write(queries.PURGE, [(run_id, row, self._gone(run))]):
            raise RunBusy(run_id, (await self.read(run_id)).owner)
        self._changed(run_id)

    @asynccontextmanager
    async def changes(self, run_id: str) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
        await self.read(run_id)
        async with self._opened_or_raise().news.watch(run_id) as changed:
            yield changed

    async def compact(self) -> None:
        """Give what was dropped or purged back for what is to come, while runs go on (VACUUM); it takes its time."""
        self._opened_or_raise()
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
        return await self._opened_or_raise().transactions.begin()

    @property
    def _writer(self) -> Writer:
        return self._opened_or_raise().writer

    @property
    def _ms(self) -> int:
        """How long a lease lasts."""
        return int(self._lease * 1000)

    def _opened_or_raise(self) -> Opened:
        if self._opened is None:
            raise StoreClosed(self._place)
        return self._opened

    async def _enter(self) -> None:
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
            Sessions(place, self._timeout, self._sleep, database.schema, self._ms),
            reading,
            self._refused,
            self._changed,
        )
        await transactions.open()
        self._opened = Opened(writing, writer, reading, news, transactions, asyncio.create_task(self._renew(writer)))

    async def _leave(self, opened: Opened) -> None:
        self._opened = None  # nothing new is asked for from here on
        try:
            await complete(self._close(opened))
        except BaseException:
            opened.stop()
            raise

    async def _close(self, opened: Opened) -> None:
        try:
            with suppress(StoreError):  # then the leases lapse by themselves
                for run_id in await opened.writer.write(queries.ABANDON, [(self._owner,)]):
                    opened.news.change(run_id)
            self._held.clear()
        finally:
            await opened.close()

    async def _renew(self, writer: Writer) -> None:
        """The heartbeat: keep the leases of this process's runs for as long as it lives."""
        while True:
            await self._sleep(self._lease / 3)
            held = list(self._held.values())
            if not held:
                continue
            with suppress(StoreError):  # tried again before the lease lapses
                kept = await writer.write(queries.RENEW, [(each.run_id, each.epoch, self._ms) for each in held])
                for lease in held:
                    if lease.run_id not in kept:
                        self._drop(lease)

    async def _take(self, run_id: str, statement: str, rows: Sequence[tuple[Any, ...]]) -> Lease | None:
        """Create or claim a run; None where it is not to be had."""
        self._taking[run_id] += 1
        try:
            taken = await self._writer.write(statement, rows)
            if run_id not in taken:
                return None
            self._held[run_id] = Lease(run_id, taken[run_id])
            return self._held[run_id]
        finally:
            self._taking[run_id] -= 1
            if not self._taking[run_id]:
                del self._taking[run_id]

    def _changed(self, run_id: str) -> None:
        if self._opened is not None:
            self._opened.news.change(run_id)

    def _drop(self, lease: Lease) -> None:
        if self._held.get(lease.run_id) == lease:
            del self._held[lease.run_id]

    def _gone(self, run: Run) -> str | None:
        """The owner of a run where, for all that can be known, it no longer works on it."""
        if run.owner is None:
            return None
        is_wanted = run.run_id in self._held or run.run_id in self._taking
        gone = not is_wanted if run.owner == self._owner else self._is_gone(run.owner)
        return run.owner if gone else None

    def _is_gone(self, owner: str) -> bool:
        return owner != self._owner and is_gone(owner.rpartition(":")[0])

    async def _conditions(
        self, runs: RunFilter, before: int | None = None, given: int = 0
    ) -> tuple[str, list[Parameter]]:
        owners = () if runs.owned is None else await self._fetch(queries.OWNERS)
        return conditions(runs, [owner for (owner,) in owners if self._is_gone(owner)], before, given)

    async def _refused(self, lease: Lease, version: Version) -> None:
        run = await self.read(lease.run_id)
        if run.epoch != lease.epoch:
            self._drop(lease)
            raise Fenced(lease.run_id)
        raise VersionConflict(version.id, None if run.head < 0 else version_id(run.run_id, run.head))

    async def _read(self, run_id: str) -> tuple[int, Run]:
        """A run, and the number of its row."""
        rows = await self._of(run_id, queries.RUN)
        if not rows:
            raise UnknownRun(run_id)
        row, last, *columns = rows[0]
        run = as_run(columns)
        if run.head < last:
            raise BrokenChain(version_id(run_id, last), version_id(run_id, run.head + 1))
        return row, run

    async def _of(self, run_id: str, query: str, *parameters: object) -> Sequence[Row]:
        """What there is of a run: nothing where its id is one that the database cannot even be asked for."""
        return [] if "\0" in run_id else await self._fetch(query, run_id, *parameters)

    async def _fetch(self, query: str, *parameters: object) -> Sequence[Row]:
        text = queries.within(query, self._database.schema)

        async def work(connection: Connection, timeout: float) -> Sequence[Row]:
            return await connection.fetch(text, *parameters, timeout=timeout)

        return await self._opened_or_raise().reading.do("reading", work)


def _ticket() -> int:
    return secrets.randbits(63)


def _text(error: str) -> str:
    """An error's text as the database can keep it: without NUL and lone surrogates."""
    return error.replace("\0", "\ufffd").encode(errors="replace").decode()
