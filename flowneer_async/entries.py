"""Keeping the versions of a run in a store of two methods, as the seed's stores are: the only caller of it."""

# A store of the user's may give anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Mapping
from inspect import isawaitable
from typing import Any, cast

from flowneer_async.control import End
from flowneer_async.differ import Diff, Mirror
from flowneer_async.errors import FlowneerError, StoreFailed
from flowneer_async.journal import Following
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.shield import complete
from flowneer_async.state import Shape
from flowneer_async.store import Plain, VersionedCheckpointStore
from flowneer_async.transacted import StepTransaction
from flowneer_async.unkept import NothingBetween
from flowneer_async.versions import ROOT, Snapshot, VersionedCheckpointEntry, version_id


class EntryJournal(Following, NothingBetween):
    """Entries for a store of two methods, from a root on: one for each step that changed something."""

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
        super().__init__(mirror, shape)
        self._plan, self._store, self._world, self._run_id = plan, store, world, run_id
        self._seq = 0
        self.version = parent

    async def begin(self) -> None:
        """Give the root, which holds the whole initial state."""
        await self._give(self.before.whole(), ROOT, "")

    def keeps(self, name: str) -> bool:
        return self._plan.keeps is None or self._plan.keeps(name)

    async def record(
        self, step_index: int, path: str, state: object, transaction: StepTransaction | None = None
    ) -> str | None:
        return await self._keep(self._advance(path, state), step_index, path)

    async def close(self, end: End, state: object) -> None:
        if self._passed is not None and end.status == "completed":
            await self._keep(self._advance(self._passed[1], state), *self._passed)

    async def _keep(self, diff: Diff | None, step_index: int, path: str) -> str | None:
        diff = self._since_version(diff)
        if diff is None:
            return None
        await self._give(diff, step_index, path)
        return self.version

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
