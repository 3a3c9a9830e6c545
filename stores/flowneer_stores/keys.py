"""Keys by their ids, and AES-GCM with them.

Each run has keys of its own, made of the one that was given: the limit of AES-GCM, 2^32 encryptions with one key, is
one of a run. A nonce is a keyed hash of all that is encrypted and bound. So it is the same only where all of that is
the same, and no process that was forked, and no machine that was copied, repeats one.
"""

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b

from flowneer_async.errors import BadOption, ExtraMissing, NotEncrypted, UnknownKey
from flowneer_async.versions import OPAQUE

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ModuleNotFoundError:
    raise ExtraMissing("EncryptedStore", "encryption") from None

_FORMAT = OPAQUE  # no body that is stored as it is begins with it
_NONCE = 12
_SIZES = (16, 24, 32)
_RUNS = 1024  # whose keys are at hand
_PURPOSE = b"flowneer run key"


class Keys:
    """What is sealed is a format, a key id with its length, a nonce, and the ciphertext with its tag."""

    def __init__(self, keys: Mapping[str, bytes], current: str | None = None) -> None:
        self._keys = {key_id: bytes(key) for key_id, key in keys.items()}
        if not keys or not all(len(key) in _SIZES for key in self._keys.values()):
            raise BadOption("keys", "…", f"it is a mapping of ids to keys of {_SIZES} bytes, as os.urandom(32) gives")
        if not all(0 < len(key_id.encode()) < 256 for key_id in self._keys):
            raise BadOption("keys", "…", "the id of a key has from 1 to 255 bytes")
        self._current = next(iter(keys)) if current is None else current
        if self._current not in self._keys:
            raise BadOption("current", current, "it is the id of one of the keys")
        self._prefix = _prefix(self._current)
        self._of_run = lru_cache(_RUNS)(self._new_keys)

    def seal(self, run_id: str, secret: bytes, bound: bytes) -> bytes:
        """Encrypt with the current key what only the same `bound` opens."""
        cipher, nonce_key = self._of_run(self._current, run_id)
        bound = self._prefix + bound
        nonce = blake2b(bound + secret, key=nonce_key, digest_size=_NONCE).digest()
        return self._prefix + nonce + cipher.encrypt(nonce, secret, bound)

    def open(self, run_id: str, sealed: bytes, bound: bytes, kind: str, name: str) -> bytes:
        """What was sealed; raises NotEncrypted, UnknownKey, and ValueError where it does not fit."""
        if not sealed.startswith(_FORMAT):
            raise NotEncrypted(kind, name)
        end = 2 + int.from_bytes(sealed[1:2])
        key_id, nonce = sealed[2:end].decode(errors="replace"), sealed[end : end + _NONCE]
        if key_id not in self._keys:
            raise UnknownKey(kind, name, key_id)
        cipher, _ = self._of_run(key_id, run_id)
        try:
            return cipher.decrypt(nonce, sealed[end + _NONCE :], sealed[:end] + bound)
        except (InvalidTag, ValueError):  # a nonce that was cut short is no nonce
            raise ValueError("it was changed or moved, or its key is another one") from None

    def _new_keys(self, key_id: str, run_id: str) -> tuple[AESGCM, bytes]:
        """The keys of a run: one that encrypts, one that makes nonces."""
        made = blake2b(run_id.encode(), key=self._keys[key_id], person=_PURPOSE).digest()
        return AESGCM(made[:32]), made[32:]


def _prefix(key_id: str) -> bytes:
    encoded = key_id.encode()
    return _FORMAT + bytes([len(encoded)]) + encoded
