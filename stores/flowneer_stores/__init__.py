"""Stores for flowneer-async: where the versions of runs are kept."""

from flowneer_stores.limited import LimitedStore
from flowneer_stores.memory import MemoryStore
from flowneer_stores.read_only import ReadOnlyStore
from flowneer_stores.redacted import RedactedStore
from flowneer_stores.sqlite import SqliteStore

__all__ = ["LimitedStore", "MemoryStore", "ReadOnlyStore", "RedactedStore", "SqliteStore"]
