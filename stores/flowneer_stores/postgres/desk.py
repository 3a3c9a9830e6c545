"""Where the writer of a PostgreSQL store hands in its statements: one text, an array for each of its columns.

Every write can be repeated: the second time it finds nothing left to do, and what was done the first time is known by
the ticket it bears, or by what it has stored.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

from flowneer_async.shield import complete
from flowneer_stores.postgres import queries
from flowneer_stores.postgres.driver import Connection
from flowneer_stores.postgres.lines import Lines, Work
from flowneer_stores.rows import Row
from flowneer_stores.writer import Cell, Returned, in_order


class _Proof(NamedTuple):
    """The question which rows of a statement have been stored already, and the columns that it takes."""

    question: str
    columns: tuple[int, ...]


_PROOFS = {
    queries.CREATE: _Proof(queries.TAKEN, (0, 17)),
    queries.START: _Proof(queries.TAKEN, (0, 17)),
    queries.CLAIM: _Proof(queries.TAKEN, (0, 9)),
    queries.APPEND: _Proof(queries.APPENDED, (0, 1, 3, 11)),
    queries.SEND: _Proof(queries.SENT, (0, 4)),
    queries.DROP: _Proof(queries.DROPPED, (0, 1)),
    queries.PURGE: _Proof(queries.PURGED, (0, 1)),
}


class PostgresDesk:
    """The lines that write."""

    order = in_order(queries)

    def __init__(self, lines: Lines, place: str, schema: str) -> None:
        self._lines, self.place = lines, place
        texts = {*self.order, queries.APPEND_ONE, *(proof.question for proof in _PROOFS.values())}
        self._texts = {text: queries.within(text, schema) for text in texts}
        self._begun: set[asyncio.Future[None]] = set()

    async def execute(self, statement: str, rows: Sequence[tuple[Cell, ...]]) -> Returned:
        over = asyncio.get_running_loop().create_future()
        self._begun.add(over)
        try:
            return await self._lines.do("writing", self._work(statement, rows))
        finally:
            self._begun.discard(over)
            over.set_result(None)

    async def settle(self) -> None:
        if self._begun:
            await asyncio.wait(set(self._begun))

    def failure(self, error: Exception) -> Exception:
        return error  # translated already, where it came from the server

    def _work(self, statement: str, rows: Sequence[tuple[Cell, ...]]) -> Work[Returned]:
        doubted = False

        async def work(connection: Connection, timeout: float) -> Returned:
            nonlocal doubted
            try:
                returned = _returned(await self._ask(connection, statement, rows, timeout))
            except asyncio.CancelledError:
                await complete(_settled(connection, timeout))
                raise
            except Exception:
                # Then it is not known whether the statement was committed.
                doubted = doubted or connection.is_closed()
                raise
            return {**await self._proven(connection, statement, rows, timeout), **returned} if doubted else returned

        return work

    def _ask(
        self, connection: Connection, statement: str, rows: Sequence[tuple[Cell, ...]], timeout: float
    ) -> Coroutine[Any, Any, Sequence[Row]]:
        if statement is queries.APPEND and len(rows) == 1:
            return connection.fetch(self._texts[queries.APPEND_ONE], *rows[0], timeout=timeout)
        return connection.fetch(self._texts[statement], *zip(*rows, strict=True), timeout=timeout)

    async def _proven(
        self, connection: Connection, statement: str, rows: Sequence[tuple[Cell, ...]], timeout: float
    ) -> Returned:
        """What of these rows was stored before."""
        proof = _PROOFS.get(statement)
        if proof is None:
            return {}
        cells = [tuple(row[number] for number in proof.columns) for row in rows]
        return _returned(await self._ask(connection, proof.question, cells, timeout))


def _returned(rows: Sequence[Row]) -> Returned:
    return dict(cast(Sequence[tuple[str, int]], rows))


async def _settled(connection: Connection, timeout: float) -> None:
    """Wait until what was cancelled is done, or was undone: the connection does one thing after the other."""
    with suppress(Exception):  # a connection that is lost does nothing any more
        await connection.fetch("SELECT 1", timeout=timeout)
