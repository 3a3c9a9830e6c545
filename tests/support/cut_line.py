"""A server reached over lines that can be cut: before a question has come, or before its answer has."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit

from tests.support.postgres import server

Cut: TypeAlias = Literal["question", "answer"]

WRITING = b"force_generic_plan"
"""Only connections that write ask for it when they begin."""


class Lines:
    """All lines to the server, and what is to become of them."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.cuts = 0
        """How many lines were cut."""
        self.closed = False
        """No line is opened any more."""
        self.silent = False
        """Nothing comes through, and nobody is told."""
        self.lines: set[Line] = set()
        self._cut: Cut | None = None
        self._after = 0

    def cut(self, what: Cut, after: int = 0) -> None:
        """Of the lines that write, cut one instead of passing on a question, or an answer, after so many others."""
        self._cut, self._after = what, after

    def is_cut(self, line: "Line", what: Cut) -> bool:
        """Is this line to be cut now?"""
        if self._cut != what or not line.writes:
            return False
        self._after -= 1
        if self._after >= 0:
            return False
        self._cut, self.cuts = None, self.cuts + 1
        return True

    def drop_all(self) -> None:
        """Cut every line there is."""
        for line in list(self.lines):
            line.drop()


class Line:
    """One connection, passed on in both directions."""

    def __init__(self, lines: Lines, ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._lines, self._ends = lines, ends
        self.writes = False

    def drop(self) -> None:
        """Cut it."""
        for end in self._ends:
            end.transport.abort()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: Cut) -> None:
        """Pass on what comes from one end to the other."""
        while data := await reader.read(2**16):
            self.writes = self.writes or (what == "question" and WRITING in data)
            if self._lines.is_cut(self, what):
                self.drop()
            elif not self._lines.silent:
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def lines_to_the_server() -> AsyncGenerator[Lines, None]:
    """A DSN that leads to the server of the tests over lines of ours."""
    parts = urlsplit(server().dsn)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if lines.closed:
            writer.transport.abort()
            return
        far_reader, far_writer = await connect()
        line = Line(lines, (writer, far_writer))
        lines.lines.add(line)
        both = [
            asyncio.create_task(line.pass_on(reader, far_writer, "question")),
            asyncio.create_task(line.pass_on(far_reader, writer, "answer")),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lines.lines.discard(line)
            line.drop()
            await asyncio.gather(*both, return_exceptions=True)

    async with listening(serve) as port:
        lines = Lines(f"postgresql://{parts.username or 'postgres'}@127.0.0.1:{port}{parts.path}?sslmode=disable")
        yield lines


async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the server of the tests, of which it knows nothing yet."""
    parts = urlsplit(server().dsn)
    folder = parse_qs(parts.query).get("host")
    if folder is not None:
        return await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.5432")
    return await asyncio.open_connection(parts.hostname, parts.port or 5432)


@asynccontextmanager
async def listening(serve: Callable[..., object]) -> AsyncGenerator[int, None]:
    """A port at which all are served by tasks that end with this."""
    tasks = set[asyncio.Task[object]]()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):
            await serve(reader, writer)  # type: ignore[misc]

    listening = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.wait_closed()
