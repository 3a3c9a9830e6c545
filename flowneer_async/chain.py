"""Keeping the versions of a run in a full store: the only caller of it while the run goes on."""

from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any

import anyio

from flowneer_async.behind import Behind
from flowneer_async.control import End
from flowneer_async.differ import Diff, Mirror
from flowneer_async.errors import NoTransactions
from flowneer_async.journal import Following, Unsaved
from flowneer_async.memory import Memory
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.state import Shape
from flowneer_async.store import Lease, TransactionalStore, VersionStore
from flowneer_async.transacted import StepTransaction
from flowneer_async.versions import Head, Version, grow, version_id


class ChainJournal(Following):
    """Versions of an owned run, each on the head that the one before it made."""

    whole_steps = False

    def __init__(
        self,
        plan: Plan[Any],
        store: VersionStore,
        lease: Lease,
        head: Head,
        mirror: Mirror,
        memory: Memory,
        shape: Shape,
        world: World,
    ) -> None:
        super().__init__(mirror, shape)
        self._plan, self._store, self._lease, self._world = plan, store, lease, world
        self._head, self._memory = head, memory
        # The last step that made a version which is to be stored in the end.
        self._pending: tuple[int, str] | None = None
        # What was being appended when that was cancelled: it may be stored, or not.
        self._unsure: list[Version] = []
        # Why a transaction was not committed, with versions that must not be stored without what it did.
        self._lost: BaseException | None = None
        self._turn = anyio.Semaphore(1)
        self._kept: dict[str, bool] = {}
        self.behind = Behind(self._append, world.now) if plan.durability == "async" else None

    @property
    def version(self) -> str | None:
        return self._head.version if self._head.seq >= 0 else None

    def keeps(self, name: str) -> bool:
        if self._plan.keeps is None:
            return True
        kept = self._kept.get(name)
        if kept is None:
            kept = self._kept[name] = self._plan.keeps(name)
        return kept

    def record(
        self, step_index: int, path: str, state: object, transaction: StepTransaction | None = None
    ) -> Coroutine[Any, Any, str | None]:
        return self._keep(self._advance(path, state), step_index, path, False, transaction)

    def note(
        self, step_index: int, path: str, transaction: StepTransaction | None = None
    ) -> Coroutine[Any, Any, str | None]:
        return self._keep(None, step_index, path, True, transaction)

    async def migrate(self, step_index: int, path: str, state: object) -> None:
        """Keep a state that was changed to fit the flow as it is now."""
        await self._keep(self._advance(path, state), step_index, path, True)

    async def settle(self) -> None:
        try:
            await self._append_pending()
            if self.behind is not None:
                await self.behind.drain()
        except Exception as error:
            raise Unsaved(error) from error

    async def flush(self) -> None:
        """Store all that is left, while nothing is saved beside the run."""
        if self._unsure:
            await self._catch_up()
        await self._append_pending()
        if self.behind is not None:
            await self.behind.flush()

    async def close(self, end: End, state: object) -> None:
        try:
            if self._passed is not None and end.status == "completed":
                await self._keep(self._advance(self._passed[1], state), *self._passed)
            await self.flush()
        except BaseException:
            await self._store.release(self._lease, "running")
            raise
        await self._store.release(self._lease, end.status, end.error, wake=end.wake)

    def gather(self) -> Behind | None:
        if self.behind is not None or self._plan.durability == "exit":
            return None
        self.behind = Behind(self._append, self._world.now, waits=True)
        return self.behind

    def scatter(self) -> None:
        self.behind = None

    async def begin_transaction(self) -> StepTransaction:
        store = self._store
        if not isinstance(store, TransactionalStore):
            raise NoTransactions(f"a {type(store).__qualname__}")
        await self._turn.acquire()
        behind = self.behind
        try:
            await self._pause(behind)
            return StepTransaction(await store.begin(), self._lease, behind, self._turn.release, self._lose)
        except BaseException:
            if behind is not None:
                behind.let_go()
            self._turn.release()
            raise

    async def _pause(self, behind: Behind | None) -> None:
        """Store nothing more beside the transaction that begins."""
        try:
            if behind is not None:
                await behind.hold()
            if self._unsure:
                await self._catch_up()
        except Exception as error:
            raise Unsaved(error) from error

    def _lose(self, versions: Sequence[Version], error: BaseException) -> None:
        self._unsure, self._lost = list(versions), error

    async def _keep(
        self,
        diff: Diff | None,
        step_index: int,
        path: str,
        is_note: bool = False,
        transaction: StepTransaction | None = None,
    ) -> str | None:
        """Make a version, and store it as the durability has it, or in the transaction."""
        diff = self._since_version(diff)
        if self._plan.durability == "exit":
            self._pending = (step_index, path) if transaction is None else None
            if transaction is None:
                return None
            version = self._keyframe(step_index, path)
        else:
            body = self._body(diff)
            if not body and self._plan.skip_unchanged and not is_note and transaction is None:
                return None
            version = self._version(body, step_index, path)
        try:
            await (self._save(version) if transaction is None else transaction.commit(version))
        except Exception as error:
            raise Unsaved(error) from error
        return version_id(version.run_id, version.seq)

    def _body(self, diff: Diff | None) -> bytes:
        """What a step has changed, and what is new in the memory; empty where nothing is."""
        changes, gone = self._memory.take()
        if not changes and not gone:
            return b"" if diff is None else diff.encode()
        if diff is not None:
            changes, gone = {**diff.changes, **changes}, diff.removed + gone
        return Diff(changes, gone, self._memory.codec).encode()

    async def _append_pending(self) -> None:
        async with self._turn:
            if self._pending is not None:
                pending, self._pending = self._pending, None
                await self._append([self._keyframe(*pending)])

    def _save(self, version: Version) -> Awaitable[None]:
        return self._append((version,)) if self.behind is None else self.behind.put(version)

    async def _append(self, versions: Sequence[Version]) -> None:
        if self._unsure:
            await self._catch_up()
        try:
            await self._store.append(self._lease, versions)
        except anyio.get_cancelled_exc_class():
            self._unsure += versions
            raise

    async def _catch_up(self) -> None:
        """Store what an append that was cancelled has not stored."""
        if self._lost is not None:
            raise self._lost
        head = (await self._store.read(self._lease.run_id)).head
        left = [version for version in self._unsure if version.seq > head]
        if left:
            await self._store.append(self._lease, left)
        self._unsure.clear()

    def _version(self, body: bytes, step_index: int, path: str) -> Version:
        if self._head.wants_keyframe(body, self.before.size + self._memory.size):
            return self._keyframe(step_index, path)
        version, self._head = grow(self._head, body, False, step_index, path, self._world.now())
        return version

    def _keyframe(self, step_index: int, path: str) -> Version:
        version, self._head = root(self._head, self.before, self._memory, step_index, path, self._world.now())
        return version


def root(
    head: Head,
    mirror: Mirror,
    memory: Memory,
    step_index: int,
    path: str,
    timestamp: int,
    fork_of: str | None = None,
) -> tuple[Version, Head]:
    """A keyframe: the whole state and all of the memory, after `head`."""
    whole = mirror.whole()
    body = Diff({**whole.changes, **memory.whole()}, (), memory.codec).encode()
    return grow(head, body, True, step_index, path, timestamp, fork_of)
