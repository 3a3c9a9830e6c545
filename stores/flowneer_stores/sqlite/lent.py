"""A connection that is lent to a step: for its own statements, but not to begin or end a transaction."""

import sqlite3
from typing import Any, cast
from weakref import WeakSet

_SETTINGS = ("PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON", "PRAGMA wal_autocheckpoint = 500")
_REFUSED = "this transaction ends with its step: leave that to the run, or raise to roll it back"
_SCRIPT = "executescript would commit first: execute the statements one by one"
_OVER = "this connection has no transaction any more: it is good for its step alone"


class LentConnection(sqlite3.Connection):
    """While `is_lent`, it refuses whatever would end its transaction, and, without one, every statement."""

    is_lent = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursors: WeakSet[LentCursor] = WeakSet()
        for setting in _SETTINGS:
            self.execute(setting)
        self.set_authorizer(self._authorized)

    def cursor(self, factory: Any = None) -> Any:
        cursor: LentCursor = super().cursor(LentCursor)
        self.cursors.add(cursor)
        return cursor

    # sqlite3's own would take a plain cursor.
    def execute(self, sql: str, *parameters: Any) -> Any:
        return self.cursor().execute(sql, *parameters)

    def executemany(self, sql: str, *parameters: Any) -> Any:
        return self.cursor().executemany(sql, *parameters)

    def executescript(self, sql_script: str) -> Any:
        return self.cursor().executescript(sql_script)

    def commit(self) -> None:
        self._check(_REFUSED)
        self._stop()
        super().commit()

    def rollback(self) -> None:
        self._check(_REFUSED)
        super().rollback()

    def close(self) -> None:
        """Roll back, and close: a statement that has not come to its end would keep the file locked."""
        self.is_lent = False
        if self.in_transaction:
            super().rollback()
        self._stop()
        super().close()

    def _stop(self) -> None:
        """End all statements: with INSERT … RETURNING, of which a row was not fetched, nothing can be committed."""
        for cursor in list(self.cursors):
            cursor.close()

    def _check(self, refused: str) -> None:
        if self.is_lent:
            raise sqlite3.ProgrammingError(refused)

    def _authorized(self, action: int, *_: object) -> int:
        return sqlite3.SQLITE_DENY if self.is_lent and action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK


class LentCursor(sqlite3.Cursor):
    """A cursor of such a connection."""

    def execute(self, sql: str, *parameters: Any) -> Any:
        self._check()
        try:
            return super().execute(sql, *parameters)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_AUTH":
                raise sqlite3.ProgrammingError(_REFUSED) from error
            raise

    def executemany(self, sql: str, *parameters: Any) -> Any:
        self._check()
        return super().executemany(sql, *parameters)

    def executescript(self, sql_script: str) -> Any:
        raise sqlite3.ProgrammingError(_SCRIPT)

    def _check(self) -> None:
        # After ON CONFLICT ROLLBACK, for one, each statement would be committed by itself.
        lent = cast(LentConnection, self.connection)
        if lent.is_lent and not lent.in_transaction:
            raise sqlite3.ProgrammingError(_OVER)
