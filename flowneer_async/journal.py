"""Keeping the versions of a run in a full store: the only caller of it while the run goes on."""

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from flowneer_async.behind import Behind
from flowneer_async.differ import Diff, Mirror
from flowneer_async.errors import StateNotSerializable
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.state import Shape
from flowneer_async.store import Lease, VersionStore
from flowneer_async.versions import (
    Head,
    Status,
    Version,
    grow,
)


class Journal(Protocol):
    """What the runner needs of either kind."""

    @property
    def version(self) -> str | None:
        """The last version."""
        ...

    @property
    def before(self) -> Mirror | None:
        """The state before the step that comes next, where the journal has it."""
        ...

    @property
    def behind(self) -> Behind | None:
        """What saves behind the run, and wants a task for it."""
        ...

    async def record(self, index: int, path: str, state: object) -> None:
        """Keep the state after a step."""
        ...

    async def close(self, status: Status, state: object, error: str | None = None) -> None:
        """Keep what is left, and how the run stands."""
        ...


class ChainJournal:
    """Versions of an owned run, each on the head that the one before it made."""

    def __init__(
        self, plan: Plan[Any], store: VersionStore, lease: Lease, head: Head, mirror: Mirror, shape: Shape, world: World
    ) -> None:
        self._plan, self._kept, self._store, self._lease, self._world = plan, plan.kept, store, lease, world
        self._head, self._mirror, self._shape = head, mirror, shape
        # The last step that the filter passed over, and the last that the mirror has but the store has not.
        self._passed: tuple[int, str] | None = None
        self._pending: tuple[int, str] | None = None
        self.behind = Behind(self._append, world.now) if plan.durability == "async" else None

    @property
    def version(self) -> str:
        return self._head.version

    @property
    def before(self) -> Mirror | None:
        return self._mirror if self._passed is None else None

    async def begin(self, step_index: int, path: str, fork_of: str | None) -> None:
        """Append the root: a keyframe of the state as the mirror has it."""
        await self._append([self._keyframe(step_index, path, fork_of)])

    async def record(self, index: int, path: str, state: object) -> None:
        if not self._kept[index]:
            self._passed = index, path
        elif (version := self._next(index, path, state)) is not None:
            await self._save(version)

    async def close(self, status: Status, state: object, error: str | None = None) -> None:
        try:
            if self._passed is not None and status == "completed":
                version = self._next(*self._passed, state)
                if version is not None:
                    await self._save(version)
            if self._pending is not None:
                await self._append([self._keyframe(*self._pending)])
            if self.behind is not None:
                await self.behind.flush()
        except BaseException:
            await self._store.release(self._lease, "running")
            raise
        await self._store.release(self._lease, status, error)

    def _next(self, index: int, path: str, state: object) -> Version | None:
        """The version to save after a step, if there is one."""
        diff = advance(self._mirror, self._shape, state, path)
        self._passed = None
        if self._plan.durability == "exit":
            self._pending = index, path
            return None
        return None if diff is None and self._plan.skip_unchanged else self._version(diff, index, path)

    def _save(self, version: Version) -> Awaitable[None]:
        return self._store.append(self._lease, (version,)) if self.behind is None else self.behind.put(version)

    async def _append(self, versions: Sequence[Version]) -> None:
        await self._store.append(self._lease, versions)

    def _version(self, diff: Diff | None, index: int, path: str) -> Version:
        body = b"" if diff is None else diff.encode()
        if self._head.wants_keyframe(body, self._mirror.size):
            return self._keyframe(index, path)
        version, self._head = grow(self._head, body, False, index, path, self._world.now())
        return version

    def _keyframe(self, index: int, path: str, fork_of: str | None = None) -> Version:
        body = self._mirror.whole().encode()
        version, self._head = grow(self._head, body, True, index, path, self._world.now(), fork_of)
        return version


def advance(mirror: Mirror, shape: Shape, state: object, path: str) -> Diff | None:
    """What the step at `path` changed; raises StateNotSerializable, which names that step."""
    try:
        return mirror.advance(shape.items(state))
    except StateNotSerializable as error:
        raise StateNotSerializable(error.path, error.reason, step=path) from None
