"""Several engines on one store, started, stopped and killed at random: each of their runs ends as it should."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async import Context, RunFilter, VersionStore, fragment
from flowneer_async.engine import Engine, Limits
from flowneer_async.errors import FlowneerError
from flowneer_async.testing import CrashingStore
from flowneer_async.testing.crashes import Crash
from flowneer_stores import MemoryStore, SqliteStore
from tests.support.engine_life import Flow, State, flow_of, limited, owned
from tests.support.engines import Clock

PROCESSES = 3
MOST = 2  # runs of one limited flow at work at the same time
FLOWS = ("steps", "lanes", "patient", "sleepy", "bad", "parent")
Operation = tuple[str, int, int, int]

operations: st.SearchStrategy[list[Operation]] = st.lists(
    st.tuples(
        st.sampled_from(("start", "start", "start", "signal", "cancel", "resume", "stop", "crash", "move", "move")),
        st.integers(0, PROCESSES - 1),
        st.integers(0, 11),
        st.integers(0, 40),
    ),
    max_size=40,
)
"""What is done, by which process, to which run, and how many turns of the loop, or seconds, later comes the next."""


class Place:
    """What all processes share: the store, the clock, and the count of who is at work."""

    def __init__(self, store: VersionStore, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.alive: list[Process] = []
        self.most = 0

    @contextmanager
    def at_work(self, process: "Process") -> Iterator[None]:
        process.at_work += 1
        # What a dead process was at counts no more, though its tasks do not know yet.
        self.most = max(self.most, sum(each.at_work for each in self.alive))
        try:
            yield
        finally:
            process.at_work -= 1


class Process:
    """An engine in a process of its own, as far as the store can tell."""

    def __init__(self, place: Place) -> None:
        self.place, self.store, self.at_work = place, CrashingStore(place.store), 0
        self.ready, self.end = anyio.Event(), anyio.Event()
        self.engine = Engine(
            self.store,
            flows(),
            deps=self,
            concurrency=4,
            limits={"steps": Limits(concurrency=MOST)},
            grace=0,
            world=place.clock,
        )
        place.alive.append(self)
        self.task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        with suppress(Crash):
            try:
                async with self.engine:
                    self.ready.set()
                    await self.end.wait()
            except BaseExceptionGroup as group:
                if not self.store.crashed:
                    raise
                _, rest = group.split((Crash, FlowneerError, asyncio.CancelledError))
                if rest is not None:
                    raise rest from None

    async def leave(self) -> None:
        """End in good order."""
        self.place.alive.remove(self)
        self.end.set()
        await self.task

    async def crash(self) -> None:
        """Die: nothing of it reaches the store any more."""
        self.place.alive.remove(self)
        self.store.crashed = True
        self.task.cancel()
        await asyncio.wait({self.task})
        await self.store.die()  # what it owns is free when nothing of it is on its way to the store any more
        if not self.task.cancelled():
            self.task.result()


async def step(state: State, ctx: Context[Process]) -> None:
    if ctx.deps.store.crashed:
        raise Crash
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    state[ctx.step] = True


async def counted(state: State, ctx: Context[Process]) -> None:
    with ctx.deps.place.at_work(ctx.deps):
        await step(state, ctx)


async def fail(state: State) -> None:
    raise OSError


async def call(state: State, ctx: Context[Process]) -> None:
    state["child"] = await ctx.deps.engine.call(ctx, child(), {})


def child() -> Flow:
    return flow_of("child").then(step, name="a").sleep(3, name="nap").then(step, name="b")


def flows() -> Sequence[Flow]:
    steps = flow_of("steps")
    for name in "abc":
        steps = steps.then(counted, name=name)
    two = fragment().then(step, name="x").then(step, name="y")
    lanes: Any = flow_of("lanes").batch(lambda _: [1, 2, 3], two, name="items", concurrency=2).then(step, name="last")
    patient = flow_of("patient").then(step, name="a").wait_for("word", timeout=60).then(step, name="b")
    sleepy = flow_of("sleepy").sleep(5, name="nap").then(step, name="a", retries=1)
    return steps, lanes, patient, sleepy, flow_of("bad").then(step, name="a").then(fail), parent(), child()


def parent() -> Flow:
    return flow_of("parent").then(call).then(step, name="after")


class Chaos:
    """Does what was drawn, and remembers what was promised."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.processes = [Process(place) for _ in range(PROCESSES)]
        self.accepted, self.cancelled = set[str](), set[str]()

    async def do(self, operation: Operation) -> None:
        what, number, run, more = operation
        process, run_id = self.processes[number], f"{FLOWS[run % len(FLOWS)]}{run}"
        await process.ready.wait()
        if what == "move":
            self.place.clock.move(more / 2)
        elif what in ("stop", "crash"):
            await (process.leave if what == "stop" else process.crash)()
            self.processes[number] = Process(self.place)
        else:
            with suppress(FlowneerError):  # such as UnknownRun, RunBusy, or RunOver
                await getattr(self, f"_{what}")(process.engine, run_id)
        for _ in range(more):
            await anyio.lowlevel.checkpoint()

    async def _start(self, engine: Engine, run_id: str) -> None:
        await engine.start(run_id.rstrip("0123456789"), {}, run_id=run_id)
        self.accepted.add(run_id)

    async def _signal(self, engine: Engine, run_id: str) -> None:
        await engine.signal(run_id, "word")

    async def _cancel(self, engine: Engine, run_id: str) -> None:
        self.cancelled.add(run_id)
        await engine.cancel(run_id)

    async def _resume(self, engine: Engine, run_id: str) -> None:
        await engine.resume(run_id)

    async def to_the_end(self) -> None:
        """Nobody disturbs the processes any more, until all is over; then they are left."""
        for _ in range(2000):
            for _ in range(60):
                await anyio.lowlevel.checkpoint()
            counts = await self.place.store.count(RunFilter(frozenset(["running", "waiting"])))
            if not counts:
                break
            self.place.clock.move(1)
        for process in self.processes:
            await process.leave()

    async def check(self) -> None:
        store = self.place.store
        assert self.place.most <= MOST
        assert await owned(store) == 0
        for run_id in self.accepted:
            run = await store.read(run_id)
            versions = await store.versions(run_id, 1)
            made = Counter(version.path for version in versions if not version.path.rpartition("/")[2].startswith("@"))
            assert set(made.values()) <= {1}, made
            assert run.status in self._ends(run_id), run
            if run.status == "completed":
                assert made.keys() >= _STEPS[run.flow]

    def _ends(self, run_id: str) -> set[str]:
        """How a run may have ended; one that waits is not always told in time.

        A parent that is resumed after it was cancelled finds its child cancelled, too.
        """
        name, ends = run_id.rstrip("0123456789"), {"completed"}
        if name in ("bad", "patient"):
            ends = {"failed"} if name == "bad" else {"completed", "failed"}
        if run_id in self.cancelled:
            ends |= {"cancelled", "failed"} if name == "parent" else {"cancelled"}
        return ends


