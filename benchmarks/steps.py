"""Steps on SQLite, under synchronous=FULL, beside bare inserts of the same bytes."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TypeVar

from benchmarks import bare
from benchmarks.data import State
from benchmarks.figure import Figure, Pairs, duration, times
from benchmarks.flows import count, row_of, small_state
from benchmarks.measure import Scale, by_turns
from flowneer_async import FlowBuilder
from flowneer_stores import SqliteStore

T = TypeVar("T")

STEPS_OF_EACH = 20
PAGE = 8192


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    one = await _measured(row_of(count, scale.steps), 1, scale)
    yield times(f"one flow of {scale.steps:,} small steps", one, 1.25)
    yield await _disk(scale)
    many = await _measured(row_of(count, STEPS_OF_EACH), scale.flows, scale)
    yield _throughput(f"{scale.flows} flows × {STEPS_OF_EACH} steps at once", many, scale.flows * STEPS_OF_EACH)


async def _measured(flow: FlowBuilder[State], runs: int, scale: Scale) -> Pairs:
    # As many inserts as steps: the root is left out.
    sizes = (await on_disk(partial(lengths, flow)))[1:]
    ours, peer = partial(together, flow, runs), partial(_bare, sizes, runs)
    return await by_turns(partial(on_disk, ours), partial(on_disk, peer), scale)


def _throughput(name: str, pairs: Pairs, steps: int) -> Figure:
    """How many times as many steps a second."""
    more = pairs.turned()
    ours, peer = (f"{duration(each / steps)} a step" for each in (pairs.our_median, pairs.peer_median))
    return Figure(name, ours, peer, more.ratio, "≥ 10 ×", more.ratio >= 10, more.spread)


async def _disk(scale: Scale) -> Figure:
    """What the bare inserts themselves wait for: tells how much of the ratios is the disk's."""
    pairs = await by_turns(
        lambda: on_disk(partial(_bare, [100] * scale.steps, 1)),
        lambda: on_disk(partial(_synced, scale.steps)),
        scale,
    )
    ours, peer = (f"{duration(each / scale.steps)} each" for each in (pairs.our_median, pairs.peer_median))
    return Figure("a bare insert, beside 8 KB written and synced", ours, peer, pairs.ratio, spread=pairs.spread)


async def on_disk(measure: Callable[[Path], Awaitable[T]]) -> T:
    """What is measured on a file of its own, where temporary files are kept."""
    with TemporaryDirectory(prefix="bench-") as folder:
        return await measure(Path(folder, "bench.db"))


async def together(flow: FlowBuilder[State], runs: int, path: Path) -> float:
    """So many runs at once."""
    async with SqliteStore(path) as store:
        kept = flow.with_versioned_checkpoint(store)
        start = perf_counter()
        await asyncio.gather(*[kept.run(small_state()) for _ in range(runs)])
        return perf_counter() - start


async def _bare(sizes: list[int], runs: int, path: Path) -> float:
    async with bare.opened(path) as db:
        start = perf_counter()
        await asyncio.gather(*[bare.insert(db, run, sizes) for run in range(runs)])
        return perf_counter() - start


async def _synced(count: int, path: Path) -> float:
    """The disk alone: pages written to a file that has them already, each synced."""
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.pwrite(file, bytes(count * PAGE), 0)
        os.fsync(file)
        start = perf_counter()
        for page in range(count):
            os.pwrite(file, b"x" * PAGE, page * PAGE)
            os.fdatasync(file)
        return perf_counter() - start
    finally:
        os.close(file)


async def lengths(flow: FlowBuilder[State], path: Path) -> list[int]:
    """How many bytes each version of a run takes."""
    async with SqliteStore(path) as store:
        await flow.with_versioned_checkpoint(store).run(small_state())
    return await bare.row_lengths(path)
