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
from benchmarks.figure import Figure, Pairs, duration, times
from benchmarks.measure import Scale, awaited, by_turns

LATER = "?delay=86400"
"""The run is stored, and begins tomorrow."""


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    for what, query in (("a run is started, and done", ""), ("a run is stored, to begin later", LATER)):
        with TemporaryDirectory(prefix="bench-") as folder:
            async for figure in _measured(what, query, Path(folder), scale):
                yield figure


async def _measured(what: str, query: str, folder: Path, scale: Scale) -> AsyncIterator[Figure]:
    most = None if query else 1.5
    with served.served(served.ours, folder) as our_port, served.served(served.peer, folder) as peer_port:
        async with (
            _connected(our_port, served.OURS + query, scale.connections) as ours,
            _connected(peer_port, served.PEER, scale.connections) as peer,
        ):
            one = await by_turns(partial(ours.latency, scale), partial(peer.latency, scale), scale)
            yield times(f"{what}: one after the other, p50", one, most)
            many = await by_turns(partial(ours.together, scale), partial(peer.together, scale), scale)
            yield times(f"{what}: over {scale.connections} connections at once", many.each(scale.requests), most)
            yield _cpu(f"{what}: processor time of the service", ours, peer)


def _cpu(name: str, ours: "Service", peer: "Service") -> Figure:
    """The first of each only warmed up."""
    pairs = Pairs(ours.cpu[1:], peer.cpu[1:])
    return Figure(name, duration(pairs.our_median), duration(pairs.peer_median), pairs.ratio, spread=pairs.spread)


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
    cpu: list[float] = field(default_factory=list)
    """Seconds of the service's processor time for one request, for each time that many were sent at once."""

    async def latency(self, scale: Scale) -> float:
        """Seconds from one request to its response, over one connection."""
        client = self.clients[0]
        return median([await awaited(client.ask(self.request, b"202")) for _ in range(scale.requests)])

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
