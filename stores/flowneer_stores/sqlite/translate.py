"""SQLite's errors in our own words, translated once, at the border."""

import sqlite3

from flowneer_async.errors import NotADatabase, StoreBusy, StoreError, StoreFailed, StoreFull


def is_busy(error: Exception) -> bool:
    """Does another program keep the file locked?"""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def translated(error: Exception, place: str, operation: str, timeout: float) -> StoreError:
    """Our error for what went wrong while `operation` was done on the file at `place`."""
    name = getattr(error, "sqlite_errorname", "")
    if isinstance(error, UnicodeDecodeError):  # a text of the file that is none
        return NotADatabase(place)
    if name == "SQLITE_FULL":
        return StoreFull(place)
    if is_busy(error):
        return StoreBusy(place, timeout)
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return NotADatabase(place)
    # Only SQLite's own messages are sure to hold no value of a state.
    reason = str(error) if isinstance(error, sqlite3.Error) else type(error).__qualname__
    return StoreFailed(place, operation, reason)
