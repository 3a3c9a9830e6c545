"""A pooler of transactions, as pgbouncer is one: between any two transactions a client is given another session.

It runs on a loop of its own, in a thread, so that it serves any test.
"""

import asyncio
import struct
from collections.abc import Generator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.support.cut_line import connect, listening
from tests.support.postgres import server

_STARTUP = 196608
_SESSIONS = 2  # that each client is given by turns


class _Session(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Pooler:
    """What clients have asked of it."""

    def __init__(self) -> None:
        self.dsn = ""
        self.settings: set[str] = set()
        """What clients have set for a session when it began."""
        self.prepared: set[str] = set()
        """The names of the statements that they have prepared; one without a name lasts until the next one comes."""
        self.switched = 0
        """How often a client was given another session."""

    async def serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves."""
        (length,) = struct.unpack("!i", await client.readexactly(4))
        startup = await client.readexactly(length - 4)
        if struct.unpack("!i", startup[:4])[0] != _STARTUP:
            return  # a cancellation
        words = startup[4:].split(b"\0")
        self.settings |= {name.decode() for name in words[::2] if name}
        sessions = [_Session(*await connect()) for _ in range(_SESSIONS)]
        try:
            for number, session in enumerate(sessions):
                session.writer.write(struct.pack("!i", length) + startup)
                await self._answered(session, None if number else answer)
            await self._take_turns(client, answer, sessions)
        finally:
            for session in sessions:
                session.writer.transport.abort()

    async def _take_turns(
        self, client: asyncio.StreamReader, answer: asyncio.StreamWriter, sessions: list[_Session]
    ) -> None:
        """Pass on what a client asks, and what it is answered, over another session after each transaction."""
        turn = 0

        async def pass_on(session: _Session) -> None:
            nonlocal turn
            while True:
                is_over = await self._answered(session, answer)
                turn, self.switched = turn + is_over, self.switched + is_over

        answering = asyncio.gather(*map(pass_on, sessions))
        answering.add_done_callback(lambda _: client.feed_eof())
        try:
            while True:
                kind, body = await _message(client)
                if kind == b"P":
                    self.prepared.add(body.split(b"\0")[0].decode())
                sessions[turn % _SESSIONS].writer.write(kind + struct.pack("!i", len(body) + 4) + body)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _answered(self, session: _Session, answer: asyncio.StreamWriter | None) -> bool:
        """Pass on an answer to its end, and say whether the transaction is over."""
        while True:
            kind, body = await _message(session.reader)
            if answer is not None:
                answer.write(kind + struct.pack("!i", len(body) + 4) + body)
            if kind == b"Z":
                return body == b"I"


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind, length = struct.unpack("!ci", await reader.readexactly(5))
    return kind, await reader.readexactly(length - 4)


@contextmanager
def pooler() -> Generator[Pooler, None, None]:
    """A pooler before the server of the tests."""
    server()
    made, began, loop, stop = Pooler(), Event(), asyncio.new_event_loop(), asyncio.Event()
    thread = Thread(target=lambda: loop.run_until_complete(_serve(made, began, stop)))
    thread.start()
    began.wait()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _serve(pooler: Pooler, began: Event, stop: asyncio.Event) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await pooler.serve(reader, writer)
        writer.transport.abort()

    async with listening(serve) as port:
        parts = urlsplit(server().dsn)
        pooler.dsn = f"postgresql://{parts.username or 'postgres'}@127.0.0.1:{port}{parts.path}?sslmode=disable"
        began.set()
        await stop.wait()
