"""Reading a stream of events as it comes, and cutting it: what a client that buffers whole responses cannot do."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import anyio
from fastapi import FastAPI


class Told(NamedTuple):
    """An event as a client has it."""

    kind: str
    id: str | None
    data: Any


@dataclass
class Stream:
    """A response that is being sent; `cut` makes the client go away."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    text: str = ""
    is_over: bool = False
    changed: anyio.Event = field(default_factory=anyio.Event)
    gone: anyio.Event = field(default_factory=anyio.Event)
    _read: int = 0

    @property
    def events(self) -> list[Told]:
        """Those that have come as a whole."""
        return told(self.text)

    async def next(self) -> Told:
        """The next event."""
        while len(self.events) <= self._read:
            assert not self.is_over, "the stream has ended"
            await self.changed.wait()
        self._read += 1
        return self.events[self._read - 1]

    async def end(self) -> None:
        """Wait until it is over."""
        while not self.is_over:
            await self.changed.wait()

    def cut(self) -> None:
        """Go away."""
        self.gone.set()

    def note(self) -> None:
        """Tell those who wait that there is more."""
        self.changed.set()
        self.changed = anyio.Event()


def told(text: str) -> list[Told]:
    """The events of a stream; comments are none."""
    found: list[Told] = []
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append(Told(fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


@asynccontextmanager
async def streamed(app: FastAPI, path: str, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    """Alice reads a stream of events."""
    stream = Stream()
    sent = {"authorization": "Bearer of-alice", **{name.replace("_", "-"): text for name, text in headers.items()}}

    async def receive() -> dict[str, Any]:
        await stream.gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            stream.status = message["status"]
            stream.headers = {name.decode(): text.decode() for name, text in message["headers"]}
        else:
            stream.text += message.get("body", b"").decode()
        stream.note()

    async def call() -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), text.encode()) for name, text in sent.items()],
        }
        await app(scope, receive, send)  # type: ignore[arg-type]
        stream.is_over = True
        stream.note()

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        yield stream
        stream.cut()
        await stream.end()
