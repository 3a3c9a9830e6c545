"""PostgreSQL's errors in our own words, translated once, at the border.

Neither the server's messages nor the driver's are shown: they may hold what was to be stored.
"""

from flowneer_async.errors import StoreBusy, StoreError, StoreFailed, StoreFull
from flowneer_stores.postgres.driver import InterfaceError

_LOST = {
    "08",  # no connection, or a broken one
    "57P01",  # the server is shut down, or the connection was ended by its administrator
    "57P02",  # the server has crashed
    "57P03",  # the server starts, or recovers
    "57P05",  # idle for too long
    "53300",  # too many connections
    "25006",  # a standby, which the primary has become
}
_AGAIN = {
    "40001",  # could not be serialised
    "40P01",  # a deadlock
    "23505",  # another statement has stored the same in the same moment: the next one sees it
}
_BUSY = {
    "55P03",  # a lock was not given in time
    "57014",  # the statement took longer than it may
}
_FULL = {
    "53100",  # the disk is full
}


def sqlstate(error: BaseException) -> str:
    """The server's own code of an error; none where it is not the server's."""
    return str(getattr(error, "sqlstate", None) or "")


def is_lost(error: Exception) -> bool:
    """Was the connection lost, or not opened, in a way that may pass?"""
    state = sqlstate(error)
    return isinstance(error, OSError) or state in _LOST or state[:2] in _LOST


def is_passing(error: Exception) -> bool:
    """Has the transaction been undone in favour of another one?"""
    return sqlstate(error) in _AGAIN


def translated(error: Exception, place: str, operation: str, timeout: float) -> StoreError:
    """Our error for what went wrong while `operation` was done in the database at `place`."""
    if isinstance(error, StoreError):
        return error
    state = sqlstate(error)
    if state in _FULL:
        return StoreFull(place)
    if state in _BUSY or isinstance(error, TimeoutError):
        return StoreBusy(place, timeout)
    return StoreFailed(place, operation, _reason(error, state))


def _reason(error: Exception, state: str) -> str:
    name = type(error).__qualname__
    if state:
        return f"{name} (SQLSTATE {state}): the server's log says more"
    return f"{name}: the DSN or an option cannot be used" if isinstance(error, InterfaceError) else name
