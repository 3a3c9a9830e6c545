"""Saving a little behind the run: durability "async"."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio

from flowneer_async.shield import complete
from flowneer_async.versions import Version

MOST_VERSIONS = 64
MOST_MS = 50


class Behind:
    """A bounded buffer of versions that a task of its own appends, as many at a time as have come together."""

    def __init__(self, append: Callable[[Sequence[Version]], Awaitable[None]], now: Callable[[], int]) -> None:
        self._append, self._now = append, now
        self._waiting: deque[tuple[int, Version]] = deque()
        self._filled, self._saved = anyio.Event(), anyio.Event()
        self._failure: Exception | None = None

    async def put(self, version: Version) -> None:
        """Hand a version over; waits while the store is too far behind, raises what an earlier append raised."""
        self._waiting.append((self._now(), version))
        self._filled.set()
        while self._failure is None and self._is_full():
            await self._saved.wait()
        if self._failure is not None:
            raise self._failure

    async def work(self) -> None:
        """Append what is put, until cancelled."""
        while self._failure is None:
            await self._filled.wait()
            self._filled = anyio.Event()
            await complete(self._save())

    async def flush(self) -> None:
        """Append all that is left, once `work` has ended; raises what an earlier append raised."""
        if self._failure is None:
            await self._save()
        if self._failure is not None:
            raise self._failure

    def _is_full(self) -> bool:
        # Those being appended count until they are stored.
        if not self._waiting:
            return False
        return len(self._waiting) >= MOST_VERSIONS or self._now() - self._waiting[0][0] > MOST_MS

    async def _save(self) -> None:
        versions = [version for _, version in self._waiting]
        if not versions:
            return
        try:
            await self._append(versions)
        except Exception as error:
            self._failure = error
        else:
            for _ in versions:
                self._waiting.popleft()
        saved, self._saved = self._saved, anyio.Event()
        saved.set()
