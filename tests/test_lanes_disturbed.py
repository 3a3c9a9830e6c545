"""Lanes that are cancelled at every point, and whose store fails: no acknowledged step is lost, and the run goes on."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowneer_async import Context, FlowError, StoreFull, Version, VersionStore
from flowneer_stores import MemoryStore
from tests.support.chains import stored_versions
from tests.support.lanes import nested, work, works
from tests.support.stores import KINDS, Guarded, opened
from tests.support.traced import Flow, State, new, piece

every_durability = pytest.mark.parametrize("durability", ["sync", "async", "exit"])
Work = Coroutine[Any, Any, object]


def disturbed() -> Flow:
    """Lanes of several steps, lanes inside of one, and items."""
    inner = works("c").parallel([works("d"), works("e", "f")], name="in")
    flow = works("a").parallel([inner, works("g", "h")], name="out")
    return flow.batch(lambda state: range(2), works("i", "j"), name="each", concurrency=2).then(work, name="end")


LINES = (
    ("a", "out[1]/g", "out[1]/h", "each[0]/i", "each[0]/j", "end"),
    ("a", "out[0]/c", "out[0]/in[0]/d", "each[1]/i", "each[1]/j", "end"),
    ("a", "out[0]/c", "out[0]/in[1]/e", "out[0]/in[1]/f", "each[1]/i"),
)
"""The steps that come one after the other."""

ENDS = {"beginning": ("cancelled", "running"), "middle": ("cancelled",), "end": ("cancelled", "completed")}
"""How a cancelled run may stand, by how far it came."""


def acknowledged(begun: Sequence[str]) -> set[str]:
    """The steps that were done and kept, for those after them have begun."""
    return {step for line in LINES for step, after in pairwise(line) if after in begun}


# Cancelled ------------------------------------------------------------------------------------------------------------


async def take_turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def as_task(work: Work, turns: int, times: int) -> bool:
    """Cancel a task after so many turns, and some times more while it ends; was it cancelled?"""
    task = asyncio.ensure_future(work)
    for _ in range(times):
        await take_turns(turns)
        task.cancel()
        turns = 2
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
    return task.cancelled()


async def as_scope(work: Work, turns: int, times: int) -> bool:
    """The same by a scope around it; nothing else comes out of that."""
    scope = anyio.CancelScope()

    async def scoped() -> None:
        with scope:
            await work

    task = asyncio.ensure_future(scoped())
    for _ in range(times):
        await take_turns(turns)
        scope.cancel()
        turns = 2
    await task
    work.close()  # it may never have begun
    return scope.cancelled_caught


async def check(store: VersionStore, flow: Flow, run_id: str, begun: list[str], durability: str) -> None:
    """What is stored is whole, nothing acknowledged is missing, and the run goes on to the same end."""
    done, before = acknowledged(begun), len(begun)
    versions = await stored_versions(store, run_id)
    if versions:
        run = await store.read(run_id)
        assert run.owner is None
        assert run.status in ENDS["end" if "end" in begun else "middle" if begun else "beginning"]
        assert durability == "exit" or done <= {version.path for version in versions}
    result = await flow.run({}, run_id=run_id, deps=begun)
    assert len(result.state) == 12
    assert set(begun[before:]).isdisjoint(done)
    assert all(begun.count(step) <= 2 for step in begun)


def some(kind: str) -> Iterable[int]:
    """Turns after which to cancel: each; where threads take part, more and more of them."""
    return count() if kind == "memory" else (2 * number + int(1.9**number) for number in count())


@pytest.mark.parametrize("kind", KINDS)
@every_durability
@pytest.mark.parametrize(("cancel", "times"), [(as_task, 1), (as_task, 2), (as_scope, 1)])
async def test_lanes_may_be_cancelled_at_any_point(
    kind: str, durability: Any, cancel: Any, times: int, tmp_path: Path
) -> None:
    """Once, or again while that is being handled: no task is left behind, and no acknowledged step is lost."""
    async with opened(kind, tmp_path) as store:
        flow = disturbed().with_versioned_checkpoint(store, durability=durability)
        for turns in some(kind):
            begun, before = list[str](), asyncio.all_tasks()
            was_cancelled = await cancel(flow.run({}, run_id=f"r{turns}", deps=begun), turns, times)
            assert asyncio.all_tasks() == before
            await check(store, flow, f"r{turns}", begun, durability)
            if not was_cancelled:
                assert turns > 20
                break


class Points:
    """Steps that wait twice, and a scope that is cancelled at one of these points."""

    def __init__(self, at: int) -> None:
        self.scope, self.left, self.begun = anyio.CancelScope(), at, list[str]()

    async def step(self, state: State, ctx: Context) -> None:
        self.begun.append(ctx.step)
        for part in ("half", "whole"):
            self.left -= 1
            if not self.left:
                self.scope.cancel()
            await anyio.lowlevel.checkpoint()
            state[f"{ctx.step} {part}"] = True

    def steps(self, *names: str) -> Flow:
        body = piece()
        for name in names:
            body = body.then(self.step, name=name)
        return body

    def flow(self) -> Flow:
        inner = self.steps("d").parallel([self.steps("e"), self.steps("f")], name="in")
        flow = self.steps("a").parallel([self.steps("b", "c"), inner])
        return flow.batch(lambda state: range(3), self.steps("g", "h"), name="each", concurrency=2)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@every_durability
def test_lanes_may_be_cancelled_in_any_step(backend: str, durability: Any) -> None:
    """By a scope, under both loops: at each point where a step of theirs waits."""

    async def main() -> None:
        for at in range(1, 100):
            points = Points(at)
            store = MemoryStore()
            kept = points.flow().with_versioned_checkpoint(store, durability=durability)
            with points.scope:
                await kept.run({}, run_id="r")
            if not points.scope.cancelled_caught:
                assert at > 20
                return
            assert (await store.read("r")).status == "cancelled"
            assert len((await kept.run(run_id="r")).state) == 24
            assert all(points.begun.count(each) <= 2 for each in points.begun)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("kind", KINDS)
async def test_many_runs_whose_lanes_are_cancelled_together(kind: str, tmp_path: Path) -> None:
    """In the middle of common commits: each keeps its own steps, those that were not cancelled go to their end."""
    async with opened(kind, tmp_path) as store:
        flow = disturbed().with_versioned_checkpoint(store)
        begun: dict[str, list[str]] = {f"r{number}": [] for number in range(30)}
        tasks = [asyncio.ensure_future(flow.run({}, run_id=run_id, deps=deps)) for run_id, deps in begun.items()]
        while not any("out[1]/h" in deps for deps in begun.values()):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, False] * 15
        for run_id, deps in begun.items():
            done = acknowledged(deps)
            assert done <= {version.path for version in await stored_versions(store, run_id)}
            before = len(deps)
            await flow.run(run_id=run_id, deps=deps)
            assert set(deps[before:]).isdisjoint(done)


async def test_lanes_that_are_cancelled_while_the_store_is_slow_lose_nothing() -> None:
    """A save that began ends, or is absent as a whole; what waits for it is stored then."""
    gate, begun = asyncio.Event(), list[str]()

    async def wait(versions: Sequence[Version]) -> None:
        await gate.wait()

    store = Guarded(wait)
    flow = new().parallel([works("a", "b"), works("c", "d"), works("e", "f")]).with_versioned_checkpoint(store)
    task = asyncio.ensure_future(flow.run({}, run_id="r", deps=begun))
    await take_turns(20)
    assert begun == ["parallel[0]/a", "parallel[1]/c", "parallel[2]/e"]
    for _ in range(3):
        task.cancel()
        await take_turns(5)
    assert not task.done()
    gate.set()
    await asyncio.wait({task})
    assert task.cancelled()
    assert sorted(version.path for version in await stored_versions(store, "r")) == ["", *begun]
    assert (await store.read("r")).status == "cancelled"


# A store that fails ---------------------------------------------------------------------------------------------------


class Failing(Guarded):
    """A store whose save number `at` fails, and all after it until it is mended."""

    def __init__(self, error: Exception, at: int) -> None:
        super().__init__(self._save)
        self._error, self._at = error, at
        self.saves, self.is_mended = 0, False

    async def _save(self, versions: Sequence[Version]) -> None:
        await asyncio.sleep(0)
        self.saves += 1
        if self.saves >= self._at and not self.is_mended:
            raise self._error


@pytest.mark.parametrize(
    "error", [StoreFull("here"), OSError("disk"), TimeoutError("db")], ids=lambda e: type(e).__name__
)
@every_durability
@pytest.mark.parametrize(
    "options", [{}, {"on_error": "wait"}, {"timeout": 60.0}, {"max_failures": 5, "timeout": 60.0}], ids=str
)
async def test_a_store_that_fails_under_lanes_is_no_failure_of_theirs(
    error: Exception, durability: Any, options: Any
) -> None:
    """The caller gets its very error, no item is given up, nothing is undone; mended, the run goes on."""
    wrong: list[str] = []

    async def told(state: State, ctx: Context) -> None:
        wrong.append(ctx.step)

    inner = piece().then(work, name="a", compensate=told).parallel([works("b", "c"), works("d")], name="in")
    body = inner.on_error(told).then(work, name="e")
    flow = new().batch(lambda state: range(3), body, name="each", concurrency=2, **options).on_error(told)
    expected = (await flow.run({}, deps=[])).state
    for at in count(1):
        store, begun, before = Failing(error, at), list[str](), asyncio.all_tasks()
        kept = flow.with_versioned_checkpoint(store, durability=durability)
        task = asyncio.ensure_future(kept.run({}, run_id="r", deps=begun))
        await asyncio.wait({task})
        assert asyncio.all_tasks() == before
        assert wrong == []
        if store.saves < at:
            assert task.result().state == expected
            break
        assert task.exception() is error
        run = await store.read("r")
        assert (run.status, run.owner, run.error) == ("running", None, None)
        store.is_mended = True
        stored, count_before = {version.path for version in await stored_versions(store, "r")}, len(begun)
        result = await kept.run({}, run_id="r", deps=begun)
        assert (result.state, result.failures) == (expected, ())
        assert set(begun[count_before:]).isdisjoint(stored)


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_store_that_fails_under_one_lane_stops_the_others(durability: Any) -> None:
    """At once: they do nothing more that could not be stored, and are not waited for."""
    begun: list[str] = []

    async def hang(state: State) -> None:
        await asyncio.Event().wait()

    flow = new().parallel([hang, works("a", "b"), works(*"cdefghijklmnop")], on_error="wait")
    kept = flow.with_versioned_checkpoint(Failing(StoreFull("here"), 1), durability=durability)
    with pytest.raises(StoreFull):
        await kept.run({}, run_id="r", deps=begun)
    assert {"parallel[1]/a", "parallel[2]/c"} <= set(begun)
    assert len(begun) <= (2 if durability == "sync" else 6)


@every_durability
async def test_lanes_that_fail_in_a_store_that_fails_too(durability: Any) -> None:
    """Whichever is told, the run goes on later, with the step that failed."""

    async def fail(state: State, ctx: Context[list[str]]) -> None:
        ctx.deps.append(ctx.step)
        if ctx.deps.count(ctx.step) == 1:
            raise LookupError

    flow = new().parallel([works("a").then(fail), works("b", "c")])
    for at in range(1, 6):
        store, begun, causes = Failing(StoreFull("here"), at), list[str](), list[type]()
        kept = flow.with_versioned_checkpoint(store, durability=durability)
        with pytest.raises((StoreFull, FlowError)):
            await kept.run({}, run_id="r", deps=begun)
        store.is_mended = True
        while True:
            try:
                result = await kept.run({}, run_id="r", deps=begun)
                break
            except FlowError as error:
                causes.append(type(error.cause))
        assert causes in ([], [LookupError])
        assert set(result.state) == {"parallel[0] a", "parallel[1] b", "parallel[1] c"}


# Nested, in the stream of everything ----------------------------------------------------------------------------------


@every_durability
async def test_nested_lanes_cancelled_again_and_again_come_to_their_end(durability: Any) -> None:
    """A run that is never given more than a few turns at a time ends nevertheless, as one that was left alone."""
    store, begun = MemoryStore(), list[str]()
    flow = nested().with_versioned_checkpoint(store, durability=durability)
    expected = (await nested().run({}, deps=[])).state
    for _ in range(200):
        if not await as_task(flow.run({}, run_id="r", deps=begun), 16, 1):
            break
    assert (await flow.run({}, run_id="r", deps=begun)).state == expected
