"""How late the event loop is, and what a piece of work leaves behind."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter

PAUSE = 0.005  # seconds between two questions

_LONGEST = 5.0  # seconds that a connection's thread may take to end


@asynccontextmanager
async def asking(lags: list[float]) -> AsyncGenerator[None]:
    """Ask the loop again and again, as long as the block, how many seconds it is late; once at least."""
    is_over = False

    async def ask() -> None:
        while not is_over:
            start = perf_counter()
            await asyncio.sleep(PAUSE)
            lags.append(perf_counter() - start - PAUSE)

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
