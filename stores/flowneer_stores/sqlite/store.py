"""A store in one SQLite file, for the processes of one machine."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

import anyio
import orjson

from flowneer_async.errors import (
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
from flowneer_async.policy import unix_ms
from flowneer_async.shield import complete, on_asyncio
from flowneer_async.store import Lease, Page, RunFilter, check_first, check_row
from flowneer_async.versions import Run, Signal, Status, Version, parse_version_id, version_id
from flowneer_stores.methods import Methods, row_of
from flowneer_stores.owner import is_gone, this_owner
from flowneer_stores.rows import append_rows, as_row, as_run
from flowneer_stores.sqlite import queries
from flowneer_stores.sqlite.compact import compacted
from flowneer_stores.sqlite.connect import open_reader, open_writer
from flowneer_stores.sqlite.desk import SqliteDesk
from flowneer_stores.sqlite.finding import Condition, conditions
from flowneer_stores.sqlite.opened import Opened
from flowneer_stores.sqlite.transaction import SqliteTransaction, Transactions
from flowneer_stores.sqlite.translate import translated
from flowneer_stores.writer import Refused, Writer

Parameters: TypeAlias = tuple[str | int, ...] | dict[str, str | int]

_LAST = 2**63 - 1
_LOOK = 0.05  # seconds between two looks for a change


class SqliteStore(Methods):
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
        if lease <= 0:
            raise BadOption("lease", lease, "it is a number of seconds above 0")
        self._path, self._timeout, self._lease = Path(path), timeout, lease
        self._now, self._sleep = now, sleep
        self._owner = f"{this_owner()}:{secrets.token_hex(4)}"
        self._held: dict[str, Lease] = {}
        self._opened: Opened | None = None

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise StoreFailed(str(self._path), "opening", "it is open already")
        if not on_asyncio():
            raise StoreFailed(str(self._path), "opening", "aiosqlite works on asyncio only: under trio use MemoryStore")
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
        row = as_row(run, self._owner, self._until(self._now()))
        if versions:
            stored = await self._writer.write(queries.START, [(*row, *version[1:]) for version in versions])
        else:
            stored = await self._writer.write(queries.CREATE, [row])
        if run.run_id not in stored:
            return None
        return self._hold(Lease(run.run_id, stored[run.run_id]))

    async def claim(self, run: Run) -> Lease:
        now, steps = self._now(), orjson.dumps(run.steps).decode()
        row = (run.run_id, run.epoch, steps, run.seal, self._owner, self._until(now), now, self._gone(run))
        if run.run_id not in await self._writer.write(queries.CLAIM, [row]):
            raise RunBusy(run.run_id, (await self.read(run.run_id)).owner)
        return self._hold(Lease(run.run_id, run.epoch + 1))

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        check_row(lease, versions)
        if not versions:
            return
        try:
            await self._writer.write(queries.APPEND, append_rows(lease, versions))
        except Refused:
            await self._refused(lease, versions[0])

    async def release(self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"") -> None:
        # First of all: should the write fail, this process may still claim the run anew.
        self._drop(lease)
        await self._writer.write(queries.RELEASE, [(lease.run_id, lease.epoch, status, error, seal, self._now())])

    async def read(self, run_id: str) -> Run:
        rows = await self._fetch(queries.RUN, (run_id,))
        if not rows:
            raise UnknownRun(run_id)
        last, *columns = rows[0]
        run = as_run(columns)
        if run.head < last:
            raise BrokenChain(version_id(run_id, last), version_id(run_id, run.head + 1))
        return run

    async def chain(self, version: str) -> Sequence[Version]:
        run_id, seq = parse_version_id(version)
        rows = await self._fetch(queries.CHAIN, {"run_id": run_id, "seq": seq})
        if not rows:
            raise UnknownVersion(version)
        return list(map(Version._make, rows))

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        end = _LAST if last is None else last
        rows = await self._fetch(queries.VERSIONS, {"run_id": run_id, "first": first, "last": end})
        if not rows:
            await self.read(run_id)
        return list(map(Version._make, rows))

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        moment = self._now() if sent is None else sent
        numbers = await self._writer.write(queries.SEND, [(run_id, name, payload, moment)])
        if run_id not in numbers:
            raise UnknownRun(run_id)
        return Signal(run_id, numbers[run_id], name, payload, moment)

    async def signals(self, run_id: str) -> Sequence[Signal]:
        rows = await self._fetch(queries.SIGNALS, (run_id,))
        if not rows:
            raise UnknownRun(run_id)
        return [Signal(*row) for row in rows if row[1] is not None]

    async def find(self, runs: RunFilter, limit: int, after: str | None = None) -> Page:
        fits, parameters = await self._conditions(runs, None if after is None else row_of(after))
        rows = await self._fetch(queries.FIND.replace("{conditions}", fits), (*parameters, limit + 1))
        found = tuple(as_run(columns, str(row)) for row, *columns in rows[:limit])
        return Page(found, str(rows[limit - 1][0]) if len(rows) > limit else None)

    async def count(self, runs: RunFilter) -> Mapping[Status, int]:
        fits, parameters = await self._conditions(runs)
        return dict(await self._fetch(queries.COUNT.replace("{conditions}", fits), parameters))

    async def drop(self, run_id: str, keep: int, since: int | None = None) -> int:
        while True:
            was = (await self.read(run_id)).first
            first = await self._writer.write(queries.DROP, [(run_id, was, max(1, keep), since)])
            if run_id in first:
                return first[run_id] - was

    async def purge(self, run_id: str) -> None:
        run = await self.read(run_id)
        row = (run_id, run.epoch, self._now(), self._gone(run))
        if run_id not in await self._writer.write(queries.PURGE, [row]):
            raise RunBusy(run_id, (await self.read(run_id)).owner)

    @asynccontextmanager
    async def changes(self, run_id: str) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
        await self.read(run_id)
        seen = await self._data_version()

        async def changed() -> None:
            nonlocal seen
            while (now := await self._data_version()) == seen:
                await self._sleep(_LOOK)
            seen = now

        yield changed

    async def compact(self) -> int:
        """Give the pages of what was dropped or purged back to the file system, while runs go on; how many bytes.

        A file of a release that did not prepare for it is written anew as a whole, during which nothing else is stored.
        """
        return await compacted(self._opened_or_raise().db, self._path, self._timeout)

    async def begin(self) -> SqliteTransaction:
        """A transaction for statements of the user's and a version, on a connection of its own; raises StoreBusy."""
        return await self._opened_or_raise().transactions.begin()

    @property
    def _writer(self) -> Writer:
        return self._opened_or_raise().writer

    def _opened_or_raise(self) -> Opened:
        if self._opened is None:
            raise StoreClosed(str(self._path))
        return self._opened

    async def _enter(self) -> None:
        db = await open_writer(self._path, self._timeout, self._sleep)
        try:
            reader = await open_reader(self._path, self._timeout)
        except BaseException:
            await db.close()
            raise
        writer = Writer(SqliteDesk(db, str(self._path), self._timeout))
        transactions = Transactions(self._path, self._timeout, self._sleep, self._refused)
        self._opened = Opened(db, writer, reader, transactions, asyncio.create_task(self._renew(writer)))

    async def _leave(self, opened: Opened) -> None:
        self._opened = None  # nothing new is asked for from here on
        try:
            await complete(self._close(opened))
        except BaseException:
            opened.stop()
            raise

    async def _close(self, opened: Opened) -> None:
        await opened.transactions.close()
        try:
            with suppress(StoreError):  # then the leases lapse by themselves
                await opened.writer.write(queries.ABANDON, [(self._owner,)])
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
            until = self._until(self._now())
            with suppress(StoreError):  # tried again before the lease lapses
                kept = await writer.write(queries.RENEW, [(each.run_id, each.epoch, until) for each in held])
                for lease in held:
                    if lease.run_id not in kept:
                        self._drop(lease)

    def _drop(self, lease: Lease) -> None:
        if self._held.get(lease.run_id) == lease:
            del self._held[lease.run_id]

    def _hold(self, lease: Lease) -> Lease:
        self._held[lease.run_id] = lease
        return lease

    def _until(self, now: int) -> int:
        return now + int(self._lease * 1000)

    def _gone(self, run: Run) -> str | None:
        """The owner of a run where, for all that can be known, it no longer works on it."""
        if run.owner is None:
            return None
        gone = run.run_id not in self._held if run.owner == self._owner else self._is_gone(run.owner)
        return run.owner if gone else None

    def _is_gone(self, owner: str) -> bool:
        return owner != self._owner and is_gone(owner.rpartition(":")[0])

    async def _conditions(self, runs: RunFilter, before: int | None = None) -> Condition:
        owners = [] if runs.owned is None else await self._fetch(queries.OWNERS, ())
        return conditions(runs, self._now(), [owner for (owner,) in owners if self._is_gone(owner)], before)

    async def _data_version(self) -> int:
        """A number that is another one after each commit, of whichever process."""
        return int((await self._fetch("PRAGMA data_version", ()))[0][0])

    async def _refused(self, lease: Lease, version: Version) -> None:
        run = await self.read(lease.run_id)
        if run.epoch != lease.epoch:
            self._drop(lease)
            raise Fenced(lease.run_id)
        raise VersionConflict(version.id, None if run.head < 0 else version_id(run.run_id, run.head))

    async def _fetch(self, query: str, parameters: Parameters) -> list[tuple[Any, ...]]:
        reader = self._opened_or_raise().reader
        try:
            return cast(list[tuple[Any, ...]], await reader.execute_fetchall(query, cast(Any, parameters)))
        except Exception as error:
            raise translated(error, str(self._path), "reading", self._timeout) from error
