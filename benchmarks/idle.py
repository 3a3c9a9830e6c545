"""What an engine takes while it has nothing to do: nothing is there, or a great many runs sleep."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

from benchmarks.data import State
from benchmarks.figure import MB, Figure, duration, size
from benchmarks.flows import count, small_state
from benchmarks.measure import Scale, apart
from flowneer_async import FlowBuilder
from flowneer_async.engine import Engine
from flowneer_stores import SqliteStore

DAY = 86_400  # seconds
TOGETHER = 1_000
MORE = MB
"""So many bytes more may a great many take: that of a look, and no more with each of them."""

FLOW: FlowBuilder[State] = FlowBuilder[State]("asleep").then(count)


@dataclass(frozen=True, slots=True)
class Case:
    path: Path
    sleeping: int
    seconds: float
    """For so long its processor time is taken; and as long, what it holds in memory."""


@dataclass(frozen=True, slots=True)
class Taken:
    cpu: float
    """Seconds of processor time in a second."""
    held: int
    """Bytes, at the peak."""


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    with TemporaryDirectory(prefix="bench-") as folder:
        seconds = max(5 * scale.seconds, 0.1)
        cases = [Case(Path(folder, f"{number}.db"), number, seconds) for number in (0, scale.sleeping)]
        # First all runs, in other processes: the figures are of engines that find them.
        apart(put_to_sleep, cases)
        none, many = apart(measured, cases, each_in_its_own=True)
    name = f"{scale.sleeping:,} runs asleep, beside none"
    yield Figure(f"{name}: processor time a second", duration(many.cpu), duration(none.cpu), many.cpu / none.cpu)
    kept = many.held <= none.held + MORE
    yield Figure(f"{name}: memory", size(many.held), size(none.held), many.held / none.held, f"+ {size(MORE)}", kept)


def put_to_sleep(case: Case) -> None:
    asyncio.run(_sleep(case))


async def _sleep(case: Case) -> None:
    async with SqliteStore(case.path) as store, Engine(store, [FLOW]) as engine:
        for first in range(0, case.sleeping, TOGETHER):
            number = min(TOGETHER, case.sleeping - first)
            await asyncio.gather(*[engine.start(FLOW, small_state(), delay=DAY) for _ in range(number)])


def measured(case: Case) -> Taken:
    """In a process in which nothing else has been done."""
    return asyncio.run(_measured(case))


async def _measured(case: Case) -> Taken:
    async with SqliteStore(case.path) as store, Engine(store, [FLOW]):
        await asyncio.sleep(case.seconds / 5)
        start = process_time()
        await asyncio.sleep(case.seconds)
        cpu = (process_time() - start) / case.seconds
    gc.collect()
    tracemalloc.start()
    async with SqliteStore(case.path) as store, Engine(store, [FLOW]):
        await asyncio.sleep(case.seconds)
    return Taken(cpu, tracemalloc.get_traced_memory()[1])
