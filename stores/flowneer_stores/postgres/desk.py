"""Where the writer of a PostgreSQL store hands in its statements: one text, an array for each of its columns.

Every write can be repeated: the second time it finds nothing left to do, and what was done the first time is known by
the ticket it bears, or by what it has stored.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, cast

from flowneer_stores.postgres import queries
from flowneer_stores.postgres.driver import Connection
from flowneer_stores.postgres.lines import Lines
from flowneer_stores.writer import Cell, Returned

Columns: TypeAlias = Sequence[Sequence[Cell]]


class _Proof(NamedTuple):
    """The question which rows of a statement have been stored already, and the columns that it takes."""

    question: str
    columns: tuple[int, ...]


_PROOFS = {
    queries.CREATE: _Proof(queries.TAKEN, (0, 13)),
    queries.START: _Proof(queries.TAKEN, (0, 13)),
    queries.CLAIM: _Proof(queries.TAKEN, (0, 7)),
    queries.APPEND: _Proof(queries.APPENDED, (0, 1, 3, 11)),
    queries.SEND: _Proof(queries.SENT, (0, 4)),
    queries.DROP: _Proof(queries.DROPPED, (0, 1)),
    queries.PURGE: _Proof(queries.PURGED, (0, 1)),
}


class PostgresDesk:
    """The lines that write."""

    # What runs ask for first of all is done first: they exist before they are written to, and end before they are
    # claimed.
    order = (
        queries.CREATE,
        queries.START,
        queries.APPEND,
        queries.SEND,
        queries.RENEW,
        queries.RELEASE,
        queries.CLAIM,
        queries.DROP,
        queries.PURGE,
        queries.ABANDON,
    )

    def __init__(self, lines: Lines, place: str, schema: str) -> None:
        self._lines, self.place = lines, place
        texts = {*self.order, *(proof.question for proof in _PROOFS.values())}
        self._texts = {text: queries.within(text, schema) for text in texts}
        self._begun: set[asyncio.Task[Returned]] = set()

    async def execute(self, statement: str, rows: Sequence[tuple[Cell, ...]]) -> Returned:
        # In a task of its own: whoever waits for it may be cancelled, and the statement is not.
        task = asyncio.create_task(self._commit(statement, list(zip(*rows, strict=True))))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return await asyncio.shield(task)

    async def settle(self) -> None:
        while self._begun:
            await asyncio.wait(self._begun)

    def failure(self, error: Exception) -> Exception:
        return error  # translated already, where it came from the server

    async def _commit(self, statement: str, columns: Columns) -> Returned:
        doubted = False

        async def work(connection: Connection, timeout: float) -> Returned:
            nonlocal doubted
            try:
                rows = await connection.fetch(self._texts[statement], *columns, timeout=timeout)
            except BaseException:
                # Then it is not known whether the statement was committed.
                doubted = doubted or connection.is_closed()
                raise
            returned = dict(cast(Sequence[tuple[str, int]], rows))
            return {**await self._proven(connection, statement, columns, timeout), **returned} if doubted else returned

        return await self._lines.do("writing", work)

    async def _proven(self, connection: Connection, statement: str, columns: Columns, timeout: float) -> Returned:
        proof = _PROOFS.get(statement)
        if proof is None:
            return {}
        cells = [columns[number] for number in proof.columns]
        rows = await connection.fetch(self._texts[proof.question], *cells, timeout=timeout)
        return dict(cast(Sequence[tuple[str, int]], rows))
