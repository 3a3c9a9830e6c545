"""What has changed: told to those who watch a run, in this process at once, in others through the database.

A notice within the transaction of a write would make all who write wait for each other. So what has changed is told
afterwards, by another session, many runs at once; it is a hint, which may be lost: whoever watches looks for himself
every few seconds.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress

from flowneer_async.errors import StoreError
from flowneer_stores.postgres.driver import Connection
from flowneer_stores.postgres.lines import Line

_TOGETHER = 0.02  # seconds in which changes are gathered
_LOOK = 2.0  # seconds after which whoever watches looks for himself
_PAUSE = 0.25  # seconds between two tries to listen
_MOST = 7000  # bytes of a notice; the server takes less than 8000


class News:
    """The runs that are watched, and what is told and heard of them on a channel."""

    def __init__(
        self,
        channel: str,
        teller: str,
        line: Line,
        listen: Callable[[float], Awaitable[Connection]] | None,
        timeout: float,
    ) -> None:
        self._channel, self._teller, self._line, self._listen, self._timeout = channel, teller, line, listen, timeout
        self._watched: dict[str, set[asyncio.Event]] = {}
        self._changed: set[str] = set()
        self._to_tell = asyncio.Event()
        self._telling = asyncio.create_task(self._tell())
        self._listening: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    def change(self, run_id: str) -> None:
        """A run has been changed by this store."""
        self._wake(run_id)
        self._changed.add(run_id)
        self._to_tell.set()

    @asynccontextmanager
    async def watch(self, run_id: str) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
        """Watch a run: what is entered waits until it may have changed."""
        event = asyncio.Event()
        self._watched.setdefault(run_id, set()).add(event)
        try:
            await self._hear_others()

            async def changed() -> None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await event.wait()
                event.clear()

            yield changed
        finally:
            self._watched[run_id].discard(event)
            if not self._watched[run_id]:
                del self._watched[run_id]

    async def close(self) -> None:
        """Tell what is left, and listen no more."""
        for task in (self._listening, self._telling):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        if self._changed:
            await self._tell_all()
        await self._line.close()

    def stop(self) -> None:
        """End where no time is left."""
        for task in (self._listening, self._telling):
            if task is not None:
                task.cancel()
        self._line.stop()

    def _wake(self, run_id: str) -> None:
        for event in self._watched.get(run_id, ()):
            event.set()

    async def _tell(self) -> None:
        while True:
            await self._to_tell.wait()
            await asyncio.sleep(_TOGETHER)
            self._to_tell.clear()
            await self._tell_all()

    async def _tell_all(self) -> None:
        runs, self._changed = self._changed, set()
        notices = list(_notices(self._teller, runs))

        async def work(connection: Connection, timeout: float) -> None:
            await connection.fetch(
                "SELECT pg_notify($1, notice) FROM unnest($2::text[]) AS notice",
                self._channel,
                notices,
                timeout=timeout,
            )

        with suppress(StoreError):  # they look for themselves
            await self._line.do("telling", work)

    async def _hear_others(self) -> None:
        """Listen, from the first time on; where that cannot be had, whoever watches looks for himself."""
        if self._listen is None:
            return
        if self._listening is None:
            self._listening = asyncio.create_task(self._keep_listening(self._listen))
        await self._tried.wait()

    async def _keep_listening(self, listen: Callable[[float], Awaitable[Connection]]) -> None:
        while True:
            with suppress(Exception):  # tried again
                await self._listen_on(await listen(self._timeout))
            self._tried.set()
            await asyncio.sleep(_PAUSE)

    async def _listen_on(self, connection: Connection) -> None:
        closed = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: closed.set())
            await connection.add_listener(self._channel, self._hear)
            for run_id in self._watched if self._tried.is_set() else ():  # what was told meanwhile was not heard
                self._wake(run_id)
            self._tried.set()
            await closed.wait()
        finally:
            connection.terminate()

    def _hear(self, _connection: Connection, _process: int, _channel: str, notice: str) -> None:
        teller, *runs = notice.split()
        if teller != self._teller:
            for run_id in runs:
                self._wake(run_id)


def _notices(teller: str, runs: Iterable[str]) -> Iterator[str]:
    """The runs, in as few notices as can hold them."""
    notice = teller
    for run_id in runs:
        if len(notice) + len(run_id) >= _MOST:
            yield notice
            notice = teller
        notice += f" {run_id}"
    yield notice
