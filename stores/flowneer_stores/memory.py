"""A store in the memory of this process: the model of what the others do, and all that a test needs."""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio
import anyio.lowlevel

from flowneer_async.errors import Fenced, RunBusy, UnknownRun, UnknownVersion, VersionConflict
from flowneer_async.policy import unix_ms
from flowneer_async.store import Due, Lease, Page, RunFilter, check_first, check_row
from flowneer_async.versions import OPEN, Run, Signal, Status, Version, parse_version_id, version_id
from flowneer_stores.methods import Methods, row_of

_OWNER = "this process"


@dataclass(slots=True)
class _Kept:
    row: int
    """The number of its row: each run that is stored has a higher one than all before."""
    run: Run
    versions: list[Version] = field(default_factory=list[Version])
    signals: list[Signal] = field(default_factory=list[Signal])
    changed: anyio.Event = field(default_factory=anyio.Event)

    def change(self) -> None:
        """Wake up all who watch the run."""
        self.changed.set()
        self.changed = anyio.Event()


class MemoryStore(Methods):
    """Keeps runs, versions and signals until the process ends; they are immutable: nothing is shared by mistake."""

    def __init__(self, *, now: Callable[[], int] = unix_ms) -> None:
        self._now = now
        self._kept: dict[str, _Kept] = {}
        self._rows = self._epoch = 0

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        await anyio.lowlevel.checkpoint()
        check_first(run, versions)
        if run.run_id in self._kept:
            return None
        self._rows += 1
        # Above the epochs of all runs that were purged: one of them may have had this id.
        lease = Lease(run.run_id, self._epoch + 1)
        owner = None if run.status == "waiting" else _OWNER
        stored = replace(run, tags=dict(run.tags), epoch=lease.epoch, owner=owner, recoveries=0, cancelling=False)
        self._kept[run.run_id] = _Kept(self._rows, stored, list(versions))
        # Of one that is nobody's, an epoch that it never had.
        return Lease(run.run_id, lease.epoch - 1) if owner is None else lease

    async def claim(self, run: Run) -> Lease:
        await anyio.lowlevel.checkpoint()
        kept = self._of(run.run_id)
        if kept.run.owner is not None or kept.run.epoch != run.epoch:
            raise RunBusy(run.run_id, kept.run.owner)
        begun = run.begun if kept.run.begun is None else kept.run.begun
        owned = replace(kept.run, steps=run.steps, seal=run.seal, status="running", error=None, begun=begun)
        # In this process no owner ever dies, so none is recovered.
        is_new = kept.run.cancelling and not run.cancelling
        woken = replace(owned, wake=kept.run.wake if is_new else None, cancelling=is_new, recoveries=0)
        kept.run = replace(woken, epoch=run.epoch + 1, owner=_OWNER, updated=self._now())
        kept.change()
        return Lease(run.run_id, run.epoch + 1)

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        await anyio.lowlevel.checkpoint()
        kept = self._of(lease.run_id)
        if kept.run.epoch != lease.epoch:
            raise Fenced(lease.run_id)
        check_row(lease, versions)
        head = _head(kept)
        if versions and versions[0].seq != head + 1:
            raise VersionConflict(versions[0].id, None if head < 0 else version_id(lease.run_id, head))
        kept.versions.extend(versions)
        kept.change()

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        await anyio.lowlevel.checkpoint()
        kept = self._kept.get(lease.run_id)
        if kept is not None and kept.run.epoch == lease.epoch:
            ended = replace(kept.run, status=status, error=error, seal=seal, owner=None)
            if status == "waiting":
                ended = replace(ended, wake=wake if kept.run.wake is None else kept.run.wake)
            elif status != "running":
                ended = replace(ended, wake=None, cancelling=False)
            kept.run = replace(ended, epoch=lease.epoch + 1, updated=self._now())
            kept.change()

    async def read(self, run_id: str) -> Run:
        await anyio.lowlevel.checkpoint()
        return _read(self._of(run_id))

    async def chain(self, version: str) -> Sequence[Version]:
        await anyio.lowlevel.checkpoint()
        run_id, seq = parse_version_id(version)
        kept = self._kept.get(run_id)
        if kept is None or not kept.run.first <= seq <= _head(kept):
            raise UnknownVersion(version)
        first = kept.run.first
        return kept.versions[kept.versions[seq - first].base - first : seq - first + 1]

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        await anyio.lowlevel.checkpoint()
        kept = self._of(run_id)
        end = _head(kept) if last is None else last
        return kept.versions[max(0, first - kept.run.first) : max(0, end + 1 - kept.run.first)]

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        await anyio.lowlevel.checkpoint()
        kept = self._of(run_id)
        signal = Signal(run_id, len(kept.signals) + 1, name, payload, self._now() if sent is None else sent)
        kept.signals.append(signal)
        if kept.run.status == "waiting" and kept.run.begun is None:
            kept.change()  # it is not to begin before its time
        else:
            self._wake(kept)
        return signal

    async def signals(self, run_id: str) -> Sequence[Signal]:
        await anyio.lowlevel.checkpoint()
        return tuple(self._of(run_id).signals)

    async def ask_cancel(self, run_id: str) -> bool:
        await anyio.lowlevel.checkpoint()
        kept = self._of(run_id)
        if kept.run.status not in OPEN:
            return False
        kept.run = replace(kept.run, cancelling=True)
        self._wake(kept)
        return True

    async def due(self, wanted: Due, limit: int) -> Sequence[Run]:
        await anyio.lowlevel.checkpoint()
        now = self._now()
        found = [kept for kept in self._kept.values() if _is_due(kept.run, wanted, now)]
        found.sort(key=lambda kept: (-kept.run.priority, _since(kept.run), kept.row))
        return [_read(kept) for kept in found[:limit]]

    async def find(self, runs: RunFilter, limit: int, after: str | None = None) -> Page:
        await anyio.lowlevel.checkpoint()
        before = self._rows + 1 if after is None else row_of(after)
        found = [kept for kept in reversed(self._kept.values()) if kept.row < before and _fits(kept.run, runs)]
        page = found[:limit]
        return Page(tuple(_read(kept) for kept in page), str(page[-1].row) if len(found) > limit else None)

    async def count(self, runs: RunFilter) -> Mapping[Status, int]:
        await anyio.lowlevel.checkpoint()
        return dict(Counter(kept.run.status for kept in self._kept.values() if _fits(kept.run, runs)))

    async def drop(self, run_id: str, keep: int, since: int | None = None) -> int:
        await anyio.lowlevel.checkpoint()
        kept = self._of(run_id)
        wanted = [each for each in kept.versions if since is not None and each.timestamp >= since]
        bases = [version.base for version in (*kept.versions[-max(1, keep) :], *wanted)]
        first = min(bases, default=kept.run.first)
        dropped = first - kept.run.first
        del kept.versions[:dropped]
        kept.run = replace(kept.run, first=first)
        kept.change()
        return dropped

    async def purge(self, run_id: str) -> None:
        await anyio.lowlevel.checkpoint()
        kept = self._of(run_id)
        if kept.run.owner is not None:
            raise RunBusy(run_id, kept.run.owner)
        del self._kept[run_id]
        self._epoch = max(self._epoch, kept.run.epoch)
        kept.change()

    @asynccontextmanager
    async def changes(self, run_id: str) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
        await anyio.lowlevel.checkpoint()
        kept = self._of(run_id)
        seen = kept.changed

        async def changed() -> None:
            nonlocal seen
            await seen.wait()
            seen = self._kept.get(run_id, kept).changed

        yield changed

    def _wake(self, kept: _Kept) -> None:
        if kept.run.status in OPEN:
            kept.run = replace(kept.run, wake=self._now())
        kept.change()

    def _of(self, run_id: str) -> _Kept:
        try:
            return self._kept[run_id]
        except KeyError:
            raise UnknownRun(run_id) from None


