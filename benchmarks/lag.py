"""How late the event loop is, and what a piece of work leaves behind."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import perf_counter, thread_time

PAUSE = 0.005  # seconds between two questions

_LONGEST = 5.0  # seconds that a connection's thread may take to end


@dataclass(frozen=True, slots=True)
class Lags:
    """How late the loop was each time that it was asked, in seconds."""

    late: list[float] = field(default_factory=list[float])
    own: list[float] = field(default_factory=list[float])
    """As much of it as the loop's own thread was at work: not what it waited for a processor, or for another thread."""


@asynccontextmanager
async def asking(lags: Lags) -> AsyncGenerator[None]:
    """Ask the loop again and again, as long as the block, how late it is; once at least."""
    is_over = False

    async def ask() -> None:
        while not is_over:
            start, used = perf_counter(), thread_time()
            await asyncio.sleep(PAUSE)
            late = perf_counter() - start - PAUSE
            lags.late.append(late)
            lags.own.append(min(late, thread_time() - used))

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        is_over = True
        await task


def quantile(values: Sequence[float], part: float) -> float:
    """The value that this part of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


@contextmanager
def leaving_nothing() -> Generator[None]:
    """Asserts that the block leaves no task, no descriptor and no thread behind; a connection has both of the last."""
    tasks, threads, descriptors = asyncio.all_tasks(), set(threading.enumerate()), _descriptors()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(_LONGEST)
        assert not thread.is_alive(), thread
    assert asyncio.all_tasks() <= tasks, asyncio.all_tasks() - tasks
    assert _descriptors() <= descriptors, (_descriptors(), descriptors)


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))
