"""Signatures of versions, signals and runs: BLAKE2b with a key, so whoever can check them can make them."""

import os
from dataclasses import replace
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Final, NamedTuple

from flowneer_async.errors import BadOption, Forged
from flowneer_async.versions import Run, Signal, Version
from flowneer_stores.bound import bound_run, bound_signal, bound_version

SIZE: Final = 16
"""The bytes of a signature."""

_SHORTEST, _LONGEST = 16, 64  # bytes of a key
_NONCE = 16  # makes each signal differ from every other
_HEAD = Struct(f">q?{SIZE}s")
_SEAL = _HEAD.size + SIZE


class SealedHead(NamedTuple):
    """The head that a run had when it was sealed, and its signature; with `is_last` nothing was to come after it."""

    seq: int = -1
    is_last: bool = False
    signature: bytes = b""


def head_of(row: Version) -> SealedHead:
    """A signed version as the head of its run."""
    return SealedHead(row.seq, signature=row.digest[-SIZE:])


class Signer:
    """Signs with one key what a store is given, and checks and takes off the signature of what it gives."""

    def __init__(self, key: bytes) -> None:
        if not _SHORTEST <= len(key) <= _LONGEST:
            raise BadOption("key", "…", f"it has from {_SHORTEST} to {_LONGEST} bytes, as os.urandom(32) gives")
        self._key = bytes(key)

    def sign_version(self, version: Version) -> Version:
        """The version with its signature behind its digest."""
        return version._replace(digest=version.digest + self._of_version(version))

    def check_version(self, row: Version) -> Version:
        """The version that was signed; raises Forged."""
        version = row._replace(digest=row.digest[:-SIZE])
        if compare_digest(self._of_version(version), row.digest[-SIZE:]):
            return version
        raise Forged("version", row.id, "its signature is not that of its content")

    def sign_payload(self, run_id: str, name: str, payload: bytes) -> bytes:
        """The payload of a signal, behind a number used once and a signature."""
        nonce = os.urandom(_NONCE)
        return nonce + self._of_payload(run_id, name, nonce + payload) + payload

    def check_signal(self, signal: Signal) -> Signal:
        """The signal that was signed; raises Forged."""
        nonce, signature = signal.payload[:_NONCE], signal.payload[_NONCE : _NONCE + SIZE]
        payload = signal.payload[_NONCE + SIZE :]
        if compare_digest(self._of_payload(signal.run_id, signal.name, nonce + payload), signature):
            return replace(signal, payload=payload)
        raise Forged("signal", name_of(signal), "its signature is not that of its content")

    def seal(self, run: Run, head: SealedHead) -> bytes:
        """What is kept of a run with it: this head, a signature of both and of the seal that it has, and that seal."""
        packed = _HEAD.pack(*head)
        return packed + self._of_run(run, packed, run.seal) + run.seal

    def check_run(self, run: Run, after: str | None = None) -> tuple[Run, SealedHead]:
        """The run that was sealed, and its head then, which it has not lost; raises Forged."""
        packed, signature, rest = run.seal[: _HEAD.size], run.seal[_HEAD.size : _SEAL], run.seal[_SEAL:]
        if not compare_digest(self._of_run(run, packed, rest), signature):
            raise Forged("run", run.run_id, "its signature is not that of what is said of it", after)
        head = SealedHead(*_HEAD.unpack(packed))
        if run.head < head.seq or (head.is_last and run.head > head.seq):
            reason = f"its last version was number {head.seq}, and is number {run.head}"
            raise Forged("run", run.run_id, reason, after)
        return replace(run, seal=rest), head

    def _of_version(self, version: Version) -> bytes:
        content = bound_version(version, version.parent_digest, version.digest) + version.body
        return self._signature(b"flowneer version", content)

    def _of_payload(self, run_id: str, name: str, content: bytes) -> bytes:
        return self._signature(b"flowneer signal", bound_signal(run_id, name) + content)

    def _of_run(self, run: Run, head: bytes, rest: bytes) -> bytes:
        return self._signature(b"flowneer run", head + bound_run(run) + rest)

    def _signature(self, use: bytes, content: bytes) -> bytes:
        return blake2b(content, key=self._key, person=use, digest_size=SIZE).digest()


def name_of(signal: Signal) -> str:
    """What a signal is called in errors."""
    return f"{signal.number} of {signal.run_id}"
