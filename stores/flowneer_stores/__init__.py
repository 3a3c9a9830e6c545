"""Stores for flowneer-async: where the versions of runs are kept."""

from typing import TYPE_CHECKING

from flowneer_stores.limited import LimitedStore
from flowneer_stores.memory import MemoryStore
from flowneer_stores.read_only import ReadOnlyStore
from flowneer_stores.redacted import RedactedStore
from flowneer_stores.signed import SignedStore
from flowneer_stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from flowneer_stores.encrypted import EncryptedStore
    from flowneer_stores.postgres import PostgresStore

__all__ = [
    "EncryptedStore",
    "LimitedStore",
    "MemoryStore",
    "PostgresStore",
    "ReadOnlyStore",
    "RedactedStore",
    "SignedStore",
    "SqliteStore",
]


def __getattr__(name: str) -> object:
    """What needs an extra is imported when it is asked for."""
    if name == "EncryptedStore":
        from flowneer_stores.encrypted import EncryptedStore

        return EncryptedStore
    if name == "PostgresStore":
        from flowneer_stores.postgres import PostgresStore

        return PostgresStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
