"""Rate limit: no more than so many calls in a time."""

import math
import time
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from flowneer_async.context import Context
from flowneer_async.defining import check_count, is_number
from flowneer_async.errors import BadOption
from flowneer_async.hooks import Filter, Hooks, Proceed
from flowneer_async.plugins.builder import F


class RateLimit:
    """At most `calls` in any span of `seconds`, over all runs and steps that share this object.

    A bucket of `calls` tokens: a call takes one, which comes back `seconds` later. (A bucket that fills evenly would
    let nearly twice as many through in the first span.) Those who wait are let through in the order they came; one who
    is cancelled meanwhile takes no token. `clock` gives seconds.
    """

    def __init__(
        self,
        calls: int,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        check_count("calls", calls, 1)
        if not (is_number(seconds) and seconds > 0):
            raise BadOption("seconds", seconds, "it is a number of seconds above 0")
        self._seconds, self._clock, self._sleep = seconds, clock, sleep
        self._taken: deque[float] = deque(maxlen=calls)
        """When the last calls began, the earliest first."""
        self._turn = anyio.Lock(fast_acquire=True)

    async def acquire(self) -> None:
        """Wait for a token, and take it."""
        async with self._turn:
            while (wait := self._wait()) > 0:
                # Whole milliseconds, so that a clock which counts in them gets there.
                await self._sleep(math.ceil(wait * 1000) / 1000)
            self._taken.append(self._clock())

    async def around(self, proceed: Proceed, state: object, ctx: Context) -> None:
        """The middleware: wait for a token, then call the step."""
        await self.acquire()
        await proceed()

    def _wait(self) -> float:
        if len(self._taken) < (self._taken.maxlen or 0):
            return 0.0
        return self._taken[0] + self._seconds - self._clock()


def rate_limit(limit: RateLimit) -> Hooks[object]:
    """Hooks that let every attempt of a step wait for a token of `limit`."""
    return Hooks(wrap_step=limit.around)


class RateLimiting:
    """`flow.with_rate_limit(limit)`, for `FlowBuilder.extend([RateLimiting])`."""

    def with_rate_limit(self: F, limit: RateLimit, filter: Filter | None = None) -> F:
        """The steps that `filter` names are not called more often than `limit` says."""
        return self.add_hooks(rate_limit(limit), filter)
