"""Clients that send their requests byte by byte, and leave when they please."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.service.processes import Process

_BODY = b'{"log": []}'
_HEAD = """POST /flows/short/runs HTTP/1.1
Host: service
Content-Type: application/json
Content-Length: 11
Idempotency-Key: {key}
"""


class Sending:
    """A client in the middle of a request that starts a run."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def head(self, key: str) -> None:
        """Send all but the body, and wait until somebody wants to read that."""
        head = _HEAD.format(key=key) + "Expect: 100-continue\n\n"
        self._writer.write(head.replace("\n", "\r\n").encode())
        assert (await self._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")

    async def body(self, part: slice = slice(None)) -> None:
        """Send the body, or a part of it."""
        self._writer.write(_BODY[part])
        await self._writer.drain()

    async def ask(self, path: str) -> None:
        """Ask for something, and wait until an answer comes, of which little is read."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: service\r\n\r\n".encode())
        await self._reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> bytes:
        """All that is answered, until the other side ends the connection."""
        return await self._reader.read()


@asynccontextmanager
async def sending(process: Process) -> AsyncGenerator[Sending]:
    """Connect to a process, and disconnect at the end."""
    place = urlsplit(process.url)
    assert isinstance(place.hostname, str)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        yield Sending(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
