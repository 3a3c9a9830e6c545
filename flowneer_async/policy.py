"""When to try again, and the outside world a run depends on: all pure, all passed in."""

import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio

from flowneer_async.errors import BadOption


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off: `first` seconds, then `factor` times as long each time, never more than `most`.

    With `jitter` (0 to 1) that share of each wait is drawn at random, so that many runs which failed together do not
    come back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
    """

    first: float = 0.1
    factor: float = 2.0
    most: float = 60.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        if not (self.first >= 0 and self.factor >= 1 and self.most >= 0 and 0 <= self.jitter <= 1):
            raise BadOption("delay", self, "first and most are 0 or more, factor at least 1, jitter between 0 and 1")

    def wait(self, attempt: int, draw: Callable[[], float]) -> float:
        """Seconds to wait after attempt number `attempt` (from 1); `draw` gives a number between 0 and 1."""
        try:
            whole = min(self.most, self.first * self.factor ** (attempt - 1))
        except OverflowError:
            whole = self.most
        return whole * (1 - self.jitter * draw())


def wait_after(attempt: int, delay: float | Backoff, draw: Callable[[], float]) -> float:
    """Seconds to wait after attempt number `attempt` (from 1) of a step with option `delay`."""
    return delay.wait(attempt, draw) if isinstance(delay, Backoff) else delay


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Where Unix time begins."""


def unix_ms() -> int:
    """The time now, in ms since 1970."""
    return time.time_ns() // 1_000_000


def _new_run_id() -> str:
    # Not by the random module: where a program seeds that, for its own sake, ids would come again.
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class World:
    """What a run takes from outside: replace it to test without waiting (`flowneer_async.testing.FakeWorld`)."""

    now: Callable[[], int] = unix_ms
    """Unix time in ms."""
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    draw: Callable[[], float] = random.random
    """A number between 0 and 1."""
    new_run_id: Callable[[], str] = _new_run_id
