"""What a store is: two methods, or nine.

`VersionedCheckpointStore` is any object with `save` and `resolve`, sync or async: enough to keep the versions of runs
and to resume from one of them. `VersionStore` is the full kind: it also knows runs, gives the right to write to one of
them (its lease), refuses whoever has lost it, and keeps the signals that are sent to them.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flowneer_async.encoding import JSON
from flowneer_async.errors import VersionConflict
from flowneer_async.memory import split
from flowneer_async.versions import (
    Run,
    Signal,
    Snapshot,
    Status,
    Version,
    VersionedCheckpointEntry,
    resolved,
    version_id,
)

Plain = dict[str, object]


@runtime_checkable
class VersionedCheckpointStore(Protocol):
    """The two methods of the seed's stores; either may be async. What they raise reaches the caller as StoreFailed."""

    def save(self, entry: VersionedCheckpointEntry) -> Awaitable[None] | None:
        """Keep one version."""
        ...

    def resolve(self, version: str) -> Awaitable[Snapshot[Plain]] | Snapshot[Plain]:
        """The whole state that a version stood for."""
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to run `run_id`, until another owner takes it with a higher epoch."""

    run_id: str
    epoch: int


@runtime_checkable
class VersionStore(Protocol):
    """The full kind of store. Each method is a transaction: done as a whole, or, cancelled or failed, not at all."""

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        """Store a new run with its first versions, and own it; None when its id is taken; raises VersionConflict."""
        ...

    async def claim(self, run: Run) -> Lease:
        """Own a run as it was last read, with the flow's steps as they are now; raises RunBusy, UnknownRun."""
        ...

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        """Append to the head of the owned run; raises Fenced, VersionConflict."""
        ...

    async def release(self, lease: Lease, status: Status, error: str | None = None) -> None:
        """Store how the run stands and give the lease back; does nothing where it is another's by now."""
        ...

    async def read(self, run_id: str) -> Run:
        """What is known of a run; raises UnknownRun."""
        ...

    async def chain(self, version: str) -> Sequence[Version]:
        """The versions from the last keyframe up to this one; raises UnknownVersion."""
        ...

    async def versions(self, run_id: str) -> Sequence[Version]:
        """All versions of a run, in order; raises UnknownRun."""
        ...

    async def send(self, run_id: str, name: str, payload: bytes) -> Signal:
        """Keep a signal for a run, whoever owns it and however it stands; raises UnknownRun."""
        ...

    async def signals(self, run_id: str) -> Sequence[Signal]:
        """All signals of a run, used or not, in order; raises UnknownRun."""
        ...


def check_row(lease: Lease, versions: Sequence[Version]) -> None:
    """Are these versions of the owned run, one after the other? Raises VersionConflict; every store asks this first."""
    _check_row(lease.run_id, versions, versions[0].seq if versions else 0)


def check_first(run: Run, versions: Sequence[Version]) -> None:
    """Are these the first versions of this new run, from number 0 on? The same for `create`."""
    _check_row(run.run_id, versions, 0)


def _check_row(run_id: str, versions: Sequence[Version], seq: int) -> None:
    for number, version in enumerate(versions, seq):
        if version.run_id != run_id or version.seq != number:
            raise VersionConflict(version.id, version_id(run_id, number - 1) if number > seq else None)


async def resolve(store: VersionStore, version: str) -> Snapshot[Plain]:
    """Resolve a version to its state as a plain dict; raises UnknownVersion, BrokenChain, CorruptVersion."""
    chain = await store.chain(version)
    texts, _ = split(resolved(version, chain))
    return Snapshot(chain[-1].step_index, {key: JSON.load(text) for key, text in texts.items()})
