"""Handles: how a run ended, for whoever waits, in whichever process it goes on."""

import asyncio
from pathlib import Path

import anyio
import pytest

from flowneer_async import FlowError, fragment
from flowneer_async.engine import Engine, Handle
from flowneer_async.errors import EngineStopped, NotCompleted, UnknownFlow, UnknownRun
from tests.support.engine_life import State, Steps, flow_of, is_put_down, nothing, until
from tests.support.engines import Clock, engines, pass_time, quiet, watched
from tests.support.stores import KINDS

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
async def test_the_result_has_the_state_the_last_version_and_the_items_that_were_given_up(
    kind: str, tmp_path: Path
) -> None:
    async def perhaps(state: State) -> None:
        raise OSError

    flow = flow_of().then(Steps().do, name="a").batch(lambda _: [1], fragment().then(perhaps), name="b", max_failures=1)
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r")
        result = await handle.result()
        assert (result.state, result.status, result.run_id) == ({"a": True}, "completed", "r")
        assert result.version == f"r@{(await handle.run()).head}"
        assert [(failure.step, failure.error) for failure in result.failures] == [("b[0]/perhaps", "OSError")]
        assert await handle.result() == result
        assert repr(handle) == "Handle('flow', 'r')"


@every_kind
async def test_a_state_comes_back_in_its_own_type_also_for_whoever_has_only_the_id(kind: str, tmp_path: Path) -> None:
    flow = flow_of().then(nothing)
    async with engines(kind, tmp_path, [flow], Clock(), number=2) as [first, second]:
        handle = await first.start(flow, {"pair": (1, 2)}, run_id="r")
        assert (await handle.result()).state == {"pair": (1, 2)}
        assert (await (await second.handle("r")).result()).state == {"pair": (1, 2)}


@every_kind
async def test_a_result_is_waited_for_in_another_engine(kind: str, tmp_path: Path) -> None:
    steps = Steps(hang_at=1)
    flow = flow_of().then(steps.do)
    async with engines(kind, tmp_path, [flow], Clock(), number=2) as [first, second]:
        await first.start(flow, {}, run_id="r")
        handle = await second.handle("r")
        waiter = asyncio.create_task(handle.result())
        await steps.hung.wait()
        await quiet(first, second)
        assert not waiter.done()
        steps.go.set()
        assert (await waiter).state == {"do": True}


@every_kind
async def test_a_result_is_waited_for_while_the_run_is_put_down_and_taken_up_again(kind: str, tmp_path: Path) -> None:
    flow = flow_of().wait_for("one").wait_for("two").then(nothing)
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {})
        waiters = [asyncio.create_task(handle.result()) for _ in range(3)]
        for head, name in ((1, "one"), (3, "two")):
            await until(engine.store, handle.run_id, lambda run, head=head: is_put_down(run) and run.head == head)
            await handle.signal(name)
        assert {(await waiter).status for waiter in waiters} == {"completed"}


@every_kind
async def test_whoever_stops_waiting_leaves_the_run_and_the_others_who_wait_alone(kind: str, tmp_path: Path) -> None:
    steps = Steps(hang_at=1)
    flow = flow_of().then(steps.do)
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {})
        impatient, patient = asyncio.create_task(handle.result()), asyncio.create_task(handle.result())
        await steps.hung.wait()
        impatient.cancel()
        await asyncio.wait({impatient})
        assert impatient.cancelled()
        with anyio.move_on_after(0):
            await handle.result()
        steps.go.set()
        assert (await patient).status == "completed"
        assert steps.cut == 0


