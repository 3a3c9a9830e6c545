"""Turns of those who want to write to the file for longer than a statement takes."""

import asyncio
from collections import deque

from flowneer_async.errors import StoreBusy


class Turns:
    """One at a time, in the order they came; whoever sees nobody leave for `limit` seconds gives up."""

    def __init__(self, place: str, limit: float) -> None:
        self._place, self._limit = place, limit
        self._is_taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._left = 0

    async def take(self) -> None:
        """Wait for one's turn; raises StoreBusy."""
        if not self._is_taken:
            self._is_taken = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await self._come(turn)
        except BaseException:
            if not turn.cancel():  # it has come meanwhile
                self.leave()
            raise

    def leave(self) -> None:
        """The next one's turn has come."""
        self._left += 1
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False

    async def _come(self, turn: "asyncio.Future[None]") -> None:
        while not turn.done():
            left = self._left
            await asyncio.wait((turn,), timeout=self._limit)
            if not turn.done() and self._left == left:
                raise StoreBusy(self._place, self._limit)
