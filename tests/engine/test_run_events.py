"""Events of a run: durable, in order, without a gap or a repeat wherever the client's connection was cut."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings

from flowneer_async import Context, Run, Waiting, fragment
from flowneer_async.answers import NO_ANSWER
from flowneer_async.engine import Engine, Handle, RunEvent
from flowneer_async.errors import BadOption, EngineStopped, NotCompleted, RunBusy, UnknownRun
from flowneer_async.testing import Effects, FakeWorld
from flowneer_stores import MemoryStore
from tests.support.building import built, reply
from tests.support.engine_life import State, Steps, flow_of, is_put_down, limited, nothing, until
from tests.support.engines import Clock, engines, quiet, watched
from tests.support.generated import Bodies, flows
from tests.support.stores import KINDS

every_kind = pytest.mark.parametrize("kind", KINDS)


async def heard(handle: Handle[Any], after: str | None = None, most: int = 10_000) -> list[RunEvent]:
    """The events after one of them, until they end, or the connection is cut after so many."""
    events: list[RunEvent] = []
    async with aclosing(handle.events(after)) as told:
        async for event in told:
            events.append(event)
            if len(events) == most:
                break
    return events


def shown(events: Sequence[RunEvent]) -> list[str]:
    return [event.step if event.kind == "step" and event.step else event.kind for event in events]


async def check_cuts(handle: Handle[Any]) -> list[RunEvent]:
    """Of a run that is over: whoever is cut off after any event and comes again is told all the rest, and no more."""
    whole = await heard(handle)
    ids = [event.id for event in whole]
    assert len(set(ids)) == len(ids)
    for number, event in enumerate(whole):
        assert await heard(handle, most=number + 1) == whole[: number + 1]
        assert await heard(handle, event.id) == whole[number + 1 :]
    return whole


@every_kind
async def test_events_are_the_steps_and_the_end_with_the_keys_that_each_has_changed(kind: str, tmp_path: Path) -> None:
    async def begin(state: State) -> None:
        state |= {"a": 1, "b": [1]}

    async def change(state: State) -> None:
        state["b"].append(2)
        del state["a"]

    flow = flow_of().then(begin).then(nothing).then(change)
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {"z": 0}, run_id="r")
        await handle.result()
        assert await check_cuts(handle) == [
            RunEvent("1", "step", "begin", "r@1", ("a", "b")),
            RunEvent("2", "step", "nothing", "r@2"),
            RunEvent("3", "step", "change", "r@3", ("b", "a")),
            RunEvent("3.completed", "completed"),
        ]


@every_kind
async def test_a_keyframe_tells_only_the_keys_that_its_step_has_changed(kind: str, tmp_path: Path) -> None:
    async def grow(state: State, ctx: Context[None]) -> None:
        state["text"] = str(ctx.index) * 3000

    flow = flow_of().loop(lambda _, ctx: ctx.index < 12, fragment().then(grow), name="loop")
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {"calm": "x"}, run_id="r")
        await handle.result()
        assert any(version.is_keyframe for version in await engine.store.versions("r", 1))
        events = await check_cuts(handle)
        assert {event.changed for event in events[:-1]} == {("text",)}
        assert len(events) == 13


@every_kind
async def test_steps_in_lanes_are_told_each_once(kind: str, tmp_path: Path) -> None:
    steps = Steps()
    two = fragment().then(steps.do, name="x").then(steps.do, name="y")
    flow = flow_of().batch(lambda _: [1, 2, 3], two, name="lanes", concurrency=3).then(steps.do, name="last")
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r")
        await handle.result()
        told = shown(await check_cuts(handle))
        assert sorted(told[:-3]) == sorted(f"lanes[{number}]/{name}" for number in range(3) for name in "xy")
        assert told[-3:] == ["lanes", "last", "completed"]


@every_kind
async def test_of_a_run_that_was_pruned_the_versions_that_are_left_are_told(kind: str, tmp_path: Path) -> None:
    async def grow(state: State, ctx: Context[None]) -> None:
        state["text"] = str(ctx.index) * 3000

    flow = flow_of().loop(lambda _, ctx: ctx.index < 12, fragment().then(grow), name="loop")
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r")
        await handle.result()
        whole = await heard(handle)
        assert await engine.store.drop("r", 2) > 0
        first = (await engine.store.read("r")).first
        assert await check_cuts(handle) == whole[first - 1 :]
        assert await heard(handle, "1") == whole[first - 1 :]


@every_kind
async def test_whoever_listens_hears_each_step_that_is_stored_and_that_the_run_waits(kind: str, tmp_path: Path) -> None:
    steps = Steps()
    flow = flow_of().then(steps.do, name="a").wait_for("word", timeout=1e6).then(steps.do, name="b")
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r")
        async with aclosing(handle.events()) as events:
            first, second = await anext(events), await anext(events)
            assert (first.step, second.kind, second.id) == ("a", "waiting", "2.waiting")
            assert [(wait.kind, wait.name) for wait in second.waits] == [("signal", "word")]
            await handle.signal("word", 1)
            rest = [event async for event in events]
        assert shown(rest) == ["word", "b", "completed"]
        assert await heard(handle, "2.waiting") == rest
        assert await heard(handle, "2") == rest
        assert shown(await check_cuts(handle)) == ["a", "word", "b", "completed"]


@every_kind
async def test_a_run_that_is_woken_for_nothing_is_told_to_wait_once(kind: str, tmp_path: Path) -> None:
    flow = flow_of().wait_for("word").then(nothing)
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r")
        async with aclosing(handle.events()) as events:
            assert (await anext(events)).kind == "waiting"
            epoch = (await handle.run()).epoch
            await engine.store.send("r", "other", b"null")
            engine._poke()
            await until(engine.store, "r", lambda run: run.epoch > epoch and is_put_down(run))
            await handle.signal("word", 1)
            assert shown([event async for event in events]) == ["word", "nothing", "completed"]


@every_kind
async def test_the_last_event_of_a_run_that_failed_has_its_error_and_of_one_resumed_come_more(
    kind: str, tmp_path: Path
) -> None:
    times = list[int]()

    async def flaky(state: State) -> None:
        times.append(1)
        if len(times) == 1:
            raise OSError

    flow = flow_of().then(nothing).then(flaky)
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r")
        *_, last = await check_cuts_of_failed(handle)
        assert (last.id, last.kind) == ("1.failed", "failed")
        assert last.error is not None
        assert "flaky" in last.error
        await handle.resume()
        await handle.result()
        assert shown(await heard(handle, last.id)) == ["flaky", "completed"]


async def check_cuts_of_failed(handle: Handle[Any]) -> list[RunEvent]:
    with pytest.raises(NotCompleted):
        await handle.result()
    return await check_cuts(handle)


@every_kind
async def test_of_a_run_that_was_cancelled_before_it_has_begun_that_is_told(kind: str, tmp_path: Path) -> None:
    flow = flow_of().then(nothing)
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r", delay=1e6)
        told = list[RunEvent]()

        async def listen() -> None:
            told.extend(await heard(handle))

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await quiet(engine)
            assert told == []  # it does not wait for anything but its time
            await handle.cancel()
        assert [event.kind for event in told] == ["cancelled"]
        assert await check_cuts(handle) == told


@every_kind
async def test_the_steps_that_a_fork_has_from_another_run_are_not_told_as_its_own(kind: str, tmp_path: Path) -> None:
    steps = Steps()
    flow = flow_of().then(steps.do, name="a").then(steps.do, name="b").then(steps.do, name="c")
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        await (await engine.start(flow, {}, run_id="r")).result()
        handle = await engine.fork("r@2", run_id="f")
        await handle.result()
        assert shown(await check_cuts(handle)) == ["c", "completed"]


@every_kind
async def test_events_end_when_the_engine_is_left_and_go_on_in_the_next_one(kind: str, tmp_path: Path) -> None:
    clock, steps, told = Clock(), Steps(hang_at=2), list[RunEvent]()
    heard_one, handles = anyio.Event(), list[Handle[State]]()
    flow = flow_of().then(steps.do, name="a").then(steps.do, name="b").then(steps.do, name="c")
    async with watched(kind, tmp_path, clock) as [store]:
        async with anyio.create_task_group() as group, Engine(store, [flow], world=clock, grace=0) as engine:
            handles.append(await engine.start(flow, {}, run_id="r"))

            async def listen() -> None:
                async for event in handles[0].events():
                    told.append(event)
                    heard_one.set()

            group.start_soon(listen)
            await steps.hung.wait()
            await heard_one.wait()
        with pytest.raises(EngineStopped):
            await heard(handles[0])
        assert shown(told) == ["a"]
        async with Engine(store, [flow], world=clock) as engine:
            rest = await heard(await engine.handle("r"), told[-1].id)
        assert shown(rest) == ["b", "c", "completed"]


@pytest.mark.parametrize("after", ["x", "-1", "1.going", "1.5", " 1", "", "١", "9" * 30, "1.", "r@1"])
async def test_what_is_no_id_of_an_event_is_refused(after: str, tmp_path: Path) -> None:
    flow = flow_of().then(nothing)
    async with engines("memory", tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r")
        with pytest.raises(BadOption):
            await heard(handle, after)


async def test_events_of_a_run_that_is_purged_raise_unknown_run(tmp_path: Path) -> None:
    flow = flow_of().wait_for("word")
    async with engines("memory", tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r")
        async with aclosing(handle.events()) as events:
            await anext(events)
            await engine.store.purge("r")
            with pytest.raises(UnknownRun):
                await anext(events)
        with pytest.raises(UnknownRun):
            await heard(handle)


# Live -----------------------------------------------------------------------------------------------------------------


async def chunks(state: State) -> AsyncIterator[str]:
    for word in ("one", "two"):
        yield word


@every_kind
async def test_live_events_have_what_steps_emit_before_their_end_and_after_that_of_the_step_before(
    kind: str, tmp_path: Path
) -> None:
    go = anyio.Event()

    async def begin(state: State) -> None:
        await go.wait()

    async def emit(state: State, ctx: Context[None]) -> None:
        await ctx.emit(1)
        await ctx.emit(2)

    flow = flow_of().then(begin).then(emit).then(chunks)
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r")
        told = list[RunEvent]()

        async def listen() -> None:
            async with aclosing(handle.events(live=True)) as events:
                told.extend([event async for event in events])

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await quiet(engine)
            go.set()
        assert [event.value if event.kind == "chunk" else (event.step or event.kind) for event in told] == [
            *("begin", 1, 2, "emit", "one", "two", "chunks", "completed")
        ]
        assert {event.id for event in told if event.kind == "chunk"} == {""}
        assert engine._work is not None
        assert engine._work.workshop.listeners._of == {}
        assert shown(await check_cuts(handle)) == ["begin", "emit", "chunks", "completed"]


# Laws -----------------------------------------------------------------------------------------------------------------


POLL = 1e9  # seconds


class Hasty(FakeWorld):
    """A world in which whoever sleeps moves the clock, but for the engine, which sleeps until it is left."""

    def __init__(self) -> None:
        super().__init__()
        hasty = self.sleep

        async def sleep(seconds: float) -> None:
            await (anyio.sleep_forever() if seconds == POLL else hasty(seconds))

        object.__setattr__(self, "sleep", sleep)


async def to_its_end(engine: Engine, handle: Handle, world: FakeWorld) -> None:
    """Give a run of a generated flow all that it waits for, until it is over."""
    while True:
        run = await until(engine.store, handle.run_id, lambda run: run.status != "running" and run.begun)
        if run.status != "waiting":
            return
        waits = await handle.flow.waiting_for(handle.run_id)
        with suppress(RunBusy):  # its time has come meanwhile
            await tell(handle, world, waits)
        engine._poke()
        await until(engine.store, handle.run_id, partial(was_taken_after, run.epoch))


def was_taken_after(epoch: int, run: Run) -> bool:
    return run.epoch > epoch


async def tell(handle: Handle, world: FakeWorld, waits: Sequence[Waiting]) -> None:
    for wait in waits:
        said = True if wait.kind == "doubt" else NO_ANSWER if wait.kind == "sleep" else reply(wait)
        if said is not NO_ANSWER and wait.kind == "signal":
            await handle.signal(wait.name or "", said)
            return
        if said is not NO_ANSWER:
            await handle.resume(said, wait.step)
            return
    times = [wait.until for wait in waits if wait.until is not None]
    world.move(max(0, min(times) - world.now()) / 1000)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=flows(3))
async def test_of_any_flow_a_cut_after_any_event_loses_none_and_repeats_none(made: Bodies) -> None:
    world, flow = Hasty(), built(made)
    store = MemoryStore(now=world.now)
    async with limited(), Engine(store, [flow], world=world, deps=Effects(), poll=POLL) as engine:
        handle = await engine.start(flow, {}, run_id="r")
        live = list[RunEvent]()

        async def listen() -> None:
            live.extend(await heard(handle))

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await to_its_end(engine, handle, world)
        whole = await check_cuts(handle)
        assert [event for event in live if event.kind != "waiting"] == whole
        for event in live:
            seen = int(event.id.partition(".")[0])
            rest = [other for other in whole[:-1] if int(other.id) > seen] + ([] if event == whole[-1] else whole[-1:])
            assert await heard(handle, event.id) == rest
