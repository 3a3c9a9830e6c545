"""An engine with a crowd of runs at work: its throughput, and how late the event loop is meanwhile."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, TypeVar

from benchmarks.data import State
from benchmarks.figure import Figure, Pairs, duration
from benchmarks.flows import count, row_of, small_state
from benchmarks.lag import Lags, asking, leaving_nothing, quantile
from benchmarks.measure import Scale, by_turns
from benchmarks.steps import STEPS_OF_EACH, on_disk
from flowneer_async import FlowBuilder
from flowneer_async.engine import Engine
from flowneer_stores import SqliteStore

T = TypeVar("T")

MOST_LAG = 0.05  # seconds
AT_ONCE = 50
"""So many are started before the loop has its next turn: what is asked of it all at once is late by our own doing."""

FLOW = row_of(count, STEPS_OF_EACH)


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    ours, peer = Crowd(by_engine), Crowd(by_gather)
    pairs = await _by_turns(ours, peer, scale)
    name, steps = f"{scale.runs:,} runs × {STEPS_OF_EACH} steps", scale.runs * STEPS_OF_EACH
    yield _each(f"{name}: a step", pairs.each(steps))
    yield _each(f"{name}: processor time of a step", Pairs(ours.cpu[1:], peer.cpu[1:]).each(steps))
    late = f"{name}: the loop is late"
    yield _lag(f"{late}, p50", ours.lags.late, peer.lags.late, 0.5)
    yield _lag(f"{late}, p99", ours.lags.late, peer.lags.late, 0.99, MOST_LAG)
    yield _lag(f"{late}, p99, by its own work", ours.lags.own, peer.lags.own, 0.99)
    yield _lag(f"{late}, at most", ours.lags.late, peer.lags.late, 1.0)
    ours, peer = Crowd(by_engine), Crowd(by_gather)
    with _frozen():
        await _by_turns(ours, peer, scale)
    yield _lag(f"{late}, p99, after gc.freeze()", ours.lags.late, peer.lags.late, 0.99, MOST_LAG)


async def _by_turns(ours: "Crowd", peer: "Crowd", scale: Scale) -> Pairs:
    return await by_turns(partial(on_disk, partial(ours.run, scale)), partial(on_disk, partial(peer.run, scale)), scale)


@contextmanager
def _frozen() -> Generator[None]:
    """What is there already, all modules and their functions, is looked at by no collection of garbage."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _each(name: str, pairs: Pairs) -> Figure:
    return Figure(name, duration(pairs.our_median), duration(pairs.peer_median), pairs.ratio, spread=pairs.spread)


def _lag(name: str, ours: Sequence[float], peer: Sequence[float], part: float, most: float | None = None) -> Figure:
    """The lag that this part of all answers did not exceed."""
    our, its = quantile(ours, part), quantile(peer, part)
    limit, kept = ("", None) if most is None else (f"≤ {duration(most)}", our <= most)
    return Figure(name, duration(our), duration(its), our / its, limit, kept)


async def by_engine(store: SqliteStore, runs: int) -> None:
    """Start them all, and wait for all results."""
    async with Engine(store, [FLOW], concurrency=runs) as engine:
        handles = await _by_and_by(lambda: engine.start(FLOW, small_state()), runs)
        results = await asyncio.gather(*[handle.result() for handle in handles])
    assert all(_is_done(result.state) for result in results)


async def by_gather(store: SqliteStore, runs: int) -> None:
    """Run them side by side, as a program without an engine would."""
    kept: FlowBuilder[State] = FLOW.with_versioned_checkpoint(store)
    results = await _by_and_by(lambda: kept.run(small_state()), runs)
    assert all(_is_done(result.state) for result in results)


async def _by_and_by(begin: Callable[[], Coroutine[Any, Any, T]], runs: int) -> list[T]:
    """Begin them all, and wait for what each gives."""
    tasks: list[asyncio.Task[T]] = []
    for number in range(runs):
        tasks.append(asyncio.create_task(begin()))
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
    return await asyncio.gather(*tasks)


def _is_done(state: State) -> bool:
    return bool(state["counter"] == STEPS_OF_EACH)


@dataclass(frozen=True, slots=True)
class Crowd:
    """One of the two ways to run them, and what was seen of each round, the first, which only warms up, included."""

    work: Callable[[SqliteStore, int], Awaitable[None]]
    cpu: list[float] = field(default_factory=list[float])
    lags: Lags = field(default_factory=Lags)

    async def run(self, scale: Scale, path: Path) -> float:
        """Seconds for all of them; nothing of it is left after that."""
        with leaving_nothing():
            async with SqliteStore(path) as store, asking(self.lags):
                start, used = perf_counter(), process_time()
                await self.work(store, scale.runs)
                self.cpu.append(process_time() - used)
                return perf_counter() - start
        raise AssertionError("what is left behind raises by itself")
