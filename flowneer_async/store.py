"""What a store is: two methods, or sixteen.

`VersionedCheckpointStore` is any object with `save` and `resolve`, sync or async: enough to keep the versions of runs
and to resume from one of them. `VersionStore` is the full kind: it also knows runs, gives the right to write to one of
them (its lease), refuses whoever has lost it, keeps the signals that are sent to them, finds runs, also those that
somebody should go on with, and drops what is no longer wanted. A `TransactionalStore` can also commit what a step does
in the same database.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, get_args, runtime_checkable

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

EVERY_STATUS: frozenset[Status] = frozenset(get_args(Status))


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


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are meant: those of which all of this is true. Times are Unix time in ms.

    `owned` runs have a lease that has not lapsed, and whose owner is not known to be dead. A run has to have all of
    `tags`, and may have more.
    """

    status: frozenset[Status] = EVERY_STATUS
    flow: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    owned: bool | None = None
    created_after: int | None = None
    """At this time or later."""
    created_before: int | None = None
    """Before this time."""
    updated_after: int | None = None
    updated_before: int | None = None
    begun_after: int | None = None
    """At this time or later; not those that have not begun."""
    key: str | None = None
    cancelling: bool | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """Which of the runs that somebody should go on with: those of these `flows`, but for those of a `busy` key."""

    flows: frozenset[str]
    busy: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the runs that were asked for, the newest first; `next` leads to those after them, None if these are all.

    Newest is what was stored last. A run that is stored meanwhile moves no other one to another page.
    """

    runs: tuple[Run, ...]
    next: str | None = None


@runtime_checkable
class VersionStore(Protocol):
    """The full kind of store. Each method is a transaction: done as a whole, or, cancelled or failed, not at all."""

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        """Store a new run with its first versions, and own it; None when its id is taken; raises VersionConflict.

        A run that is stored as waiting is nobody's: it is claimed when it is to begin; its lease is good for nothing.
        """
        ...

    async def claim(self, run: Run) -> Lease:
        """Own a run as it was last read, with the flow's steps and the seal as they are now.

        It has begun when `run` says so, unless it had before. It does not sleep any more, and is cancelling only where
        that wish came after it was read. Its recoveries are 0 where its owner gave it back, 1 where the owner has
        stored versions of it, one more else. Raises RunBusy, UnknownRun.
        """
        ...

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        """Append to the head of the owned run; raises Fenced, VersionConflict."""
        ...

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        """Store how the run stands, and its seal, and give the lease back; nothing where it is another's by now.

        One that waits is to be woken at `wake`; at once where a signal, or the wish to cancel it, came since the claim.
        """
        ...

    async def read(self, run_id: str) -> Run:
        """What is known of a run; raises UnknownRun."""
        ...

    async def chain(self, version: str) -> Sequence[Version]:
        """The versions from the last keyframe up to this one; raises UnknownVersion, which a pruned one is."""
        ...

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        """The versions of a run from number `first` to `last`, all that there are, in order; raises UnknownRun."""
        ...

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        """Keep a signal for a run, whoever owns it and however it stands; raises UnknownRun.

        It wakes the run up, unless that is stored to begin later.

        `sent` is the time of a signal that was sent before, and is copied.
        """
        ...

    async def signals(self, run_id: str) -> Sequence[Signal]:
        """All signals of a run, used or not, in order; raises UnknownRun."""
        ...

    async def ask_cancel(self, run_id: str) -> bool:
        """Ask whoever works on a run, or goes on with it next, to cancel it; False for one that is over.

        Raises UnknownRun.
        """
        ...

    async def due(self, wanted: Due, limit: int) -> Sequence[Run]:
        """At most `limit` of the runs that somebody should go on with now.

        They wait, and are to be woken by now; or they are running, and nobody works on them. Those of the highest
        priority come first; of one priority those that nobody works on, then those that were to be woken first.
        """
        ...

    async def find(self, runs: RunFilter, limit: int, after: str | None = None) -> Page:
        """At most `limit` of these runs, the newest first; `after` is what the page before gave; raises BadOption.

        Raises CorruptRun where one of them cannot be read; it says what to give as `after` to read those that follow.
        """
        ...

    async def count(self, runs: RunFilter) -> Mapping[Status, int]:
        """How many of these runs there are of each status that any of them has."""
        ...

    async def drop(self, run_id: str, keep: int, since: int | None = None) -> int:
        """Drop the versions of a run that none of those kept needs, and give how many; raises UnknownRun.

        Kept are the last `keep` versions, at least one, those made at `since` (Unix time in ms) or later, and all after
        them; needed is what they fold from. The run, whoever owns it, goes on as it would have.
        """
        ...

    async def purge(self, run_id: str) -> None:
        """Forget a run, with its versions and signals; raises UnknownRun, and RunBusy where it is owned.

        No lease that was ever given for it is good for a later run of the same id.
        """
        ...

    def changes(self, run_id: str) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Watch a run: what is entered waits, each time it is called, until the run may have changed.

        It may have since it was entered, or since the call before returned; by whichever process. Raises UnknownRun.
        """
        ...


class Transaction(Protocol):
    """One transaction of a database, for a step's own statements and its version."""

    @property
    def connection(self) -> object:
        """What the step works with: the connection of the database's own library."""
        ...

    async def is_open(self) -> bool:
        """Can it be committed? False also where something was done on the connection that has ended it, or failed."""
        ...

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        """What `append` of the store does, as part of it; raises the same. Called once, and then `commit`."""
        ...

    async def commit(self) -> None:
        """Store all of it, or, where this raises, nothing; only a connection that was lost leaves it open which."""
        ...

    async def rollback(self) -> None:
        """Undo all of it, unless it is over already; raises nothing."""
        ...


@runtime_checkable
class TransactionalStore(VersionStore, Protocol):
    """A full store in a database that steps can have transactions with: `ctx.transaction()`."""

    async def begin(self) -> Transaction:
        """Begin a transaction on a connection of its own; raises StoreBusy, and NoTransactions where it has none."""
        ...


def check_row(lease: Lease, versions: Sequence[Version]) -> None:
    """Are these versions of the owned run, one after the other? Raises VersionConflict; every store asks this first."""
    _check_row(lease.run_id, versions, versions[0].seq if versions else 0)


def check_first(run: Run, versions: Sequence[Version]) -> None:
    """Are these the first versions of this new run, from number 0 on? The same for `create`.

    A copy of a run that was pruned begins later: with a keyframe.
    """
    if run.first and not (versions and versions[0].is_keyframe):
        raise VersionConflict(version_id(run.run_id, run.first), None)
    _check_row(run.run_id, versions, run.first)


def _check_row(run_id: str, versions: Sequence[Version], seq: int) -> None:
    for number, version in enumerate(versions, seq):
        if version.run_id != run_id or version.seq != number:
            raise VersionConflict(version.id, version_id(run_id, number - 1) if number > seq else None)


async def resolve(store: VersionStore, version: str) -> Snapshot[Plain]:
    """Resolve a version to its state as a plain dict; raises UnknownVersion, BrokenChain, CorruptVersion."""
    chain = await store.chain(version)
    texts, _ = split(resolved(version, chain))
    return Snapshot(chain[-1].step_index, {key: JSON.load(text) for key, text in texts.items()})
