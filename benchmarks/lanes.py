"""Lanes: the items of a batch on SQLite, and how soon lanes begin on a large state."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter

import orjson

from benchmarks.data import State, keyed
from benchmarks.figure import Figure, duration, times
from benchmarks.flows import count, row_of, small_state
from benchmarks.measure import Scale, by_turns, timed
from benchmarks.steps import STEPS_OF_EACH, on_disk, together
from flowneer_async import Context, FlowBuilder, fragment, reducers
from flowneer_async.store import Lease
from flowneer_async.versions import Version
from flowneer_stores import SqliteStore

LANES = 4
CONCURRENCY = 100


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    yield await _batch(scale)
    for is_stored in (False, True):
        yield await _start(is_stored, scale)


# A batch --------------------------------------------------------------------------------------------------------------


async def _batch(scale: Scale) -> Figure:
    """How many times as many items a second as steps of many flows at once, whose step the items do too."""
    batch: FlowBuilder[State] = FlowBuilder("bench")
    batch = batch.batch(
        lambda _: range(scale.many), count, name="batch", concurrency=CONCURRENCY, reducer={"counter": reducers.sum}
    )
    flow = row_of(count, STEPS_OF_EACH)
    pairs = await by_turns(
        partial(on_disk, partial(_items, batch, scale.many)), partial(on_disk, partial(_steps, flow, scale)), scale
    )
    more = pairs.turned()
    name = f"a batch of {scale.many:,} items, {CONCURRENCY} at a time"
    ours, peer = f"{duration(pairs.our_median)} an item", f"{duration(pairs.peer_median)} a step"
    return Figure(name, ours, peer, more.ratio, "≥ 0.5 ×", more.ratio >= 0.5, more.spread)


async def _items(flow: FlowBuilder[State], items: int, path: Path) -> float:
    async with SqliteStore(path) as store:
        kept = flow.with_versioned_checkpoint(store)
        start = perf_counter()
        result = await kept.run(small_state())
        taken = perf_counter() - start
    assert result.state["counter"] == items
    return taken / items


async def _steps(flow: FlowBuilder[State], scale: Scale, path: Path) -> float:
    return await together(flow, scale.flows, path) / (scale.flows * STEPS_OF_EACH)


# How lanes begin ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Clock:
    """When the step before the lanes was over, and when the last of them had read its key."""

    begun: float = 0.0
    read: float = 0.0


class Watched(SqliteStore):
    """Tells a clock when a version is stored: those of the lanes come after all have read."""

    clock: Clock

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        await super().append(lease, versions)
        if not self.clock.read:
            self.clock.begun = perf_counter()


async def _start(is_stored: bool, scale: Scale) -> Figure:
    """From the end of the step before the lanes to the moment when each has read a key of its own."""
    state = keyed(Random(1), scale.megabyte)
    touched = orjson.dumps([state[_key(number)] for number in range(LANES)])
    measure = partial(on_disk, partial(_read_stored, state)) if is_stored else partial(_read, _READERS, state, Clock())

    async def peer() -> float:
        return timed(lambda: orjson.loads(touched))

    pairs = await by_turns(measure, peer, scale)
    where = "on SQLite" if is_stored else "without a store"
    return times(f"{LANES} lanes that read a part of 1 MB each, {where}", pairs, 4)


async def _read_stored(state: State, path: Path) -> float:
    async with Watched(path) as store:
        store.clock = Clock()
        return await _read(_READERS.with_versioned_checkpoint(store), state, store.clock)


async def _read(flow: FlowBuilder[State], state: State, clock: Clock) -> float:
    await flow.run(state, deps=clock)
    return clock.read - clock.begun


async def _begin(_state: State, ctx: Context[Clock]) -> None:
    ctx.deps.begun = perf_counter()


def _reader(key: str) -> FlowBuilder[State]:
    async def read(state: State, ctx: Context[Clock]) -> None:
        state[key]
        ctx.deps.read = perf_counter()

    return fragment(State).then(read)


def _key(number: int) -> str:
    return f"part_{number}"


_READERS: FlowBuilder[State] = (
    FlowBuilder("bench").then(_begin, name="begin").parallel([_reader(_key(number)) for number in range(LANES)])
)
