"""What a start stores, and that nothing else comes of it: no second run, no orphan, no shared state."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowneer_async import FlowBuilder, RunFilter, VersionStore
from flowneer_async.engine import Engine, Limits
from flowneer_async.errors import (
    BadName,
    BadOption,
    BadState,
    EngineStopped,
    FlowneerError,
    ForeignRun,
    NotCompleted,
    StateMissing,
    StateNotSerializable,
    StoreBusy,
    UnknownFlow,
)
from flowneer_stores import MemoryStore
from tests.support.engines import CLOCKED, Clock, Flow, State, Work, engines, pass_time, pass_turns, quiet, watched
from tests.support.stores import KINDS

kinds = pytest.mark.parametrize("kind", KINDS)
clocked = pytest.mark.parametrize("kind", CLOCKED)

NOON = datetime(2023, 1, 1, 12, tzinfo=UTC)


async def stored(store: VersionStore) -> int:
    """How many runs there are."""
    return sum((await store.count(RunFilter())).values())


@dataclass
class Order:
    lines: list[str] = field(default_factory=list)


async def nothing(order: Order) -> None: ...


# One id, one run ------------------------------------------------------------------------------------------------------


@kinds
async def test_of_starts_of_one_id_in_several_engines_at_once_one_run_comes_that_is_done_once(
    kind: str, tmp_path: Path
) -> None:
    work = Work()
    flow = Flow("flow").then(work.quick)
    async with engines(kind, tmp_path, [flow], Clock(), 2) as few:
        handles: list[Any] = []

        async def start(engine: Engine, number: int) -> None:
            handles.append(await engine.start(flow, {"number": number}, run_id="r"))

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(start, few[number % 2], number)
        results = [await handle.result() for handle in handles]
        assert work.begun == ["r"]
        assert await stored(few[0].store) == 1
        assert all(result.state == results[0].state for result in results)


@kinds
async def test_a_start_of_an_id_that_is_taken_gives_that_run_as_it_is(kind: str, tmp_path: Path) -> None:
    work = Work()
    flow = Flow("flow").then(work.step)
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        await engine.start(flow, {"first": True}, run_id="r", tags={"who": "first"})
        await work.begins("r")
        again = await engine.start(flow, {"first": False}, run_id="r", tags={"who": "second"}, priority=3)
        work.let()
        assert (await again.result()).state == {"first": True}
        await engine.start(flow, {"first": False}, run_id="r")
        await quiet(engine)
        run = await again.run()
        assert (run.status, run.tags, run.priority) == ("completed", {"who": "first"}, 0)
        assert work.begun == ["r"]


@kinds
async def test_a_run_that_has_failed_is_not_run_again_by_a_start_of_its_id(kind: str, tmp_path: Path) -> None:
    begun: list[str] = []

    async def fail(state: State) -> None:
        begun.append("r")
        raise ValueError

    flow = Flow("flow").then(fail)
    async with engines(kind, tmp_path, [flow], Clock(), 2) as few:
        for engine in few:
            handle = await engine.start(flow, {}, run_id="r")
            with pytest.raises(NotCompleted):
                await handle.result()
        await quiet(*few)
        assert begun == ["r"]


@kinds
async def test_the_id_of_another_flows_run_is_refused(kind: str, tmp_path: Path) -> None:
    work = Work()
    one, other = Flow("one").then(work.quick), Flow("other").then(work.quick)
    async with engines(kind, tmp_path, [one, other], Clock()) as [engine]:
        await (await engine.start(one, {}, run_id="r")).result()
        for delay in (None, 5):
            with pytest.raises(ForeignRun):
                await engine.start(other, {}, run_id="r", delay=delay)
        assert work.begun == ["r"]


# A state of its own ---------------------------------------------------------------------------------------------------


@clocked
@pytest.mark.parametrize("waits", [False, True])
async def test_a_run_and_its_caller_do_not_share_a_state(kind: str, waits: bool, tmp_path: Path) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def add(order: Order) -> None:
        begun.set()
        await go_on.wait()
        order.lines.append("of the run")

    flow = FlowBuilder("order", Order).then(add)
    limits = {"order": Limits(concurrency=1)} if waits else {}
    async with engines(kind, tmp_path, [flow], Clock(), limits=limits) as [engine]:
        order = Order(["first"])
        handle = await engine.start(flow, order)
        order.lines.append("of the caller")
        await begun.wait()
        order.lines.append("of the caller, later")
        go_on.set()
        assert (await handle.result()).state == Order(["first", "of the run"])
        assert order == Order(["first", "of the caller", "of the caller, later"])


# What cannot be accepted ----------------------------------------------------------------------------------------------

BAD: list[tuple[type[FlowneerError], dict[str, Any]]] = [
    (StateNotSerializable, {"state": {"x": object()}}),
    (BadState, {"state": 5}),
    (BadState, {"state": Order()}),
    (StateMissing, {"state": None}),
    (UnknownFlow, {"flow": "nothing"}),
    *((BadName, {"run_id": run_id}) for run_id in ("", "a b", "-", "x" * 129, 5, [], "a@1")),
    *(
        (BadOption, {"tags": tags})
        for tags in ({"@deadline": "0"}, {1: "x"}, {"x": 1}, ["x"], {"x": "\0"}, {"\ud800": ""})
    ),
    *((BadOption, {"priority": priority}) for priority in ("high", True, 1.5, 2**63, None)),
    *((BadOption, {"key": key}) for key in (5, "\0", "\ud800", ["x"])),
    *((BadOption, {"deadline": span}) for span in (-1, float("nan"), float("inf"), "1", True, timedelta(-1))),
    *((BadOption, {"delay": span}) for span in (-1, float("nan"), 1e12, "1", True, timedelta(-1))),
    *((BadOption, {"at": at}) for at in (datetime(2023, 1, 1), 1e9, "noon")),
    (BadOption, {"at": NOON, "delay": 1}),
    (BadOption, {"debounce": "name"}),
    (BadOption, {"debounce": "name", "delay": 1, "run_id": "r"}),
    *((BadOption, {"debounce": name, "delay": 1}) for name in (5, "\0", "\ud800", ["x"])),
]


@clocked
@pytest.mark.parametrize("is_limited", [False, True])
async def test_what_cannot_be_accepted_raises_and_leaves_no_run_and_takes_no_slot(
    kind: str, is_limited: bool, tmp_path: Path
) -> None:
    work = Work()
    flow = Flow("flow").then(work.quick)
    limits = {"flow": Limits(concurrency=1)} if is_limited else {}
    async with engines(kind, tmp_path, [flow], Clock(), concurrency=1, limits=limits) as [engine]:
        start: Any = engine.start
        for error, bad in BAD:
            options: dict[str, Any] = {"flow": flow, "state": {}} | bad
            with pytest.raises(error):
                await start(**options)
            assert await stored(engine.store) == 0, bad
        await (await engine.start(flow, {})).result()


@pytest.mark.parametrize("bad", [{"concurrency": "3"}, {"per_key": 0}, {"concurrency": True}, {"rate": (3, 60)}])
def test_limits_that_are_none_are_refused(bad: Any) -> None:
    with pytest.raises(BadOption):
        Limits(**bad)


# Starts that are cut --------------------------------------------------------------------------------------------------


async def cut_by_task(start: Callable[[], Any], after: int) -> bool:
    task = asyncio.ensure_future(start())
    await pass_turns(after)
    is_done = task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return is_done


async def cut_by_scope(start: Callable[[], Any], after: int) -> bool:
    done = anyio.Event()

    async def run() -> None:
        await start()
        done.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await pass_turns(after)
        group.cancel_scope.cancel()
    return done.is_set()


@clocked
@pytest.mark.parametrize("cut", [cut_by_task, cut_by_scope])
@pytest.mark.parametrize("options", [{}, {"limits": {"flow": Limits(concurrency=9)}}], ids=["at once", "put"])
async def test_a_start_that_is_cancelled_leaves_nothing_or_a_run_that_is_done(
    kind: str, cut: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    work = Work()
    flow = Flow("flow").then(work.quick)
    async with engines(kind, tmp_path, [flow], Clock(), concurrency=2, **options) as [engine]:
        await quiet(engine)
        after, is_done = 0, False
        while not is_done:
            run_id = f"cut-{after}"
            is_done = await cut(lambda run_id=run_id: engine.start(flow, {}, run_id=run_id), after)
            await quiet(engine)
            after += 1
        counts = await engine.store.count(RunFilter())
        assert set(counts) == {"completed"}
        assert counts["completed"] == len(work.begun)
        last = await engine.start(flow, {})
        await last.result()


@clocked
@pytest.mark.parametrize("way", ["left", "cancelled"])
@pytest.mark.parametrize("options", [{}, {"limits": {"flow": Limits(concurrency=9)}}], ids=["at once", "put"])
async def test_a_run_that_is_started_while_its_engine_is_left_is_done_by_the_next_one(
    kind: str, way: str, options: dict[str, Any], tmp_path: Path
) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.quick)
    async with watched(kind, tmp_path, clock) as [store]:
        after, is_done = 0, False
        while not is_done:
            is_done = await started_and_left(Engine(store, [flow], world=clock, grace=0, **options), after, way)
            after += 1
        async with Engine(store, [flow], world=clock) as engine:
            await quiet(engine)
            counts = await store.count(RunFilter())
            assert set(counts) == {"completed"}
        assert await stored(store) > 1


async def started_and_left(engine: Engine, after: int, way: str) -> bool:
    """Start a run, and leave the engine so many turns of the loop later; was the run accepted before?"""
    ready, done, is_done = anyio.Event(), anyio.Event(), False

    async def start() -> None:
        await ready.wait()
        with suppress(EngineStopped):
            await engine.start("flow", {})
        done.set()

    async with anyio.create_task_group() as group:
        group.start_soon(start)
        with anyio.CancelScope() as scope:
            async with engine:
                await quiet(engine)
                ready.set()
                await pass_turns(after)
                is_done = done.is_set()
                if way == "cancelled":
                    scope.cancel()
    return is_done


@clocked
@pytest.mark.parametrize("options", [{}, {"delay": 0.5}, {"delay": 0.5, "debounce": "name"}])
async def test_what_is_started_while_an_engine_stops_is_begun_by_the_next_one_only(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    work, clock = Work(), Clock()
    flow = Flow("flow").then(work.quick)
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [flow], world=clock) as engine:
            await quiet(engine)
            engine.stop()
            handle = await engine.start(flow, {}, **options)
            await pass_time(clock, 1, engine)
            assert work.begun == []
            assert (await handle.run()).status == "waiting"
        async with Engine(store, [flow], world=clock) as engine:
            await (await engine.handle(handle.run_id)).result()


async def test_an_engine_that_is_not_entered_accepts_nothing() -> None:
    store, flow = MemoryStore(), Flow("flow").then(Work().quick)
    with pytest.raises(EngineStopped):
        await Engine(store, [flow]).start(flow, {})
    assert await stored(store) == 0


async def test_a_state_that_nobody_could_restore_is_refused() -> None:
    """The flow says no type, so a run that goes on would be given a dict."""
    flow = FlowBuilder[Order]("order").then(nothing)
    async with Engine(MemoryStore(), [flow], world=Clock()) as engine:
        with pytest.raises(BadState, match="second argument"):
            await engine.start(flow, Order())
        assert await stored(engine.store) == 0


@clocked
async def test_what_the_store_refuses_takes_no_slot(kind: str, tmp_path: Path) -> None:
    work = Work()
    flow = Flow("flow").then(work.quick)

    async def refuse(*_: object) -> None:
        raise StoreBusy("runs", 5)

    async with engines(kind, tmp_path, [flow], Clock(), concurrency=1) as [engine]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(engine.store), "create", refuse)
            with pytest.raises(StoreBusy):
                await engine.start(flow, {})
        assert await stored(engine.store) == 0
        await (await engine.start(flow, {})).result()
