"""A store that lets no state grow without end, nor a chain: the size of each state is known from what is stored."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from flowneer_async.differ import Patch
from flowneer_async.errors import BadOption, StateTooLarge, TooManyVersions, UnknownVersion
from flowneer_async.store import Lease, VersionStore
from flowneer_async.versions import Run, Status, Version, version_id
from flowneer_stores.wrapper import Wrapper

_LOG = logging.getLogger("flowneer_stores")
# The key of what a body holds that is no patch, as that of an EncryptedStore around this one; no fact has it.
_OPAQUE = "\0"


class _Measured(NamedTuple):
    """The length of each key's JSON after these versions; `following` is the number of the one that comes next."""

    versions: Sequence[Version]
    following: int
    lengths: dict[str, int]
    size: int
    """Of the largest state of them."""


class LimitedStore(Wrapper):
    """Refuses states of more than `most` bytes, and runs of more than `versions` versions, also those since dropped.

    A state's size is that of the JSON of its keys, and of what the engine remembers beside them. The first state of a
    run that has more than `warn` bytes is told to the logger "flowneer_stores"; None is no limit. A run that was
    refused raises StateTooLarge or TooManyVersions, and goes on from its last version where more is allowed. In a row
    of wrappers this is the outermost: of what another one has encrypted it knows only that it is there.
    """

    def __init__(
        self,
        store: VersionStore,
        *,
        warn: int | None = 1_000_000,
        most: int | None = 64_000_000,
        versions: int | None = None,
    ) -> None:
        for name, limit in (("warn", warn), ("most", most), ("versions", versions)):
            if limit is not None and limit < 1:
                raise BadOption(name, limit, "it is a number above 0, or None for no limit")
        super().__init__(store)
        self._warn, self._most, self._versions = warn, most, versions
        # Of each owned run: as it is stored, and as it would be. What is not known is read of the chain.
        self._known: dict[str, _Measured] = {}
        self._next: dict[str, _Measured] = {}
        self._warned: set[str] = set()

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        measured = self._measure(run.run_id, {}, versions, run.first)
        lease = await super().create(run, versions)
        if lease is not None:
            self._know(run.run_id, measured)
        return lease

    async def claim(self, run: Run) -> Lease:
        self._forget(run.run_id)
        return await super().claim(run)

    async def release(self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"") -> None:
        self._forget(lease.run_id)
        if status != "waiting":
            self._warned.discard(lease.run_id)
        await super().release(lease, status, error, seal)

    async def _encoded(self, lease: Lease, versions: Sequence[Version]) -> Sequence[Version]:
        if versions:
            run_id, seq = lease.run_id, versions[0].seq
            # Until these are stored, nothing is known: the lengths are changed, and not copied.
            known = self._known.pop(run_id, None)
            if known is not None and known.following == seq:
                lengths = known.lengths
            else:
                lengths = await self._lengths(run_id, seq - 1)
            self._next[run_id] = self._measure(run_id, lengths, versions, seq)
        return await super()._encoded(lease, versions)

    async def _stored(self, lease: Lease, rows: Sequence[Version]) -> None:
        measured = self._next.pop(lease.run_id, None)
        if measured is not None and measured.versions is rows:
            self._know(lease.run_id, measured)
        await super()._stored(lease, rows)

    def _know(self, run_id: str, measured: _Measured) -> None:
        self._known[run_id] = measured._replace(versions=())
        if self._warn is not None and measured.size > self._warn and run_id not in self._warned:
            self._warned.add(run_id)
            _LOG.warning("the state of run %r has %d bytes, more than %d", run_id, measured.size, self._warn)

    def _forget(self, run_id: str) -> None:
        self._known.pop(run_id, None)
        self._next.pop(run_id, None)

    async def _lengths(self, run_id: str, seq: int) -> dict[str, int]:
        """The length of each key's JSON at a version that is stored."""
        lengths: dict[str, int] = {}
        try:
            chain = await self._store.chain(version_id(run_id, seq)) if seq >= 0 else ()
        except UnknownVersion:
            chain = ()  # what does not follow the head is refused by the store itself
        for version in chain:
            _measure(version, lengths)
        return lengths

    def _measure(self, run_id: str, lengths: dict[str, int], versions: Sequence[Version], seq: int) -> _Measured:
        """Take versions into account; raises where one of them is not allowed."""
        largest = 0
        for version in versions:
            if self._versions is not None and version.seq >= self._versions:
                raise TooManyVersions(run_id, self._versions)
            size = _measure(version, lengths)
            if self._most is not None and size > self._most:
                raise StateTooLarge(run_id, size, self._most)
            largest = max(size, largest)
        return _Measured(versions, seq + len(versions), lengths, largest)


def _measure(version: Version, lengths: dict[str, int]) -> int:
    """Take a version into account: the size of the state after it."""
    if version.is_keyframe:
        lengths.clear()
    try:
        if version.body:
            Patch.measure(version.body, lengths)
        return sum(lengths.values())
    except (ValueError, TypeError, AttributeError):
        opaque = lengths.get(_OPAQUE, 0) + len(version.body)
        lengths.clear()
        lengths[_OPAQUE] = opaque
        return opaque
