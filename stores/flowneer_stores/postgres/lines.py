"""Lines to the server: connections that are opened when they are needed, and again whenever they were lost."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from flowneer_async.errors import StoreError, StoreUnreachable
from flowneer_stores.postgres.driver import Connection
from flowneer_stores.postgres.translate import is_lost, is_passing, sqlstate, translated

T = TypeVar("T")
Work: TypeAlias = Callable[[Connection, float], Awaitable[T]]
"""Something to do with a connection, in so many seconds. It is done again where the connection was lost meanwhile."""

_SHORTEST, _LONGEST = 0.01, 0.25  # seconds between two tries
_GRACE = 1.0  # seconds more than the server gives a statement: so it is the server that ends it, if it can be reached


@dataclass(frozen=True, slots=True)
class Access:
    """How the server is reached, and for how long that is tried."""

    place: str
    timeout: float
    connect: Callable[[float], Awaitable[Connection]]
    sleep: Callable[[float], Awaitable[None]]


class Line:
    """One connection, for one user at a time."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._connection: Connection | None = None

    async def do(self, operation: str, work: Work[T]) -> T:
        """Do some work that can be repeated until it is done; raises a StoreError."""
        end = time.monotonic() + self._access.timeout
        pause = _SHORTEST
        while True:
            left = max(end - time.monotonic(), 0.0) + _GRACE
            try:
                connection = self._connection
                if connection is None or connection.is_closed():
                    connection = self._connection = await self._access.connect(left)
                return await work(connection, left)
            except Exception as error:
                failure = self._failure(error, operation, pause, end)
            if failure is not None:
                raise failure
            await self._access.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None and not self._connection.is_closed():
            await self._connection.close(timeout=self._access.timeout)

    def stop(self) -> None:
        """Close it where no time is left to tell the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _failure(self, error: Exception, operation: str, pause: float, end: float) -> StoreError | None:
        """What to raise for an error; None where it is to be tried again."""
        place, timeout = self._access.place, self._access.timeout
        is_over = time.monotonic() + pause > end
        if is_passing(error) and not is_over:
            return None
        if is_lost(error) or self._is_closed():
            self.stop()
            return StoreUnreachable(place, timeout) if is_over else None
        if not sqlstate(error):
            # It is not the server that has answered so: nobody knows how the connection stands.
            self.stop()
        return translated(error, place, operation, timeout)

    def _is_closed(self) -> bool:
        return self._connection is not None and self._connection.is_closed()


class Lines:
    """Some lines, for many users."""

    def __init__(self, access: Access, size: int) -> None:
        self._lines = [Line(access) for _ in range(size)]
        self._all = tuple(self._lines)
        self._free = asyncio.Semaphore(size)

    async def do(self, operation: str, work: Work[T]) -> T:
        """Do some work on a line that is free; the one that was used last, so that few are opened."""
        async with self._free:
            line = self._lines.pop()
            try:
                return await line.do(operation, work)
            finally:
                self._lines.append(line)

    async def close(self) -> None:
        """Close all of them."""
        for line in self._all:
            await line.close()

    def stop(self) -> None:
        """Close them at once."""
        for line in self._all:
            line.stop()
