"""The processes of a service: they are started, talked to, disturbed, and gone in the end."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from inspect import isawaitable
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

import anyio
import httpx

from tests.service.witness import Witness
from tests.support.children import ENVIRONMENT
from tests.support.places import place_of, store_at

LONGEST = 60.0  # seconds, after which something is wrong
OPTIONS = {"lease": 30.0, "grace": 10.0, "poll": 0.2, "patience": None}
_RUNNING = re.compile(r"running on (http://\S+)")


class Process:
    """One process of a service; `said` is what it logs."""

    def __init__(self, folder: Path, said: Path, place: Sequence[str], options: Mapping[str, float | None]) -> None:
        self.said = said
        script = Path(__file__).with_name("service_child.py")
        command = [sys.executable, "-W", "error", script, folder, json.dumps(options), *place]
        with said.open("w") as log:
            self._process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """With what it has ended; None where it has not."""
        return self._process.poll()

    @property
    def url(self) -> str | None:
        """Where it listens, once it does."""
        found = _RUNNING.search(self.said.read_text())
        return found and found[1]

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait()

    async def stop(self) -> int:
        """End it as an operator does; gives its exit code."""
        self.tell(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        await until(lambda: self.code is not None, self.said.read_text)
        return self._process.wait()

    async def listens(self) -> Self:
        """Wait until it does; fails where it has died instead."""
        await until(lambda: self.url is not None or self.code is not None, self.said.read_text)
        assert self.code is None, self.said.read_text()
        return self

    def client(self) -> httpx.AsyncClient:
        """Somebody who talks to it, to be closed."""
        assert self.url is not None
        return httpx.AsyncClient(base_url=self.url, timeout=LONGEST)


class Service:
    """Processes on one store, with one witness, that of a folder; whatever happens, none of them is left."""

    def __init__(self, folder: Path, kind: str = "sqlite", **options: float) -> None:
        self._folder, self._options, self.place = folder, OPTIONS | options, place_of(kind, folder)
        self.witness = Witness(folder)
        self.processes: list[Process] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    async def process(self) -> Process:
        """One more, which listens."""
        return await self.spawned().listens()

    def spawned(self) -> Process:
        """One more, which has only just begun."""
        process = Process(self._folder, self._folder / f"said-{len(self.processes)}", self.place, self._options)
        self._stack.callback(process.kill)
        self.processes.append(process)
        return process

    def store(self) -> Any:
        """What the processes have stored, to be opened beside them."""
        return store_at(*self.place)

    async def until(self, condition: Callable[[], bool | Awaitable[bool]]) -> None:
        """Wait until it is so."""
        await until(condition, lambda: "\n".join(process.said.read_text() for process in self.processes))


async def until(
    condition: Callable[[], bool | Awaitable[bool]], said: Callable[[], str], longest: float = LONGEST
) -> None:
    """Wait until it is so, `longest` seconds at most: then it fails, with what was said."""
    end = monotonic() + longest
    while not (await found if isawaitable(found := condition()) else found):
        assert monotonic() < end, said()
        await anyio.sleep(0.01)


@asynccontextmanager
async def together(longest: float = LONGEST) -> AsyncGenerator[asyncio.TaskGroup]:
    """Tasks that are done when the block is; fails where that takes more than so many seconds."""
    async with asyncio.timeout(longest), asyncio.TaskGroup() as group:
        yield group


async def start(client: httpx.AsyncClient, flow: str, idempotency_key: str, key: str = "") -> str | None:
    """The id of the run that was accepted; None where there was no answer."""
    headers = {"Idempotency-Key": idempotency_key}
    try:
        response = await client.post(f"/flows/{flow}/runs", json={"log": []}, headers=headers, params={"key": key})
    except httpx.TransportError:
        return None
    assert response.status_code == 202, response.text
    run_id: str = response.json()["run_id"]
    return run_id


async def are_over(client: httpx.AsyncClient) -> bool:
    """Are all runs over?"""
    found = await client.get("/runs", params={"status": ["running", "waiting"], "limit": 1})
    return not found.json()["runs"]
