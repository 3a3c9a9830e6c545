"""Keeping the versions of a run in a store of two methods, as the seed's stores are: the only caller of it."""

# A store of the user's may give anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Mapping
from inspect import isawaitable
from typing import Any, cast

from flowneer_async.behind import Behind
from flowneer_async.differ import Diff, Mirror
from flowneer_async.errors import FlowneerError, StoreFailed
from flowneer_async.journal import advance
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.shield import complete
from flowneer_async.state import Shape
from flowneer_async.store import Plain, VersionedCheckpointStore
from flowneer_async.versions import ROOT, Snapshot, Status, VersionedCheckpointEntry, version_id


class EntryJournal:
    """Entries for a store of two methods, from a root on: one for each step that changed something."""

    behind = None
    whole_steps = True

    def __init__(
        self,
        plan: Plan[Any],
        store: VersionedCheckpointStore,
        run_id: str,
        parent: str | None,
        mirror: Mirror,
        shape: Shape,
        world: World,
    ) -> None:
        self._plan, self._store, self._world = plan, store, world
        self._run_id, self._mirror, self._shape = run_id, mirror, shape
        self._seq = 0
        self._passed: tuple[int, str] | None = None
        self.version = parent
        self.diff: Diff | None = None

    @property
    def before(self) -> Mirror | None:
        return self._mirror if self._passed is None else None

    async def begin(self) -> None:
        """Give the root, which holds the whole initial state."""
        await self._give(self._mirror.whole(), ROOT, "")

    async def record(self, step_index: int, name: str, path: str, state: object) -> str | None:
        if self._plan.keeps is not None and not self._plan.keeps(name):
            self._passed = step_index, path
            return None
        await self._keep(step_index, path, state)
        return None if self.diff is None else self.version

    async def note(self, step_index: int, path: str) -> str | None:
        return None

    async def settle(self) -> None:
        pass

    def gather(self) -> Behind | None:
        return None

    def scatter(self) -> None:
        pass

    async def close(self, status: Status, state: object, error: str | None = None) -> None:
        if self._passed is not None and status == "completed":
            await self._keep(*self._passed, state)

    async def _keep(self, index: int, path: str, state: object) -> None:
        self._passed = None
        diff = self.diff = advance(self._mirror, self._shape, state, path)
        if diff is not None:
            await self._give(diff, index, path)

    async def _give(self, diff: Diff, index: int, path: str) -> None:
        version = version_id(self._run_id, self._seq)
        entry = VersionedCheckpointEntry(version, index, diff, self.version, self._world.now(), path)
        await complete(_save(self._store, entry))
        self._seq += 1
        self.version = version


async def _save(store: VersionedCheckpointStore, entry: VersionedCheckpointEntry) -> None:
    try:
        saving = store.save(entry)
        if isawaitable(saving):
            await saving
    except FlowneerError:
        raise
    except Exception as error:
        raise StoreFailed(type(store).__qualname__, f"save of {entry.version}", type(error).__qualname__) from error


async def resolve_entry(store: VersionedCheckpointStore, version: str) -> Snapshot[Plain]:
    """The snapshot that a store gave for a version; raises StoreFailed where it is none."""
    try:
        answer = store.resolve(version)
        return _as_snapshot(store, version, await answer if isawaitable(answer) else answer)
    except FlowneerError:
        raise
    except Exception as error:
        raise StoreFailed(type(store).__qualname__, f"resolve of {version!r}", type(error).__qualname__) from error


def _as_snapshot(store: VersionedCheckpointStore, version: str, answer: object) -> Snapshot[Plain]:
    reason = f"it gave a {type(answer).__qualname__}, not a Snapshot of an index, {ROOT} or more, and a mapping"
    if isinstance(answer, Snapshot):
        snapshot = cast(Snapshot[Plain], answer)
        if isinstance(snapshot.state, Mapping) and type(snapshot.step_index) is int and snapshot.step_index >= ROOT:
            return snapshot
    raise StoreFailed(type(store).__qualname__, f"resolve of {version!r}", reason)
