"""An engine with a crowd of runs at work: its throughput, and how late the event loop is meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

from benchmarks.data import State
from benchmarks.figure import Figure, Pairs, duration
from benchmarks.flows import count, row_of, small_state
from benchmarks.lag import asking, leaving_nothing, quantile
from benchmarks.measure import Scale, by_turns
from benchmarks.steps import STEPS_OF_EACH, on_disk
from flowneer_async import FlowBuilder
from flowneer_async.engine import Engine
from flowneer_stores import SqliteStore

MOST_LAG = 0.05  # seconds

FLOW = row_of(count, STEPS_OF_EACH)


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    ours, peer = Crowd(by_engine), Crowd(by_gather)
    pairs = await by_turns(
        partial(on_disk, partial(ours.run, scale)), partial(on_disk, partial(peer.run, scale)), scale
    )
    name, steps = f"{scale.runs:,} runs × {STEPS_OF_EACH} steps", scale.runs * STEPS_OF_EACH
    yield _each(f"{name}: a step", pairs.each(steps))
    yield _each(f"{name}: processor time of a step", Pairs(ours.cpu[1:], peer.cpu[1:]).each(steps))
    for what, part, most in (("p50", 0.5, None), ("p99", 0.99, MOST_LAG), ("at most", 1.0, None)):
        yield _lag(f"{name}: the loop is late, {what}", quantile(ours.lags, part), quantile(peer.lags, part), most)


def _each(name: str, pairs: Pairs) -> Figure:
    return Figure(name, duration(pairs.our_median), duration(pairs.peer_median), pairs.ratio, spread=pairs.spread)


def _lag(name: str, ours: float, peer: float, most: float | None) -> Figure:
    limit, kept = ("", None) if most is None else (f"≤ {duration(most)}", ours <= most)
    return Figure(name, duration(ours), duration(peer), ours / peer, limit, kept)


async def by_engine(store: SqliteStore, runs: int) -> None:
    """Start them all, and wait for all results."""
    async with Engine(store, [FLOW], concurrency=runs) as engine:
        handles = await asyncio.gather(*[engine.start(FLOW, small_state()) for _ in range(runs)])
        results = await asyncio.gather(*[handle.result() for handle in handles])
    assert all(_is_done(result.state) for result in results)


async def by_gather(store: SqliteStore, runs: int) -> None:
    """Run them side by side, as a program without an engine would."""
    kept: FlowBuilder[State] = FLOW.with_versioned_checkpoint(store)
    results = await asyncio.gather(*[kept.run(small_state()) for _ in range(runs)])
    assert all(_is_done(result.state) for result in results)


def _is_done(state: State) -> bool:
    return bool(state["counter"] == STEPS_OF_EACH)


@dataclass(frozen=True, slots=True)
class Crowd:
    """One of the two ways to run them, and what was seen of each round, the first, which only warms up, included."""

    work: Callable[[SqliteStore, int], Awaitable[None]]
    cpu: list[float] = field(default_factory=list[float])
    lags: list[float] = field(default_factory=list[float])

    async def run(self, scale: Scale, path: Path) -> float:
        """Seconds for all of them; nothing of it is left after that."""
        with leaving_nothing():
            async with SqliteStore(path) as store, asking(self.lags):
                start, used = perf_counter(), process_time()
                await self.work(store, scale.runs)
                self.cpu.append(process_time() - used)
                return perf_counter() - start
        raise AssertionError("what is left behind raises by itself")
