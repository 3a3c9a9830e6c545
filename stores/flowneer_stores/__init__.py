"""Stores for flowneer-async: where the versions of runs are kept."""

from flowneer_stores.memory import MemoryStore
from flowneer_stores.sqlite import SqliteStore

__all__ = ["MemoryStore", "SqliteStore"]
