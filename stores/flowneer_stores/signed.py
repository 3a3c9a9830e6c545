"""A store in which nobody without the key can change, unnoticed, what a run has done and how it stands."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from inspect import isawaitable
from typing import TypeAlias

from flowneer_async.errors import Forged, RunBusy, UnknownRun, UnknownVersion
from flowneer_async.shield import complete
from flowneer_async.store import Due, Lease, Page, RunFilter, VersionStore
from flowneer_async.versions import Run, Signal, Status, Version, parse_version_id
from flowneer_stores.readable import readable
from flowneer_stores.signing import SIZE, SealedHead, Signer, head_of, name_of
from flowneer_stores.wrapper import Wrapper

OnHead: TypeAlias = Callable[[str, bytes], Awaitable[None] | None]
"""Told the id of each new head of a run, and its signature, after it was stored."""


@dataclass
class _Owned:
    """A run as it was sealed when it was taken, and the last head that is known of it."""

    run: Run
    head: SealedHead
    is_known: bool = True
    """Is that the last one?"""
    is_sure: bool = True
    """Did no append fail, whose versions might be stored nevertheless?"""


class SignedStore(Wrapper):
    """Another store, in which every version, signal and run is signed with `key`, of 16 to 64 bytes.

    What was not signed with it, or was changed, moved or cut off since, raises Forged when it is read. `on_head`, sync
    or async, is told of each head: whoever keeps it outside can `check_head` later, and so find what no key can find, a
    run that was put back as a whole to what it once was. What it raises, the append raises. Raises BadOption.
    """

    def __init__(self, store: VersionStore, key: bytes, *, on_head: OnHead | None = None) -> None:
        super().__init__(store)
        self._signer, self._on_head = Signer(key), on_head
        self._owned: dict[Lease, _Owned] = {}

    async def check_head(self, version: str, signature: bytes) -> None:
        """Is this version, of which `on_head` was told, still one of its run? Raises Forged.

        One that was pruned cannot be told from one that was cut off by somebody: that is UnknownVersion.
        """
        run_id, seq = parse_version_id(version)
        run = await self.read(run_id)
        if run.head < seq:
            raise Forged("run", run_id, f"it had version {version!r}, and its last one is number {run.head}")
        if not await self._has(run, SealedHead(seq, signature=signature)):
            raise UnknownVersion(version)

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        rows = [self._signer.sign_version(version) for version in versions]
        head = head_of(rows[-1]) if rows else SealedHead()
        lease = await super().create(replace(run, seal=self._signer.seal(run, head)), rows)
        if lease is not None:
            if run.status != "waiting":
                self._owned[lease] = _Owned(run, head)
            await self._tell_first(lease, run.status, rows)
        return lease

    async def claim(self, run: Run) -> Lease:
        stored = await self.read(run.run_id)
        head = await self._head(stored)
        claimed = replace(stored, steps=run.steps, seal=run.seal, status="running", error=None)
        lease = await super().claim(replace(run, seal=self._signer.seal(claimed, head)))
        # Whoever owned it before may have stored more until this moment.
        self._owned[lease] = _Owned(claimed, head, is_known=False)
        return lease

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        with suppress(UnknownRun):  # there is nothing to give back of a run that was purged
            owned = self._owned.get(lease) or await self._learned(lease)
            if owned is not None:
                ended = replace(owned.run, status=status, error=error, seal=seal)
                await super().release(lease, status, error, await self._end(owned, ended), wake)
        self._owned.pop(lease, None)

    async def read(self, run_id: str) -> Run:
        run, head = self._signer.check_run(await super().read(run_id))
        await self._has(run, head)
        return run

    async def chain(self, version: str) -> Sequence[Version]:
        return [self._signer.check_version(row) for row in await super().chain(version)]

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        return [self._signer.check_version(row) for row in await super().versions(run_id, first, last)]

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        signed = self._signer.sign_payload(run_id, name, payload)
        return replace(await super().send(run_id, name, signed, sent), payload=payload)

    async def signals(self, run_id: str) -> Sequence[Signal]:
        seen = set[bytes]()
        signals: list[Signal] = []
        for signal in await super().signals(run_id):
            if signal.payload in seen:
                raise Forged("signal", name_of(signal), "it is a copy of another one")
            seen.add(signal.payload)
            signals.append(self._signer.check_signal(signal))
        return signals

    async def due(self, wanted: Due, limit: int) -> Sequence[Run]:
        return await readable(partial(super().due, wanted), lambda run: self._signer.check_run(run)[0], limit)

    async def find(self, runs: RunFilter, limit: int, after: str | None = None) -> Page:
        page = await super().find(runs, limit, after)
        return Page(tuple(self._signer.check_run(run, page.next)[0] for run in page.runs), page.next)

    async def _encoded(self, lease: Lease, versions: Sequence[Version]) -> Sequence[Version]:
        owned = self._owned.get(lease)
        if owned is not None and versions:
            owned.is_known = owned.is_sure = False  # until the append is done
        return [self._signer.sign_version(version) for version in versions]

    async def _stored(self, lease: Lease, rows: Sequence[Version]) -> None:
        owned = self._owned.get(lease)
        if owned is not None and rows:
            owned.head, owned.is_known, owned.is_sure = head_of(rows[-1]), True, True
        await self._tell(rows)

    async def _tell(self, rows: Sequence[Version]) -> None:
        if self._on_head is None or not rows:
            return
        told = self._on_head(rows[-1].id, head_of(rows[-1]).signature)
        if isawaitable(told):
            await complete(_awaited(told))

    async def _tell_first(self, lease: Lease, status: Status, rows: Sequence[Version]) -> None:
        """Of a run that was created: whoever asked for it does not own it, if this fails or is cancelled."""
        try:
            await self._tell(rows)
        except BaseException:
            await complete(self.release(lease, status))
            raise

    async def _learned(self, lease: Lease) -> _Owned | None:
        """A run that another store object took, if its lease is still good."""
        run = await self.read(lease.run_id)
        return _Owned(run, SealedHead(), False, False) if run.epoch == lease.epoch else None

    async def _end(self, owned: _Owned, ended: Run) -> bytes:
        """The seal of a run that is given back."""
        head = owned.head if owned.is_known else await self._head(await super().read(ended.run_id))
        if head.seq < owned.head.seq:
            raise Forged("run", ended.run_id, f"it had version number {owned.head.seq}, and has {head.seq}")
        return self._signer.seal(ended, head._replace(is_last=owned.is_sure))

    async def _head(self, run: Run) -> SealedHead:
        """The last version of a run as it is stored."""
        if run.head < 0:
            return SealedHead()
        rows = await super().versions(run.run_id, run.head, run.head)
        if not rows:  # more was stored meanwhile, and this one pruned
            raise RunBusy(run.run_id, run.owner)
        self._signer.check_version(rows[0])
        return head_of(rows[0])

    async def _has(self, run: Run, head: SealedHead) -> bool:
        """Has the run this version? False where it was pruned; raises Forged where it has another in its place."""
        if head.seq < run.first:
            return False
        rows = await super().versions(run.run_id, head.seq, head.seq)
        if rows and rows[0].digest[-SIZE:] == head.signature:
            return True
        if not rows and (await super().read(run.run_id)).first > head.seq:
            return False  # pruned just now
        raise Forged("run", run.run_id, f"its version number {head.seq} is not the one that it had")


async def _awaited(told: Awaitable[None]) -> None:
    await told
