"""Where the writer of a SQLite store hands in its statements: one text over many rows, one hop to the thread."""

import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import cast

import aiosqlite

from flowneer_stores.sqlite import queries
from flowneer_stores.sqlite.translate import translated
from flowneer_stores.writer import Cell, Refused, Returned, in_order


class SqliteDesk:
    """The connection that writes, which works on one statement after the other."""

    order = in_order(queries)

    def __init__(self, db: aiosqlite.Connection, place: str, timeout: float) -> None:
        self._db, self.place, self._timeout = db, place, timeout

    async def execute(self, statement: str, rows: Sequence[tuple[Cell, ...]]) -> Returned:
        # Few sizes, so that SQLite finds each text prepared: a row of nothing but NULL fits nowhere.
        columns, size = len(rows[0]), 1 << (len(rows) - 1).bit_length()
        padding = [(None,) * columns] * (size - len(rows))
        cells = list(chain.from_iterable([*rows, *padding]))
        returned = await self._db.execute_fetchall(_sql(statement, columns, size), cells)
        return dict(cast(Iterable[tuple[str, int]], returned))

    async def settle(self) -> None:
        # The connection's thread does one thing after the other.
        await self._db.execute_fetchall("SELECT 1")

    def failure(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.IntegrityError):
            return Refused(self.place, "writing", str(error))
        return translated(error, self.place, "writing", self._timeout)


@cache
def _sql(statement: str, columns: int, size: int) -> str:
    marks = "(" + ",".join("?" * columns) + ")"
    return statement.replace("{rows}", ",".join([marks] * size))
