"""A store that lets no state grow without end, nor a chain: the size of each state is known from what is stored."""

import logging
from collections.abc import Sequence

from flowneer_async.differ import Patch
from flowneer_async.errors import BadOption, StateTooLarge, TooManyVersions, UnknownVersion
from flowneer_async.store import Lease, VersionStore
from flowneer_async.versions import Run, Status, Version, version_id
from flowneer_stores.wrapper import Wrapper

_LOG = logging.getLogger("flowneer_stores")
# The key of what a body holds that is no patch, as that of an EncryptedStore around this one; no fact has it.
_OPAQUE = "\0"


class _Size:
    """What is known of the state of an owned run, or will be as soon as versions are stored that may never be."""

    __slots__ = ("following", "largest", "lengths", "unsure")

    def __init__(self, following: int) -> None:
        self.following = following
        """The number of the version that comes next."""
        self.lengths: dict[str, int] = {}
        """The length of each key's JSON."""
        self.largest = 0
        """The size of the largest state of the versions that came last."""
        self.unsure: Sequence[Version] = ()
        """Those of which it is not known whether they are stored."""

    def take(self, version: Version) -> int:
        """Take the next version into account, and give the size of its state."""
        lengths = self.lengths
        if version.base == version.seq:
            lengths.clear()
        try:
            if version.body:
                Patch.measure(version.body, lengths)
            return sum(lengths.values())
        except (ValueError, TypeError, AttributeError):
            opaque = lengths.get(_OPAQUE, 0) + len(version.body)
            self.lengths = {_OPAQUE: opaque}
            return opaque


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
        self._sizes: dict[str, _Size] = {}
        self._warned: set[str] = set()

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        size = _Size(run.first)
        self._grow(run.run_id, size, versions)
        lease = await super().create(run, versions)
        if lease is not None:
            if run.status != "waiting":
                self._sizes[run.run_id] = size
            self._settle(run.run_id, size)
        return lease

    async def claim(self, run: Run) -> Lease:
        self._sizes.pop(run.run_id, None)
        return await super().claim(run)

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        self._sizes.pop(lease.run_id, None)
        if status != "waiting":
            self._warned.discard(lease.run_id)
        await super().release(lease, status, error, seal, wake)

    async def _encoded(self, lease: Lease, versions: Sequence[Version]) -> Sequence[Version]:
        if versions:
            size = self._sizes.get(lease.run_id)
            if size is None or size.unsure or size.following != versions[0].seq:
                size = self._sizes[lease.run_id] = await self._read(lease.run_id, versions[0].seq)
            self._grow(lease.run_id, size, versions)
        return versions

    async def _stored(self, lease: Lease, rows: Sequence[Version]) -> None:
        size = self._sizes.get(lease.run_id)
        if size is not None and size.unsure is rows:
            self._settle(lease.run_id, size)

    async def _read(self, run_id: str, following: int) -> _Size:
        """The size of the state before a version, as it is stored."""
        size = _Size(following)
        try:
            chain = await self._store.chain(version_id(run_id, following - 1)) if following else ()
        except UnknownVersion:
            chain = ()  # what does not follow the head is refused by the store itself
        for version in chain:
            size.take(version)
        return size

    def _grow(self, run_id: str, size: _Size, versions: Sequence[Version]) -> None:
        """Take versions into account; raises where one of them is not allowed."""
        size.unsure, size.largest = versions, 0
        for version in versions:
            if self._versions is not None and version.seq >= self._versions:
                raise TooManyVersions(run_id, self._versions)
            now = size.take(version)
            if self._most is not None and now > self._most:
                raise StateTooLarge(run_id, now, self._most)
            if now > size.largest:
                size.largest = now

    def _settle(self, run_id: str, size: _Size) -> None:
        """What was taken into account last is stored."""
        size.following += len(size.unsure)
        size.unsure = ()
        if self._warn is not None and size.largest > self._warn and run_id not in self._warned:
            self._warned.add(run_id)
            _LOG.warning("the state of run %r has %d bytes, more than %d", run_id, size.largest, self._warn)
