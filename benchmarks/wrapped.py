"""What stores around a store cost, and how fast a store is verified."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

import aiosqlite

from benchmarks.data import State
from benchmarks.figure import Figure, Pairs, times
from benchmarks.flows import count, row_of, small_state
from benchmarks.measure import Scale, by_turns
from benchmarks.steps import STEPS_OF_EACH, on_disk
from flowneer_async import FlowBuilder
from flowneer_stores import EncryptedStore, LimitedStore, SignedStore, SqliteStore
from flowneer_stores.methods import Methods

Wrap: TypeAlias = Callable[[SqliteStore], Methods]

KEY = secrets.token_bytes(32)
WRAPPERS: dict[str, tuple[Wrap, float | None]] = {
    "encrypted": (lambda store: EncryptedStore(store, {"key": KEY}), 1.3),
    "signed": (lambda store: SignedStore(store, KEY), None),
    "limited": (LimitedStore, None),
}
ENOUGH = 50_000
"""Versions a second that are to be verified at least."""


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    for name, (wrap, most) in WRAPPERS.items():
        one = await _pairs(row_of(count, scale.steps), 1, wrap, scale)
        yield times(f"{name}: one flow of {scale.steps:,} small steps", one, most)
        many = await _pairs(row_of(count, STEPS_OF_EACH), scale.flows, wrap, scale)
        yield times(f"{name}: {scale.flows} flows × {STEPS_OF_EACH} steps at once", many, most)
    yield await on_disk(partial(_many_runs, scale))
    yield await on_disk(partial(_long_run, scale))


async def _pairs(flow: FlowBuilder[State], runs: int, wrap: Wrap, scale: Scale) -> Pairs:
    ours = partial(_together, flow, runs, wrap)
    peer = partial(_together, flow, runs, lambda store: store)
    return await by_turns(partial(on_disk, ours), partial(on_disk, peer), scale)


async def _together(flow: FlowBuilder[State], runs: int, wrap: Wrap, path: Path) -> float:
    async with SqliteStore(path) as store:
        kept = flow.with_versioned_checkpoint(wrap(store))
        start = perf_counter()
        await asyncio.gather(*[kept.run(small_state()) for _ in range(runs)])
        return perf_counter() - start


async def _many_runs(scale: Scale, path: Path) -> Figure:
    runs, flow = scale.many // 100, row_of(count, 99)
    async with SqliteStore(path) as store:
        kept = flow.with_versioned_checkpoint(store, durability="async")
        await asyncio.gather(*[kept.run(small_state()) for _ in range(runs)])
        return await _verified(f"verify {runs:,} runs × 100 versions", store, path, scale)


async def _long_run(scale: Scale, path: Path) -> Figure:
    async with SqliteStore(path) as store:
        await row_of(count, scale.many - 1).with_versioned_checkpoint(store, durability="async").run(small_state())
        return await _verified(f"verify one run of {scale.many:,} versions", store, path, scale)


async def _verified(name: str, store: SqliteStore, path: Path, scale: Scale) -> Figure:
    """Beside reading the same rows, in one go, through aiosqlite."""
    pairs = (await by_turns(partial(_timed, store.verify), partial(_read, path), scale)).each(scale.many)
    figure = times(name, pairs)
    rate = 1 / pairs.our_median
    return Figure(
        figure.name,
        f"{rate:,.0f} a second",
        f"{1 / pairs.peer_median:,.0f} a second",
        figure.ratio,
        f"≥ {ENOUGH:,} a second",
        rate >= ENOUGH,
        figure.spread,
    )


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    start = perf_counter()
    await work()
    return perf_counter() - start


async def _read(path: Path) -> float:
    async with aiosqlite.connect(path) as db:
        start = perf_counter()
        await db.execute_fetchall("SELECT * FROM flowneer_versions ORDER BY run, seq")
        return perf_counter() - start
