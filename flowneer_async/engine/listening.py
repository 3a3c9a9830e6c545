"""Listening to what the steps of runs emit in this process."""

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import anyio

from flowneer_async.events import Chunk

_MOST_CHUNKS = 1000


class Listener:
    """Somebody who listens to one run; who is too far behind loses the oldest."""

    def __init__(self) -> None:
        self._chunks: deque[Chunk] = deque(maxlen=_MOST_CHUNKS)
        self._heard = anyio.Event()

    def hear(self, chunk: Chunk) -> None:
        """Take what was emitted."""
        self._chunks.append(chunk)
        self._heard.set()

    async def heard(self) -> None:
        """Wait until there is something to take."""
        await self._heard.wait()

    def take(self) -> list[Chunk]:
        """What has come since the last time."""
        taken = list(self._chunks)
        self._chunks.clear()
        self._heard = anyio.Event()
        return taken


class Listeners:
    """All who listen, by the id of the run."""

    def __init__(self) -> None:
        self._of: dict[str, set[Listener]] = {}

    @contextmanager
    def to(self, run_id: str) -> Generator[Listener]:
        """Listen to a run, for as long as the block."""
        listener = Listener()
        listeners = self._of.setdefault(run_id, set())
        listeners.add(listener)
        try:
            yield listener
        finally:
            listeners.discard(listener)
            if not listeners and self._of.get(run_id) is listeners:
                del self._of[run_id]

    def tell(self, run_id: str, chunk: Chunk) -> None:
        """A step of a run has emitted something."""
        for listener in self._of.get(run_id, ()):
            listener.hear(chunk)
