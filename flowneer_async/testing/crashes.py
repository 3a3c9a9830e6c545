"""A store whose process dies at a chosen commit."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal, TypeAlias, TypeVar

from flowneer_async.errors import NoTransactions, StoreFailed
from flowneer_async.store import Due, Lease, Page, RunFilter, Transaction, TransactionalStore, VersionStore
from flowneer_async.versions import Run, Signal, Status, Version

T = TypeVar("T")

How: TypeAlias = Literal["before", "after", "unheard"]
"""When a process dies: before a commit, after it, or in between: it is stored, but the caller is told otherwise."""


class Crash(BaseException):
    """The process dies here: no step and no store can catch it."""


class CrashingStore:
    """Another store, used by a process that dies at its commit number `at` (from 1; 0 for never).

    A commit is a call of `create`, `claim`, `append`, `release`, `drop` or `purge`, or that of a transaction. The
    process dies "before" anything is stored, or "after": from then on every method raises Crash. With "unheard" that
    one call is stored and raises StoreFailed, as when the connection breaks before the answer has come, and the process
    lives on until it is told to `die`.

    The leases of a dead process are given back at once, as the leases of one on the same host are.
    """

    def __init__(self, store: VersionStore, at: int = 0, how: How = "before") -> None:
        self._store, self._at, self._how = store, at, how
        self._leases: dict[str, tuple[Lease, bytes]] = {}
        self._begun: list[Transaction] = []
        self.commits = 0
        """How many it has come to."""
        self.crashed = False
        """Is the process dead?"""
        self.reached = False
        """Has it come to the commit at which it dies?"""

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        return await self._commit("create", lambda store: self._owned(store.create(run, versions), run))

    async def claim(self, run: Run) -> Lease:
        return await self._commit("claim", lambda store: self._owned(store.claim(run), replace(run, status="running")))

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        await self._commit("append", lambda store: store.append(lease, versions))

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        await self._commit("release", lambda store: store.release(lease, status, error, seal, wake))

    async def read(self, run_id: str) -> Run:
        return await self._alive.read(run_id)

    async def chain(self, version: str) -> Sequence[Version]:
        return await self._alive.chain(version)

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        return await self._alive.versions(run_id, first, last)

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        return await self._alive.send(run_id, name, payload, sent)

    async def signals(self, run_id: str) -> Sequence[Signal]:
        return await self._alive.signals(run_id)

    async def ask_cancel(self, run_id: str) -> bool:
        return await self._alive.ask_cancel(run_id)

    async def due(self, wanted: Due, limit: int) -> Sequence[Run]:
        return await self._alive.due(wanted, limit)

    async def find(self, runs: RunFilter, limit: int, after: str | None = None) -> Page:
        return await self._alive.find(runs, limit, after)

    async def count(self, runs: RunFilter) -> Mapping[Status, int]:
        return await self._alive.count(runs)

    async def drop(self, run_id: str, keep: int, since: int | None = None) -> int:
        return await self._commit("drop", lambda store: store.drop(run_id, keep, since))

    async def purge(self, run_id: str) -> None:
        await self._commit("purge", lambda store: store.purge(run_id))

    @asynccontextmanager
    async def changes(self, run_id: str) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
        async with self._alive.changes(run_id) as changed:

            async def told() -> None:
                await changed()
                if self.crashed:
                    raise Crash

            yield told

    async def begin(self) -> Transaction:
        store = self._alive
        if not isinstance(store, TransactionalStore):
            raise NoTransactions(f"a {type(store).__qualname__}")
        begun = await store.begin()
        self._begun.append(begun)
        return _Transaction(begun, lambda: self._commit("commit", lambda _: begun.commit()))

    async def die(self) -> None:
        """The process ends, whatever it owns is free, and what it has not committed is rolled back."""
        self.crashed = True
        for begun in self._begun:
            await begun.rollback()
        for lease, seal in list(self._leases.values()):  # another call may be taking one
            await self._store.release(lease, "running", seal=seal)

    @property
    def _alive(self) -> VersionStore:
        if self.crashed:
            raise Crash
        return self._store

    async def _commit(self, name: str, work: Callable[[VersionStore], Awaitable[T]]) -> T:
        store = self._alive
        self.commits += 1
        if self.commits != self._at:
            return await work(store)
        self.reached = True
        if self._how == "before":
            self.crashed = True  # at once: what goes on beside this is dead too
        else:
            await work(store)
            if self._how == "unheard":
                raise StoreFailed("a crashing store", name, "the answer never came")
        await self.die()
        raise Crash

    async def _owned(self, taking: Awaitable[Lease | None], run: Run) -> Any:
        lease = await taking
        if lease is not None and run.status != "waiting":
            self._leases[lease.run_id] = lease, run.seal
        return lease


class _Transaction:
    """One of the store inside, whose commit is one at which the process may die."""

    def __init__(self, begun: Transaction, commit: Callable[[], Awaitable[None]]) -> None:
        self._begun, self._commit = begun, commit

    @property
    def connection(self) -> object:
        return self._begun.connection

    async def is_open(self) -> bool:
        return await self._begun.is_open()

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        await self._begun.append(lease, versions)

    async def commit(self) -> None:
        await self._commit()

    async def rollback(self) -> None:
        await self._begun.rollback()
