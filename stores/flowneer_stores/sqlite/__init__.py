"""A store in one SQLite file."""

from flowneer_stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
