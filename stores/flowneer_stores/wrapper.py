"""A store around another one: what a wrapper does not change, it passes on."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self

from flowneer_async.errors import NoTransactions
from flowneer_async.store import Due, Lease, Page, RunFilter, Transaction, TransactionalStore, VersionStore
from flowneer_async.versions import Run, Signal, Status, Version
from flowneer_stores.methods import Methods


class Wrapper(Methods):
    """Another store, `store`, which is entered and left with this one where it is a context manager."""

    def __init__(self, store: VersionStore) -> None:
        self._store = store
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if isinstance(self._store, AbstractAsyncContextManager):
            await self._stack.enter_async_context(self._store)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        return await self._store.create(run, versions)

    async def claim(self, run: Run) -> Lease:
        return await self._store.claim(run)

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        rows = await self._encoded(lease, versions)
        await self._store.append(lease, rows)
        await self._stored(lease, rows)

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        await self._store.release(lease, status, error, seal, wake)

    async def read(self, run_id: str) -> Run:
        return await self._store.read(run_id)

    async def chain(self, version: str) -> Sequence[Version]:
        return await self._store.chain(version)

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        return await self._store.versions(run_id, first, last)

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        return await self._store.send(run_id, name, payload, sent)

    async def signals(self, run_id: str) -> Sequence[Signal]:
        return await self._store.signals(run_id)

    async def ask_cancel(self, run_id: str) -> bool:
        return await self._store.ask_cancel(run_id)

    async def due(self, wanted: Due, limit: int) -> Sequence[Run]:
        return await self._store.due(wanted, limit)

    async def find(self, runs: RunFilter, limit: int, after: str | None = None) -> Page:
        return await self._store.find(runs, limit, after)

    async def count(self, runs: RunFilter) -> Mapping[Status, int]:
        return await self._store.count(runs)

    async def drop(self, run_id: str, keep: int, since: int | None = None) -> int:
        return await self._store.drop(run_id, keep, since)

    async def purge(self, run_id: str) -> None:
        await self._store.purge(run_id)

    def changes(self, run_id: str) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        return self._store.changes(run_id)

    @property
    def lag(self) -> float:
        return self._store.lag if isinstance(self._store, Methods) else 0.0

    async def begin(self) -> Transaction:
        if not isinstance(self._store, TransactionalStore):
            raise NoTransactions(f"a {type(self._store).__qualname__}")
        return _Wrapped(await self._store.begin(), self._encoded, self._stored)

    async def _encoded(self, lease: Lease, versions: Sequence[Version]) -> Sequence[Version]:
        """What an append of these versions stores: they themselves, unless a wrapper keeps them in another form."""
        return versions

    async def _stored(self, lease: Lease, rows: Sequence[Version]) -> None:
        """An append of what `_encoded` gave has been committed. Of one that has not, or may not, nothing is told."""


class _Wrapped:
    """A transaction of the store inside, to which versions are appended as the wrapper keeps them."""

    def __init__(
        self,
        transaction: Transaction,
        encoded: Callable[[Lease, Sequence[Version]], Awaitable[Sequence[Version]]],
        stored: Callable[[Lease, Sequence[Version]], Awaitable[None]],
    ) -> None:
        self._transaction, self._encoded, self._stored = transaction, encoded, stored
        self._appended: tuple[Lease, Sequence[Version]] | None = None

    @property
    def connection(self) -> object:
        return self._transaction.connection

    async def is_open(self) -> bool:
        return await self._transaction.is_open()

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        rows = await self._encoded(lease, versions)
        await self._transaction.append(lease, rows)
        self._appended = lease, rows

    async def commit(self) -> None:
        await self._transaction.commit()
        if self._appended is not None:
            await self._stored(*self._appended)

    async def rollback(self) -> None:
        await self._transaction.rollback()
