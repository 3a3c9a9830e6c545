"""A store in the memory of this process: the model of what the others do, and all that a test needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import anyio.lowlevel

from flowneer_async.errors import Fenced, RunBusy, UnknownRun, UnknownVersion, VersionConflict
from flowneer_async.policy import unix_ms
from flowneer_async.store import Lease, Plain, check_first, check_row, resolve
from flowneer_async.versions import Run, Signal, Snapshot, Status, Version, parse_version_id, version_id


@dataclass(slots=True)
class _Kept:
    run: Run
    versions: list[Version] = field(default_factory=list[Version])
    signals: list[Signal] = field(default_factory=list[Signal])


class MemoryStore:
    """Keeps runs, versions and signals until the process ends; they are immutable: nothing is shared by mistake."""

    def __init__(self, *, now: Callable[[], int] = unix_ms) -> None:
        self._now = now
        self._kept: dict[str, _Kept] = {}

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        await anyio.lowlevel.checkpoint()
        check_first(run, versions)
        if run.run_id in self._kept:
            return None
        self._kept[run.run_id] = _Kept(replace(run, epoch=1, owner="this process"), list(versions))
        return Lease(run.run_id, 1)

    async def claim(self, run: Run) -> Lease:
        await anyio.lowlevel.checkpoint()
        kept = self._of(run.run_id)
        if kept.run.owner is not None or kept.run.epoch != run.epoch:
            raise RunBusy(run.run_id, kept.run.owner)
        owned = replace(kept.run, steps=run.steps, status="running", error=None)
        kept.run = replace(owned, epoch=run.epoch + 1, owner="this process", updated=self._now())
        return Lease(run.run_id, run.epoch + 1)

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        await anyio.lowlevel.checkpoint()
        kept = self._of(lease.run_id)
        if kept.run.epoch != lease.epoch:
            raise Fenced(lease.run_id)
        check_row(lease, versions)
        head = len(kept.versions) - 1
        if versions and versions[0].seq != head + 1:
            raise VersionConflict(versions[0].id, None if head < 0 else version_id(lease.run_id, head))
        kept.versions.extend(versions)

    async def release(self, lease: Lease, status: Status, error: str | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        kept = self._of(lease.run_id)
        if kept.run.epoch == lease.epoch:
            ended = replace(kept.run, status=status, error=error, owner=None)
            kept.run = replace(ended, epoch=lease.epoch + 1, updated=self._now())

    async def read(self, run_id: str) -> Run:
        await anyio.lowlevel.checkpoint()
        kept = self._of(run_id)
        return replace(kept.run, head=len(kept.versions) - 1)

    async def chain(self, version: str) -> Sequence[Version]:
        await anyio.lowlevel.checkpoint()
        run_id, seq = parse_version_id(version)
        kept = self._kept.get(run_id)
        if kept is None or seq >= len(kept.versions):
            raise UnknownVersion(version)
        return kept.versions[kept.versions[seq].base : seq + 1]

    async def versions(self, run_id: str) -> Sequence[Version]:
        await anyio.lowlevel.checkpoint()
        return tuple(self._of(run_id).versions)

    async def send(self, run_id: str, name: str, payload: bytes) -> Signal:
        await anyio.lowlevel.checkpoint()
        signals = self._of(run_id).signals
        signal = Signal(run_id, len(signals) + 1, name, payload, self._now())
        signals.append(signal)
        return signal

    async def signals(self, run_id: str) -> Sequence[Signal]:
        await anyio.lowlevel.checkpoint()
        return tuple(self._of(run_id).signals)

    async def resolve(self, version: str) -> Snapshot[Plain]:
        """The state that a version stood for, as a plain dict."""
        return await resolve(self, version)

    def _of(self, run_id: str) -> _Kept:
        try:
            return self._kept[run_id]
        except KeyError:
            raise UnknownRun(run_id) from None
