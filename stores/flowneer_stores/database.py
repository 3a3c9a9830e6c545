"""What the stores in databases have in common: how they are opened and closed, and what they read."""

import asyncio
from abc import abstractmethod
from collections.abc import Container, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from flowneer_async.errors import (
    BrokenChain,
    Fenced,
    StoreClosed,
    StoreError,
    StoreFailed,
    UnknownRun,
    UnknownVersion,
    VersionConflict,
)
from flowneer_async.shield import complete, on_asyncio
from flowneer_async.store import Lease, RunFilter
from flowneer_async.versions import Run, Signal, Version, parse_version_id, version_id
from flowneer_stores.leases import Leases
from flowneer_stores.methods import Methods
from flowneer_stores.rows import Row, as_run
from flowneer_stores.writer import Cell, Writer

_LAST = 2**63 - 1


class Opened(Protocol):
    """What a store consists of while it is open."""

    @property
    def writer(self) -> Writer:
        """Who writes."""
        ...

    def changed(self, run_id: str) -> None:
        """Tell whoever watches a run."""
        ...

    async def end_transactions(self) -> None:
        """End what steps have left open."""
        ...

    async def close(self) -> None:
        """Close all of it."""
        ...

    def stop(self) -> None:
        """Drop all of it, where no time is left to close."""
        ...


O = TypeVar("O", bound=Opened)  # noqa: E741 - as S is a state


class Questions(Protocol):
    """The texts of SQL that are asked alike: a module."""

    ABANDON: str
    CHAIN: str
    DROP: str
    OWNERS: str
    RUN: str
    SIGNALS: str
    VERSIONS: str


class DatabaseStore(Methods, Generic[O]):
    """A store in the tables of a database, called `place` in errors, through a `driver` for asyncio."""

    def __init__(self, place: str, driver: str, questions: Questions, leases: Leases) -> None:
        self._place, self._driver, self._questions, self._leases = place, driver, questions, leases
        self._opened: O | None = None
        self._heartbeat: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise StoreFailed(self._place, "opening", "it is open already")
        if not on_asyncio():
            reason = f"{self._driver} works on asyncio only: under trio use MemoryStore"
            raise StoreFailed(self._place, "opening", reason)
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
        await self._leave(self._open)

    async def read(self, run_id: str) -> Run:
        return (await self._read(run_id))[1]

    async def chain(self, version: str) -> Sequence[Version]:
        rows = await self._fetch(self._questions.CHAIN, *parse_version_id(version))
        if not rows:
            raise UnknownVersion(version)
        return list(map(Version._make, rows))

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        rows = await self._fetch(self._questions.VERSIONS, run_id, first, _LAST if last is None else last)
        if not rows:
            await self.read(run_id)
        return list(map(Version._make, rows))

    async def signals(self, run_id: str) -> Sequence[Signal]:
        rows = await self._fetch(self._questions.SIGNALS, run_id)
        if not rows:
            raise UnknownRun(run_id)
        return [Signal(*row) for row in rows if row[1] is not None]

    async def drop(self, run_id: str, keep: int, since: int | None = None) -> int:
        while True:
            was = (await self.read(run_id)).first
            first = await self._writer.write(self._questions.DROP, [(run_id, was, max(1, keep), since)])
            if run_id in first:
                self._changed(run_id)
                return first[run_id] - was

    @property
    def lag(self) -> float:
        return 0.0 if self._opened is None else self._opened.writer.lag

    @abstractmethod
    async def _make(self) -> O:
        """Open all that the store consists of."""

    @abstractmethod
    async def _extend(self, writer: Writer, leases: Sequence[Lease]) -> Container[str]:
        """Let these leases last from now on, and give the runs of those that are still held."""

    @abstractmethod
    async def _fetch(self, question: str, *parameters: Any) -> Sequence[Row]:
        """The rows that a question to the tables gives."""

    def _changed(self, run_id: str) -> None:
        """Tell whoever watches the run."""
        if self._opened is not None:
            self._opened.changed(run_id)

    @property
    def _open(self) -> O:
        if self._opened is None:
            raise StoreClosed(self._place)
        return self._opened

    @property
    def _writer(self) -> Writer:
        return self._open.writer

    async def _enter(self) -> None:
        opened = await self._make()
        self._opened = opened
        self._heartbeat = asyncio.create_task(self._leases.renew(lambda leases: self._extend(opened.writer, leases)))

    async def _leave(self, opened: O) -> None:
        self._opened = None  # nothing new is asked for from here on
        try:
            await complete(self._close(opened))
        except BaseException:
            opened.stop()
            raise

    async def _close(self, opened: O) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        await opened.end_transactions()
        try:
            with suppress(StoreError):  # then the leases lapse by themselves
                for run_id in await opened.writer.write(self._questions.ABANDON, [(self._leases.owner,)]):
                    opened.changed(run_id)
            self._leases.drop_all()
        finally:
            await opened.close()

    async def _create(self, run: Run, statement: str, rows: Sequence[tuple[Cell, ...]]) -> Lease | None:
        """Create a run, and own it unless it waits; None where its id is taken."""
        if run.status != "waiting":
            return await self._take(run.run_id, statement, rows)
        created = await self._writer.write(statement, rows)
        # An epoch that it never had: this lease is good for nothing.
        return Lease(run.run_id, created[run.run_id] - 1) if run.run_id in created else None

    async def _take(self, run_id: str, statement: str, rows: Sequence[tuple[Cell, ...]]) -> Lease | None:
        """Create or claim a run; None where it is not to be had."""
        with self._leases.taking(run_id):
            taken = await self._writer.write(statement, rows)
            return self._leases.hold(Lease(run_id, taken[run_id])) if run_id in taken else None

    async def _read(self, run_id: str) -> tuple[int, Run]:
        """A run, and the number of its row."""
        rows = await self._fetch(self._questions.RUN, run_id)
        if not rows:
            raise UnknownRun(run_id)
        row, last, *columns = rows[0]
        run = as_run(columns)
        if run.head < last:
            raise BrokenChain(version_id(run_id, last), version_id(run_id, run.head + 1))
        return row, run

    async def _refused(self, lease: Lease, version: Version) -> None:
        """Raise why a version did not fit."""
        run = await self.read(lease.run_id)
        if run.epoch != lease.epoch:
            self._leases.drop(lease)
            raise Fenced(lease.run_id)
        raise VersionConflict(version.id, None if run.head < 0 else version_id(run.run_id, run.head))

    async def _dead(self) -> list[str]:
        """The owners of runs that are dead."""
        return [owner for (owner,) in await self._fetch(self._questions.OWNERS) if self._leases.is_gone(owner)]

    async def _gone(self, runs: RunFilter) -> list[str]:
        """The same, where it is asked which runs are owned."""
        return [] if runs.owned is None else await self._dead()