_STEPS = {
    "steps": {"a", "b", "c"},
    "lanes": {f"items[{number}]/{name}" for number in range(3) for name in "xy"} | {"items", "last"},
    "patient": {"a", "word", "b"},
    "sleepy": {"nap", "a"},
    "parent": {"call", "after"},
}


@asynccontextmanager
async def in_memory(clock: Clock) -> AsyncIterator[VersionStore]:
    yield MemoryStore(now=clock.now)


async def survive(store_in: Callable[[Clock], Any], drawn: Sequence[Operation]) -> None:
    clock = Clock()
    async with limited(60), store_in(clock) as store:
        place = Place(store, clock)
        chaos = Chaos(place)
        for operation in drawn:
            await chaos.do(operation)
        await chaos.to_the_end()
        await chaos.check()


@settings(max_examples=40, deadline=None)
@given(drawn=operations)
async def test_whatever_becomes_of_the_processes_each_run_comes_to_its_end_once(drawn: list[Operation]) -> None:
    await survive(in_memory, drawn)


@pytest.mark.torture
@settings(max_examples=100, deadline=None)
@given(drawn=operations)
async def test_whatever_becomes_of_the_processes_each_run_in_a_file_comes_to_its_end_once(
    drawn: list[Operation],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await survive(lambda clock: SqliteStore(Path(folder) / "runs.db", now=clock.now, lease=1e9), drawn)
