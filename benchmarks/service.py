"""Starting runs over HTTP, beside a handler that makes one durable insert: uvicorn, sockets, keep-alive."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks import served
from benchmarks.figure import Figure, Pairs, times
from benchmarks.measure import Scale, awaited, by_turns

MOST = 1.5
"""So many times as long as the bare handler may a start take."""

PAUSE = 0.01  # seconds, in which what was started is done

LATER = "?delay=86400"
"""The run is stored, and begins tomorrow."""


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    with (
        TemporaryDirectory(prefix="bench-") as folder,
        served.served(served.ours, Path(folder)) as our_port,
        served.served(served.peer, Path(folder)) as peer_port,
    ):
        async with _both(our_port, served.OURS, peer_port, scale) as (ours, peer):
            yield await _now_and_then("a run is started", ours, peer, scale)
            for figure in await _together("a run is started, and done", ours, peer, scale, None):
                yield figure
        async with _both(our_port, served.OURS + LATER, peer_port, scale) as (ours, peer):
            for figure in await _together("a run is stored, to begin later", ours, peer, scale, MOST):
                yield figure


async def _now_and_then(name: str, ours: "Service", peer: "Service", scale: Scale) -> Figure:
    pairs = await by_turns(partial(ours.latency, scale), partial(peer.latency, scale), scale)
    return times(f"{name}: one now and then, p50", pairs, MOST)


async def _together(
    name: str, ours: "Service", peer: "Service", scale: Scale, most: float | None
) -> tuple[Figure, Figure]:
    pairs = await by_turns(partial(ours.together, scale), partial(peer.together, scale), scale)
    cpu = Pairs(ours.cpu[1:], peer.cpu[1:])  # the first only warmed up
    return (
        times(f"{name}: over {scale.connections} connections at once", pairs.each(scale.requests), most),
        times(f"{name}: processor time of the service", cpu),
    )


@asynccontextmanager
async def _both(our_port: int, path: str, peer_port: int, scale: Scale) -> AsyncGenerator[tuple["Service", "Service"]]:
    """Connections to the two; a request to ours has this path."""
    async with (
        _connected(our_port, path, scale.connections) as ours,
        _connected(peer_port, served.PEER, scale.connections) as peer,
    ):
        yield ours, peer


@dataclass(frozen=True, slots=True)
class Client:
    """One connection; it reads as little of the responses as has to be, for it works on the same processors."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes, status: bytes) -> bytes:
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 " + status), head
        _, _, length = head.partition(b"content-length: ")
        return await self.reader.readexactly(int(length.partition(b"\r\n")[0]))


@dataclass(frozen=True, slots=True)
class Service:
    """One of the two, and the request that it is sent again and again."""

    clients: list[Client]
    request: bytes
    cpu: list[float] = field(default_factory=list[float])
    """Seconds of the service's processor time for one request, for each time that many were sent at once."""

    async def latency(self, scale: Scale) -> float:
        """Seconds from one request to its response, over one connection, when the service has nothing else to do."""
        taken: list[float] = []
        for _ in range(max(1, scale.requests // 8)):
            await asyncio.sleep(PAUSE)
            taken.append(await awaited(self.clients[0].ask(self.request, b"202")))
        return median(taken)

    async def together(self, scale: Scale) -> float:
        """Seconds for all requests, over all connections."""
        before, start = await self._used(), perf_counter()
        share = scale.requests // len(self.clients)
        await asyncio.gather(*[self._send(client, share) for client in self.clients])
        taken = perf_counter() - start
        self.cpu.append((await self._used() - before) / scale.requests)
        return taken

    async def _send(self, client: Client, requests: int) -> None:
        for _ in range(requests):
            await client.ask(self.request, b"202")

    async def _used(self) -> float:
        return float(await self.clients[0].ask(_request("GET", served.CPU), b"200"))


@asynccontextmanager
async def _connected(port: int, path: str, connections: int) -> AsyncGenerator[Service]:
    async with AsyncExitStack() as stack:
        clients: list[Client] = []
        for _ in range(connections):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            clients.append(Client(reader, writer))
        yield Service(clients, _request("POST", path, served.ORDER.model_dump_json().encode()))


def _request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body
