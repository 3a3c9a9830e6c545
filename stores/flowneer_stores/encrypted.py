"""A store that holds ciphertext: what is in states and signals is read with a key."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from flowneer_async.errors import BrokenChain, CorruptSignal, CorruptVersion, Fenced, VersionConflict
from flowneer_async.store import Lease, VersionStore
from flowneer_async.versions import Run, Signal, Status, Version, digest_of, version_id
from flowneer_stores.bound import bound_signal, bound_version
from flowneer_stores.keys import Keys
from flowneer_stores.wrapper import Wrapper

_NONCE = 16


class EncryptedStore(Wrapper):
    """Another store, in which the bodies of versions and the payloads of signals are encrypted by AES-GCM.

    `keys` are 16, 24 or 32 bytes each, by ids; what is new is encrypted with `current`, the first one unless said, and
    what is old is read with the key of its id. The digests of a version are encrypted too, for a small change could be
    guessed from them: what is stored has a chain of its own, over the ciphertext. Raises BadOption.
    """

    def __init__(self, store: VersionStore, keys: Mapping[str, bytes], *, current: str | None = None) -> None:
        super().__init__(store)
        self._keys = Keys(keys, current)
        # Of owned runs the number and the digest of the last version that is known to be stored.
        self._heads: dict[Lease, tuple[int, bytes]] = {}

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        rows = self._encrypted(versions, b"")
        lease = await super().create(run, rows)
        if lease is not None and run.status != "waiting":
            await self._stored(lease, rows)
        return lease

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        self._heads.pop(lease, None)
        await super().release(lease, status, error, seal, wake)

    async def chain(self, version: str) -> Sequence[Version]:
        return self._decrypted(await super().chain(version))

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        rows = await super().versions(run_id, first - 1 if first > 0 else 0, last)
        if rows and rows[0].seq < first:
            return self._decrypted(rows[1:], rows[0])
        return self._decrypted(rows)

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        # Signals that say the same are different ones: a copy is known by that.
        sealed = self._keys.seal(run_id, os.urandom(_NONCE) + payload, bound_signal(run_id, name))
        return replace(await super().send(run_id, name, sealed, sent), payload=payload)

    async def signals(self, run_id: str) -> Sequence[Signal]:
        sealed = set[bytes]()
        signals: list[Signal] = []
        for signal in await super().signals(run_id):
            if signal.payload in sealed:
                raise CorruptSignal(run_id, signal.number, "it is a copy of another one")
            sealed.add(signal.payload)
            signals.append(self._read_signal(signal))
        return signals

    async def _encoded(self, lease: Lease, versions: Sequence[Version]) -> Sequence[Version]:
        if not versions:
            return versions
        # After an append that failed or was cancelled, whose rows may be stored or not, this is no more the last one.
        seq, digest = self._heads.get(lease, (-1, b""))
        if versions[0].seq != seq + 1:
            digest = await self._stored_digest(lease, versions[0].seq - 1)
        return self._encrypted(versions, digest)

    async def _stored(self, lease: Lease, rows: Sequence[Version]) -> None:
        if rows:
            self._heads[lease] = rows[-1].seq, rows[-1].digest

    async def _stored_digest(self, lease: Lease, seq: int) -> bytes:
        """The digest of version number `seq` as it is stored, on which the next one builds."""
        if seq < 0:
            return b""
        rows = await super().versions(lease.run_id, seq, seq)
        if rows:
            return rows[0].digest
        run = await self.read(lease.run_id)
        if run.epoch != lease.epoch:
            raise Fenced(lease.run_id)
        head = None if run.head < 0 else version_id(run.run_id, run.head)
        raise VersionConflict(version_id(lease.run_id, seq + 1), head)

    def _encrypted(self, versions: Iterable[Version], parent: bytes) -> list[Version]:
        rows: list[Version] = []
        for version in versions:
            row = self._encrypt(version, parent)
            rows.append(row)
            parent = row.digest
        return rows

    def _encrypt(self, version: Version, parent: bytes) -> Version:
        parent_digest, digest = version.parent_digest, version.digest
        secret = bytes((len(parent_digest), len(digest))) + parent_digest + digest + version.body
        sealed = self._keys.seal(version.run_id, secret, bound_version(version, parent))
        return _row(version, sealed, parent)

    def _decrypted(self, rows: Iterable[Version], before: Version | None = None) -> list[Version]:
        """The versions in these rows, which follow row `before` or begin with a keyframe."""
        versions: list[Version] = []
        for row in rows:
            versions.append(self._decrypt(row, _parent_of(row, before)))
            before = row
        return versions

    def _decrypt(self, row: Version, parent: bytes) -> Version:
        if row != _row(row, row.body, parent):
            raise CorruptVersion(row.id, "its digest is not that of what is stored")
        try:
            secret = self._keys.open(row.run_id, row.body, bound_version(row, parent), "version", row.id)
        except ValueError as error:
            raise CorruptVersion(row.id, str(error)) from error
        begin, end = 2 + secret[0], 2 + secret[0] + secret[1]
        return row._replace(body=secret[end:], parent_digest=secret[2:begin], digest=secret[begin:end])

    def _read_signal(self, signal: Signal) -> Signal:
        run_id, name = signal.run_id, f"{signal.number} of {signal.run_id}"
        try:
            secret = self._keys.open(run_id, signal.payload, bound_signal(run_id, signal.name), "signal", name)
        except ValueError as error:
            raise CorruptSignal(run_id, signal.number, str(error)) from error
        return replace(signal, payload=secret[_NONCE:])


def _row(version: Version, sealed: bytes, parent: bytes) -> Version:
    """A version as it is stored: with this body, and its digests those of the chain of what is stored."""
    place = version[:7]
    return Version(*place, sealed, parent if version.is_keyframe else b"", digest_of(parent, *place, sealed))


def _parent_of(row: Version, before: Version | None) -> bytes:
    """The digest that a row was stored on; raises BrokenChain."""
    if before is None and row.is_keyframe:
        return row.parent_digest
    if before is not None and before.seq + 1 == row.seq:
        return before.digest
    raise BrokenChain(row.id, version_id(row.run_id, row.seq - 1 if before is None else before.seq + 1))
