"""What a run holds in memory, and what is left of it: each run in a fresh process."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import orjson

from benchmarks.data import State, keyed
from benchmarks.figure import KB, Figure, size
from benchmarks.flows import change, row_of, small_state
from benchmarks.measure import Scale, apart
from flowneer_async import FlowBuilder
from flowneer_stores import SqliteStore

STATE = 100 * KB
# Room for what does not depend on the number of steps: caches, a batch of rows, a free list.
CONSTANT = 64 * KB


@dataclass(frozen=True, slots=True)
class Case:
    stored: bool
    steps: int


@dataclass(slots=True)
class Held:
    """Bytes beside the state itself."""

    json: int
    """The state as one text."""
    opening: int = 0
    """At the peak, before the first step."""
    running: int = 0
    """At the peak, from the first step on."""
    between: int = 0
    """Between two steps, near the end."""
    left: int = 0
    """After the run."""


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    cases = [Case(stored, steps) for stored in (False, True) for steps in (scale.steps, scale.many)]
    plain, plain_long, stored, stored_long = apart(measured, cases, each_in_its_own=True)
    for name, short, long in (("without a store", plain, plain_long), ("on SQLite", stored, stored_long)):
        run = f"{scale.many:,} steps {name}"
        yield _same(f"{run}: peak", long.running, short.running)
        yield _same(f"{run}: left after it", long.left, short.left)
    run = f"{scale.many:,} steps on SQLite"
    yield _one_copy(f"{run}: between steps", stored_long)
    # The names of the steps are stored with a run: those grow with the flow.
    yield replace(_same(f"{run}: peak while it begins", stored_long.opening, stored.opening), limit="", kept=None)


def _same(name: str, long: int, short: int) -> Figure:
    """As much as with fewer steps, but for the constant."""
    return Figure(name, size(long), size(short), long / max(short, 1), "+ 64 KB", long <= short + CONSTANT)


def _one_copy(name: str, held: Held) -> Figure:
    kept = held.between <= held.json + CONSTANT
    return Figure(name, size(held.between), f"{size(held.json)} of JSON", held.between / held.json, "+ 64 KB", kept)


def measured(case: Case) -> Held:
    """Run it, in this process."""
    flow = row_of(change, case.steps)
    with TemporaryDirectory(prefix="bench-") as folder:
        return asyncio.run(_run(flow, case, Path(folder, "bench.db")))


async def _run(flow: FlowBuilder[State], case: Case, path: Path) -> Held:
    async with AsyncExitStack() as stack:
        if case.stored:
            flow = flow.with_versioned_checkpoint(await stack.enter_async_context(SqliteStore(path)))
        # What the flow, the store and Python keep after any first run is not of this one.
        await flow.run(small_state(), deps=_nothing)
        return await _traced(flow, keyed(Random(1), STATE), case.steps)


async def _traced(flow: FlowBuilder[State], state: State, steps: int) -> Held:
    """The state was there before: nothing of it is counted."""
    held = Held(len(orjson.dumps(state)))

    def do_and_look(state: State) -> None:
        state["counter"] += 1
        if state["counter"] == 1:
            held.opening = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
        elif state["counter"] == steps:
            held.between = _in_use()

    gc.collect()
    tracemalloc.start()
    result = await flow.run(state, deps=do_and_look)
    held.running = tracemalloc.get_traced_memory()[1]
    held.left = _in_use()
    assert result.state is state
    return held


def _nothing(_state: State) -> None:
    pass


def _in_use() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
