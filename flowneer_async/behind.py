"""Saving beside the run: a little behind it, for durability "async", or together for all of its lanes."""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import anyio

from flowneer_async.shield import complete
from flowneer_async.versions import Version

MOST_VERSIONS = 64
MOST_MS = 50
_TOGETHER = 128  # versions in one append


class Behind:
    """A bounded buffer of versions that a task of its own appends, as many at a time as have come together.

    With `waits` a version is stored when `put` returns; else the store is at most so far behind.
    """

    def __init__(
        self, append: Callable[[Sequence[Version]], Awaitable[None]], now: Callable[[], int], *, waits: bool = False
    ) -> None:
        self._append, self._now, self._waits = append, now, waits
        self._waiting: deque[tuple[int, Version]] = deque()
        self._filled, self._saved = anyio.Event(), anyio.Event()
        self._failure: BaseException | None = None
        self._is_saving = self._is_held = False

    async def put(self, version: Version) -> None:
        """Hand a version over; waits while the store is too far behind, raises what an earlier append raised."""
        self._waiting.append((0 if self._waits else self._now(), version))
        self._filled.set()
        while self._failure is None and self._is_behind(version):
            await self._saved.wait()
        if self._failure is not None:
            raise self._failure

    async def work(self) -> None:
        """Append what is put, until cancelled."""
        while self._failure is None:
            await self._filled.wait()
            self._filled = anyio.Event()
            await complete(self._save())

    async def drain(self) -> None:
        """Wait until `work` has appended all that was put so far; raises what an append raised."""
        last = self._waiting[-1][1].seq if self._waiting else -1
        while self._waiting and self._waiting[0][1].seq <= last and self._failure is None:
            await self._saved.wait()
        if self._failure is not None:
            raise self._failure

    async def flush(self) -> None:
        """Append all that is left, once `work` has ended; raises what an earlier append raised."""
        while self._waiting and self._failure is None:
            await self._save()
        if self._failure is not None:
            raise self._failure

    async def hold(self) -> None:
        """Append nothing more until `let_go`; waits for what is being appended, raises what an append raised."""
        self._is_held = True
        while self._is_saving and self._failure is None:
            await self._saved.wait()
        if self._failure is not None:
            raise self._failure

    def taken(self) -> list[Version]:
        """What waits, for the one who holds this to append."""
        return [version for _, version in self._waiting]

    def let_go(self, stored: int = 0) -> None:
        """Go on, without the first so many that wait: they are stored."""
        self._is_held = False
        self._done(stored)

    def _is_behind(self, version: Version) -> bool:
        # Those being appended count until they are stored.
        if not self._waiting:
            return False
        if self._waits:
            return self._waiting[0][1].seq <= version.seq
        return len(self._waiting) >= MOST_VERSIONS or self._now() - self._waiting[0][0] > MOST_MS

    async def _save(self) -> None:
        versions = [version for _, version in self._waiting][:_TOGETHER]
        if not versions or self._is_held:
            return
        stored, self._is_saving = 0, True
        try:
            await self._append(versions)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            self._failure = error
        else:
            stored = len(versions)
        finally:
            self._is_saving = False
        self._done(stored)

    def _done(self, stored: int) -> None:
        """So many are stored: whoever waits for that may look."""
        for _ in range(stored):
            self._waiting.popleft()
        if self._waiting:
            self._filled.set()
        saved, self._saved = self._saved, anyio.Event()
        saved.set()


async def beside(behind: Behind, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do `work` while what it puts is saved, and raise what it raises as it is, in no group."""
    failure: BaseException | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(behind.work)
        try:
            await work()
            await behind.drain()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
