"""SQLite's errors in our own words, translated once, at the border."""

import sqlite3

from flowneer_async.errors import NotADatabase, StoreBusy, StoreError, StoreFailed, StoreFull


def translated(error: sqlite3.Error, place: str, operation: str, timeout: float) -> StoreError:
    """Our error for what SQLite said while `operation` was done on the file at `place`."""
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return StoreFull(place)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreBusy(place, timeout)
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return NotADatabase(place)
    return StoreFailed(place, operation, str(error))