@every_kind
async def test_what_a_step_has_raised_is_the_cause_where_it_was_in_this_process(kind: str, tmp_path: Path) -> None:
    steps = Steps(hang_at=1)

    async def fail(state: State) -> None:
        raise OSError("secret")

    flow = flow_of().then(steps.do).then(fail)
    async with engines(kind, tmp_path, [flow], Clock(), number=2) as [first, second]:
        await first.start(flow, {}, run_id="r")
        waiters = [asyncio.create_task((await each.handle("r")).result()) for each in (first, second)]
        await quiet(first, second)
        steps.go.set()
        await asyncio.wait(waiters)
        errors = [waiter.exception() for waiter in waiters]
        for error in errors:
            assert isinstance(error, NotCompleted)
            assert (error.run_id, error.status) == ("r", "failed")
            assert error.reason is not None
            assert "fail" in error.reason
            assert "secret" not in str(error)
        here, there = errors
        assert here is not None
        assert there is not None
        assert isinstance(here.__cause__, FlowError)
        assert isinstance(here.__cause__.cause, OSError)
        assert there.__cause__ is None


@every_kind
async def test_whoever_waits_when_the_engine_is_left_is_told_and_the_next_engine_has_the_result(
    kind: str, tmp_path: Path
) -> None:
    clock, steps = Clock(), Steps(hang_at=1)
    flow = flow_of().then(steps.do).wait_for("word")
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [flow], world=clock, grace=0) as engine:
            handle = await engine.start(flow, {}, run_id="r")
            waiter = asyncio.create_task(handle.result())
            await steps.hung.wait()
        with pytest.raises(EngineStopped):
            await waiter
        with pytest.raises(EngineStopped):
            await handle.result()
        assert (await handle.run()).status == "waiting"
        async with Engine(store, [flow], world=clock) as engine:
            handle = await engine.handle("r")
            await handle.signal("word")
            assert (await handle.result()).state == {"do": True}


@every_kind
async def test_a_run_that_ends_within_the_grace_of_its_engine_has_its_result(kind: str, tmp_path: Path) -> None:
    clock, steps = Clock(), Steps(hang_at=1)
    flow = flow_of().then(steps.do)
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [flow], world=clock) as engine:
            handle = await engine.start(flow, {}, run_id="r")
            waiter = asyncio.create_task(handle.result())
            await steps.hung.wait()
            engine.stop()
            steps.go.set()
        assert (await waiter).status == "completed"


@every_kind
async def test_of_a_run_that_is_purged_whoever_waits_is_told(kind: str, tmp_path: Path) -> None:
    flow = flow_of().wait_for("word")
    async with engines(kind, tmp_path, [flow], Clock()) as [engine]:
        handle = await engine.start(flow, {}, run_id="r")
        waiter = asyncio.create_task(handle.result())
        await until(engine.store, "r", is_put_down)
        await quiet(engine)
        await engine.store.purge("r")
        with pytest.raises(UnknownRun):
            await waiter
        for gone in (handle.result(), handle.run(), handle.cancel(), handle.signal("word"), handle.resume()):
            with pytest.raises(UnknownRun):
                await gone
        with pytest.raises(UnknownRun):
            await engine.handle("r")


@every_kind
async def test_a_run_of_a_flow_that_the_engine_does_not_have_is_left_alone(kind: str, tmp_path: Path) -> None:
    clock = Clock()
    async with watched(kind, tmp_path, clock) as [store]:
        async with Engine(store, [flow_of("other").then(nothing)], world=clock, concurrency=1) as engine:
            await engine.start("other", {}, run_id="r", delay=1e9)
        async with Engine(store, [flow_of().then(nothing)], world=clock) as engine:
            await pass_time(clock, 3, engine)
            with pytest.raises(UnknownFlow, match="other"):
                await engine.handle("r")
            assert await engine.cancel("r")
            assert (await store.read("r")).status == "waiting"


async def test_a_handle_outlives_its_engine_as_far_as_the_store_does(tmp_path: Path) -> None:
    clock = Clock()
    flow = flow_of().then(nothing)
    async with watched("memory", tmp_path, clock) as [store]:
        engine = Engine(store, [flow], world=clock)
        async with engine:
            handle: Handle[State] = await engine.start(flow, {})
            await handle.result()
        assert (await handle.run()).status == "completed"
        async with engine:
            assert (await handle.result()).status == "completed"
