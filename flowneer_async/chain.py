"""Keeping the versions of a run in a full store: the only caller of it while the run goes on."""

from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any

import anyio

from flowneer_async.behind import Behind
from flowneer_async.differ import Diff, Mirror
from flowneer_async.journal import Following, Unsaved
from flowneer_async.memory import Memory
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.state import Shape
from flowneer_async.store import Lease, VersionStore
from flowneer_async.versions import Head, Status, Version, grow, version_id


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
        self._appending = anyio.Lock()
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

    def record(self, step_index: int, path: str, state: object) -> Coroutine[Any, Any, str | None]:
        return self._keep(self._advance(path, state), step_index, path)

    def note(self, step_index: int, path: str) -> Coroutine[Any, Any, str | None]:
        return self._keep(None, step_index, path, is_note=True)

    async def migrate(self, step_index: int, path: str, state: object) -> None:
        """Keep a state that was changed to fit the flow as it is now."""
        await self._keep(self._advance(path, state), step_index, path, is_note=True)

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

    async def close(self, status: Status, state: object, error: str | None = None) -> None:
        try:
            if self._passed is not None and status == "completed":
                await self._keep(self._advance(self._passed[1], state), *self._passed)
            await self.flush()
        except BaseException:
            await self._store.release(self._lease, "running")
            raise
        await self._store.release(self._lease, status, error)

    def gather(self) -> Behind | None:
        if self.behind is not None or self._plan.durability == "exit":
            return None
        self.behind = Behind(self._append, self._world.now, waits=True)
        return self.behind

    def scatter(self) -> None:
        self.behind = None

    async def _keep(self, diff: Diff | None, step_index: int, path: str, is_note: bool = False) -> str | None:
        """Make a version, and store it as the durability has it."""
        diff = self._since_version(diff)
        if self._plan.durability == "exit":
            self._pending = step_index, path
            return None
        changes, gone = self._memory.take()
        if changes or gone:
            all_changes, removed = (
                (changes, gone) if diff is None else ({**diff.changes, **changes}, diff.removed + gone)
            )
            body = Diff(all_changes, removed, self._memory.codec).encode()
        elif diff is not None:
            body = diff.encode()
        elif self._plan.skip_unchanged and not is_note:
            return None
        else:
            body = b""
        version = self._version(body, step_index, path)
        try:
            await self._save(version)
        except Exception as error:
            raise Unsaved(error) from error
        return version_id(version.run_id, version.seq)

    async def _append_pending(self) -> None:
        async with self._appending:
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
