"""Who watches runs of a file: all together look for changes, however many they are."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from flowneer_async.errors import StoreClosed
from flowneer_stores.rows import Row
from flowneer_stores.sqlite import queries

_LOOK = 0.05  # seconds between two looks

Mark: TypeAlias = tuple[object, ...] | None
"""What is another one after each change of a run; None of one that is not there."""


@dataclass(eq=False, slots=True)
class _Wait:
    """Somebody who waits until the mark of a run is not the one that was seen."""

    run_id: str
    seen: Mark
    other: "asyncio.Future[Mark]"


class Watches:
    """Those of one store, whose questions to the file `fetch` asks."""

    def __init__(
        self,
        place: str,
        fetch: Callable[..., Awaitable[Sequence[Row]]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._place, self._fetch, self._sleep = place, fetch, sleep
        self._waiting: set[_Wait] = set()
        self._has_new = False
        """Has anybody come since the last look?"""
        self._looking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, run_id: str) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
        """Watch a run: what is entered waits until it may have changed."""
        seen = (await self._marks([run_id])).get(run_id)

        async def changed() -> None:
            nonlocal seen
            seen = await self._wait(run_id, seen)

        yield changed

    def close(self) -> None:
        """Look no more: whoever waits is told that the store is closed."""
        if self._looking is not None:
            self._looking.cancel()
        self._fail(StoreClosed(self._place))

    async def _wait(self, run_id: str, seen: Mark) -> Mark:
        wait = _Wait(run_id, seen, asyncio.get_running_loop().create_future())
        self._waiting.add(wait)
        self._has_new = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name=f"watches of {self._place}")
        try:
            return await wait.other
        finally:
            self._waiting.discard(wait)

    async def _look(self) -> None:
        """Look again and again, as long as anybody waits."""
        try:
            version = await self._look_at(-1)
            while self._waiting:
                await self._sleep(_LOOK)
                version = await self._look_at(version)
        except Exception as error:  # whatever it is, all who wait have to hear of it
            self._fail(error)

    async def _look_at(self, version: int) -> int:
        """One look: at the runs only where the file has another version than this, or somebody has come."""
        found = int((await self._fetch("PRAGMA data_version"))[0][0])
        if found != version or self._has_new:
            self._has_new = False
            waiting = list(self._waiting)  # who comes while the runs are looked at is told the next time
            marks = await self._marks({wait.run_id for wait in waiting})
            for wait in waiting:
                if marks.get(wait.run_id) != wait.seen and not wait.other.done():
                    wait.other.set_result(marks.get(wait.run_id))
                    self._waiting.discard(wait)
        return found

    async def _marks(self, run_ids: Iterable[str]) -> Mapping[str, Mark]:
        rows = await self._fetch(queries.MARKS, orjson.dumps(list(run_ids)).decode())
        return {run_id: tuple(mark) for run_id, *mark in rows}

    def _fail(self, error: Exception) -> None:
        for wait in self._waiting:
            if not wait.other.done():
                wait.other.set_exception(error)