def _head(kept: _Kept) -> int:
    return kept.run.first + len(kept.versions) - 1


def _read(kept: _Kept) -> Run:
    return replace(kept.run, head=_head(kept), tags=dict(kept.run.tags))


def _fits(run: Run, wanted: RunFilter) -> bool:
    return (
        run.status in wanted.status
        and wanted.flow in (None, run.flow)
        and wanted.tags.items() <= run.tags.items()
        and wanted.owned in (None, run.owner is not None)
        and _within(run.created, wanted.created_after, wanted.created_before)
        and _within(run.updated, wanted.updated_after, wanted.updated_before)
        and (wanted.begun_after is None or (run.begun is not None and run.begun >= wanted.begun_after))
        and wanted.key in (None, run.key)
        and wanted.cancelling in (None, run.cancelling)
    )


def _is_due(run: Run, wanted: Due, now: int) -> bool:
    if run.flow not in wanted.flows or run.key in wanted.busy:
        return False
    if run.status == "running":
        return run.owner is None
    return run.status == "waiting" and run.wake is not None and run.wake <= now


def _since(run: Run) -> int:
    return 0 if run.status == "running" or run.wake is None else run.wake


def _within(time: int, after: int | None, before: int | None) -> bool:
    return (after is None or time >= after) and (before is None or time < before)
