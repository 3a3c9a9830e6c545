"""How soon a run goes on: after its start, after a signal, after the death of its process."""

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.data import State
from benchmarks.figure import Figure, Pairs, duration, times
from benchmarks.flows import small_state
from benchmarks.measure import Scale, by_turns
from benchmarks.steps import on_disk
from flowneer_async import Context, FlowBuilder
from flowneer_async.engine import Engine, Handle
from flowneer_stores import SqliteStore

POLL = 1.0  # seconds: the engine's own


class Noted:
    """When each run came to its last step; `all` is set when so many have, and `hangs` says that they stay there."""

    def __init__(self, runs: int = 1, hangs: bool = False) -> None:
        self.times: dict[str, float] = {}
        self.all = asyncio.Event()
        self._runs, self.hangs = runs, hangs

    def note(self, run_id: str) -> None:
        self.times[run_id] = perf_counter()
        if len(self.times) == self._runs:
            self.all.set()


async def note(_state: State, ctx: Context[Noted]) -> None:
    ctx.deps.note(ctx.run_id)


async def hang(_state: State, ctx: Context[Noted]) -> None:
    """In the process that is to die this never ends; in others it does at once."""
    if ctx.deps.hangs:
        ctx.deps.note(ctx.run_id)
        await asyncio.Event().wait()


STARTED: FlowBuilder[State] = FlowBuilder[State]("started").then(note)
SIGNALLED: FlowBuilder[State] = FlowBuilder[State]("signalled").wait_for("go").then(note)
RECOVERED: FlowBuilder[State] = FlowBuilder[State]("recovered").then(hang).then(note)
FLOWS = (STARTED, SIGNALLED, RECOVERED)


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    for name, ours, peer in (
        ("from start to the first step", _started, _run),
        ("from a signal to the next step", _signalled, _resumed),
        (f"{scale.flows} runs of a process that was killed, to their next steps", _recovered, _taken),
    ):
        pairs = await by_turns(partial(on_disk, partial(ours, scale)), partial(on_disk, partial(peer, scale)), scale)
        yield times(name, pairs)
    found = Pairs([await on_disk(partial(_found, scale)) for _ in range(scale.rounds)], [POLL] * scale.rounds)
    name = "the same of an engine that is at work, beside its poll"
    kept = found.our_median <= 2 * POLL
    yield Figure(name, duration(found.our_median), duration(POLL), found.ratio, "≤ 2 ×", kept, found.spread)


@asynccontextmanager
async def _engine(noted: Noted, path: Path) -> AsyncGenerator[Engine]:
    async with SqliteStore(path) as store, Engine(store, FLOWS, deps=noted, concurrency=1_000, poll=POLL) as engine:
        yield engine


# After its start ------------------------------------------------------------------------------------------------------


async def _started(scale: Scale, path: Path) -> float:
    """The median of several, one after the other."""
    taken: list[float] = []
    noted = Noted()
    async with _engine(noted, path) as engine:
        for _ in range(scale.flows):
            start = perf_counter()
            handle = await engine.start(STARTED, small_state())
            await handle.result()
            taken.append(noted.times[handle.run_id] - start)
    return median(taken)


async def _run(scale: Scale, path: Path) -> float:
    """Without an engine, in the foreground."""
    taken: list[float] = []
    noted = Noted()
    async with SqliteStore(path) as store:
        flow = STARTED.with_versioned_checkpoint(store)
        for _ in range(scale.flows):
            start = perf_counter()
            result = await flow.run(small_state(), deps=noted)
            taken.append(noted.times[result.run_id] - start)
    return median(taken)


# After a signal -------------------------------------------------------------------------------------------------------


async def _signalled(scale: Scale, path: Path) -> float:
    taken: list[float] = []
    noted = Noted()
    async with _engine(noted, path) as engine:
        handles = [await engine.start(SIGNALLED, small_state()) for _ in range(scale.flows)]
        for handle in handles:
            await _waits(handle)
        for handle in handles:
            start = perf_counter()
            await handle.signal("go")
            await handle.result()
            taken.append(noted.times[handle.run_id] - start)
    return median(taken)


async def _waits(handle: Handle[State]) -> None:
    async with aclosing(handle.events()) as events:
        async for event in events:
            if event.kind == "waiting":
                return


async def _resumed(scale: Scale, path: Path) -> float:
    """Without an engine: whoever sends the signal resumes the run himself."""
    taken: list[float] = []
    noted = Noted()
    async with SqliteStore(path) as store:
        flow = SIGNALLED.with_versioned_checkpoint(store)
        waiting = [await flow.run(small_state(), deps=noted) for _ in range(scale.flows)]
        for run_id in [result.run_id for result in waiting]:
            start = perf_counter()
            await flow.signal(run_id, "go")
            await flow.run(run_id=run_id, deps=noted)
            taken.append(noted.times[run_id] - start)
    return median(taken)


# After the death of its process ---------------------------------------------------------------------------------------


async def _recovered(scale: Scale, path: Path) -> float:
    """From the moment when an engine is entered."""
    with _owned_by_another(scale.flows, path):
        pass
    noted = Noted(scale.flows)
    start = perf_counter()
    async with _engine(noted, path):
        await noted.all.wait()
    return max(noted.times.values()) - start


async def _taken(scale: Scale, path: Path) -> float:
    """Without an engine: somebody who knows which runs they were resumes all at once."""
    with _owned_by_another(scale.flows, path):
        pass
    noted = Noted(scale.flows)
    start = perf_counter()
    async with SqliteStore(path) as store:
        flow = RECOVERED.with_versioned_checkpoint(store)
        await asyncio.gather(*[flow.run(run_id=_name(number), deps=noted) for number in range(scale.flows)])
    return max(noted.times.values()) - start


async def _found(scale: Scale, path: Path) -> float:
    """From the death, for an engine that has been at work before: it looks for such runs every now and then."""
    noted = Noted(scale.flows)
    with _owned_by_another(scale.flows, path) as owner:
        async with _engine(noted, path):
            await asyncio.sleep(0.1)
            owner.kill()
            start = perf_counter()
            await noted.all.wait()
    return max(noted.times.values()) - start


@contextmanager
def _owned_by_another(runs: int, path: Path) -> Generator["_Owner"]:
    """So many runs in a process that is in the middle of their first steps, and is killed at the end of the block."""
    owner = _Owner(runs, path)
    try:
        yield owner
    finally:
        owner.kill()


class _Owner:
    """A process that works on runs, and never comes to their ends."""

    def __init__(self, runs: int, path: Path) -> None:
        context = get_context("spawn")
        here, there = context.Pipe()
        self._process = context.Process(target=_own, args=(runs, path, there))
        self._process.start()
        here.recv()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL, self._process.exitcode


def _own(runs: int, path: Path, there: Connection) -> None:
    asyncio.run(_work_on(runs, path, there))


async def _work_on(runs: int, path: Path, there: Connection) -> None:
    noted = Noted(runs, hangs=True)
    async with _engine(noted, path) as engine:
        await asyncio.gather(*[engine.start(RECOVERED, small_state(), run_id=_name(each)) for each in range(runs)])
        await noted.all.wait()
        there.send(None)
        await asyncio.Event().wait()


def _name(number: int) -> str:
    return f"run-{number}"
