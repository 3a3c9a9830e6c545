"""What a real engine tells: a trace that spans restarts, the life of each run in lines and metrics, and no value."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from flowneer_async import Context, FlowBuilder, Run
from flowneer_async.control import End
from flowneer_async.engine import Engine, Several
from flowneer_async.errors import NotCompleted
from flowneer_async.observing import JsonFormatter, LogLines
from flowneer_async.observing.otel import OpenTelemetry
from flowneer_stores import MemoryStore, SqliteStore
from tests.support import traced_child
from tests.support.children import ENVIRONMENT
from tests.support.observed import Collected, State, collected, context_of, facts, heard
from tests.support.traced_child import FLOW

SECRET = "hunter2"


@pytest.fixture
def seen() -> Iterator[Collected]:
    with collected() as each:
        yield each


def telemetry(seen: Collected) -> Several:
    return Several(OpenTelemetry(seen.tracers, seen.meters), LogLines(logging.getLogger("lines")))


def order() -> FlowBuilder[State]:
    return FlowBuilder[State]("order")


async def nothing(state: State) -> None: ...


async def put_down(engine: Engine, run_id: str, head: int = 0) -> None:
    """Wait until nobody works any more on a run that was begun, and has come to version `head`."""
    async with engine.store.changes(run_id) as change:
        while (run := await engine.store.read(run_id)).owner or run.begun is None or run.head < head:
            await change()


def placed(spans: tuple[ReadableSpan, ...]) -> set[tuple[str, str]]:
    """Each span's name, and that of the span it stands below."""
    names = {context_of(span).span_id: span.name for span in spans}
    return {(span.name, "" if span.parent is None else names.get(span.parent.span_id, "elsewhere")) for span in spans}


# Traces ---------------------------------------------------------------------------------------------------------------


async def test_a_run_that_goes_on_in_the_next_engine_is_of_one_trace(seen: Collected) -> None:
    store, approved = MemoryStore(), order().then(nothing, name="reserve").wait_for("approval").then(nothing)
    with collected() as later:
        async with Engine(store, [approved], telemetry=telemetry(seen)) as engine:
            with seen.tracer.start_as_current_span("request") as request:
                await engine.start(approved, {}, run_id="r")
            await put_down(engine, "r")
        async with Engine(store, [approved], telemetry=telemetry(later)) as engine:
            await engine.signal("r", "approval", True)
            await (await engine.handle("r")).result()
        assert placed(seen.spans) == {("request", ""), ("run", "request"), ("reserve", "run")}
        assert placed(later.spans) == {("run", "elsewhere"), ("nothing", "run")}
        assert {context_of(span).trace_id for span in (*seen.spans, *later.spans)} == {
            request.get_span_context().trace_id
        }
        [first], [second] = seen.named("run"), later.named("run")
    assert first.links == ()
    assert [link.context.span_id for link in second.links] == [request.get_span_context().span_id]
    assert [facts(run.attributes)["outcome"] for run in (first, second)] == ["waiting", "completed"]


async def test_a_run_that_an_engine_puts_down_when_it_is_left_goes_on_in_its_trace(seen: Collected) -> None:
    store, begun = MemoryStore(), anyio.Event()

    async def hang(state: State) -> None:
        begun.set()
        if "second" not in state:
            state["second"] = True
            await anyio.sleep_forever()

    slow = order().then(hang)
    async with Engine(store, [slow], telemetry=telemetry(seen), grace=0) as engine:
        await engine.start(slow, {}, run_id="r")
        await begun.wait()
    slow = order().then(nothing, name="hang")
    async with Engine(store, [slow], telemetry=telemetry(seen)) as engine:
        await (await engine.handle("r")).result()
    runs = seen.named("run")
    assert len({context_of(span).trace_id for span in seen.spans}) == 1
    assert [facts(run.attributes)["outcome"] for run in runs] == ["running", "completed"]
    assert [len(run.links) for run in runs] == [0, 1]
    assert seen.numbers("runs") == [({"flow": "order", "status": "completed"}, 1)]


async def test_a_run_whose_process_is_killed_goes_on_in_its_trace_in_the_next_process(
    seen: Collected, tmp_path: Path
) -> None:
    database = str(tmp_path / "runs.db")
    program = [sys.executable, Path(traced_child.__file__), database]
    with subprocess.Popen(program, env=ENVIRONMENT | {"HANGS": "1"}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        trace_id = process.stdout.readline().strip()
        process.kill()
    async with SqliteStore(database) as store, Engine(store, [FLOW], telemetry=telemetry(seen)) as engine:
        await (await engine.handle("r")).result()
    [run] = seen.named("run")
    assert placed(seen.spans) == {("run", "elsewhere"), ("hang", "run")}
    assert trace.format_trace_id(context_of(run).trace_id) == trace_id
    assert [trace.format_trace_id(link.context.trace_id) for link in run.links] == [trace_id]
    assert seen.numbers("recoveries") == [({"flow": "order"}, 1)]


async def test_a_run_that_waits_for_a_place_begins_below_its_caller_without_a_link(seen: Collected) -> None:
    async with Engine(MemoryStore(), [order().then(nothing)], telemetry=telemetry(seen)) as engine:
        with seen.tracer.start_as_current_span("request"):
            handle = await engine.start("order", {}, delay=0.01)
        await handle.result()
    assert placed(seen.spans) == {("request", ""), ("run", "request"), ("nothing", "run")}
    assert seen.named("run")[0].links == ()


async def test_runs_at_the_same_time_are_of_the_traces_of_their_callers(seen: Collected) -> None:
    async def step(state: State) -> None:
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert trace.format_trace_id(trace.get_current_span().get_span_context().trace_id) == state["trace"]

    async def request(engine: Engine) -> None:
        with seen.tracer.start_as_current_span("request") as span:
            state = {"trace": trace.format_trace_id(span.get_span_context().trace_id)}
            handle = await engine.start("order", state)
        await handle.result()

    few = Engine(MemoryStore(), [order().then(step)], telemetry=telemetry(seen), concurrency=5)
    async with few as engine, anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(request, engine)
    assert len({context_of(run).trace_id for run in seen.named("run")}) == 20
    assert placed(seen.spans) == {("request", ""), ("run", "request"), ("step", "run")}


async def test_a_run_that_a_step_calls_is_of_the_trace_of_its_parent(seen: Collected) -> None:
    child = FlowBuilder[State]("child").then(nothing, name="inner")

    async def outer(state: State, ctx: Context[Any]) -> None:
        state["child"] = await engine.call(ctx, child, {})

    parent = order().then(outer)
    async with Engine(MemoryStore(), [parent, child], telemetry=telemetry(seen)) as engine:
        await (await engine.start(parent, {})).result()
    assert len({context_of(span).trace_id for span in seen.spans}) == 1
    flows = {facts(run.attributes)["flow"] for run in seen.named("run")}
    assert flows == {"order", "child"}
    assert ("run", "outer") in placed(seen.spans)


# Lines and metrics ----------------------------------------------------------------------------------------------------


async def test_each_end_is_counted_once_and_each_accepted_run(seen: Collected) -> None:
    async def fail(state: State) -> None:
        if state["fails"]:
            raise ValueError

    flow = order().then(fail).wait_for("approval")
    async with Engine(MemoryStore(), [flow], telemetry=telemetry(seen)) as engine:
        for run_id, fails in (("failed", True), ("completed", False), ("cancelled", False), ("failed", True)):
            await engine.start(flow, {"fails": fails}, run_id=run_id)
            await put_down(engine, run_id)
        await engine.signal("completed", "approval")
        await engine.cancel("cancelled")
        for run_id in ("failed", "completed", "cancelled"):
            with suppress(NotCompleted):
                await (await engine.handle(run_id)).result()
    assert seen.numbers("runs.accepted") == [({"flow": "order"}, 3)]
    runs = {(facts["flow"], facts["status"]): number for facts, number in seen.numbers("runs")}
    assert runs == {("order", status): 1 for status in ("failed", "completed", "cancelled")}
    assert sum(count for _, count, _ in seen.counts("run.duration")) == 3


async def test_runs_at_work_are_measured_as_long_as_the_engine_is_entered(seen: Collected) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def step(state: State) -> None:
        begun.set()
        await go_on.wait()

    flow = order().then(step)
    assert seen.numbers("runs.running") == []
    async with Engine(MemoryStore(), [flow], telemetry=telemetry(seen)) as engine:
        handle = await engine.start(flow, {})
        await begun.wait()
        assert seen.numbers("runs.running") == [({}, 1)]
        assert seen.numbers("writer.lag") == [({}, 0.0)]
        go_on.set()
        await handle.result()
    assert seen.numbers("runs.running") == []


async def test_a_run_whose_process_died_is_recovered_and_after_too_many_times_given_up(seen: Collected) -> None:
    class Abandoned(MemoryStore):
        """One whose runs have lost their processes so often."""

        died = 1

        async def read(self, run_id: str) -> Run:
            return replace(await super().read(run_id), recoveries=self.died)

    store, flow = Abandoned(), order().then(nothing)
    with heard("lines") as lines:
        for run_id, store.died in (("recovered", 1), ("parked", 3)):
            execution = flow.with_versioned_checkpoint(store).execution({}, run_id=run_id)
            await execution.open()
            await execution.abandon(End("running"))
            async with Engine(store, [flow], telemetry=telemetry(seen), max_recoveries=2) as engine:
                with suppress(NotCompleted):
                    await (await engine.handle(run_id)).result()
    assert [f"{line.levelname} {line.getMessage()}" for line in lines if "step" not in line.getMessage()] == [
        "WARNING run recovered is recovered, for its process is gone",
        "INFO run recovered goes on",
        "INFO run recovered is completed",
        "ERROR run parked is given up, for its process has died 3 times in a row",
        "ERROR run parked is failed",
    ]
    assert (seen.numbers("recoveries"), seen.numbers("parked")) == ([({"flow": "order"}, 1)], [({"flow": "order"}, 1)])
    assert {facts["status"] for facts, _ in seen.numbers("runs")} == {"completed", "failed"}


# Laws -----------------------------------------------------------------------------------------------------------------


async def test_no_span_metric_or_line_of_an_engine_holds_a_value(seen: Collected) -> None:
    async def charge(state: State, ctx: Context[Any]) -> None:
        await ctx.emit({SECRET: SECRET})
        if ctx.attempt == 1:
            raise OSError(state["password"])
        if "answer" not in state:
            state["answer"] = await ctx.interrupt(SECRET)
        raise ValueError(state["password"], SECRET)

    flow = order().wait_for("approval", into="approval").then(charge, retries=1)
    store = MemoryStore()
    with heard("lines") as lines, heard() as others:
        async with Engine(store, [flow], telemetry=telemetry(seen)) as engine:
            state = {"password": SECRET, SECRET: SECRET}
            handle = await engine.start(flow, state, run_id="r", tags={SECRET: SECRET}, key=SECRET)
            await put_down(engine, "r")
            await handle.signal("approval", SECRET)
            await put_down(engine, "r", 2)
            await handle.resume(SECRET)
            with pytest.raises(NotCompleted):
                await handle.result()
    assert len(lines) == 10
    assert seen.named("charge")
    text = "".join(f"{line.getMessage()} {vars(line)} {JsonFormatter().format(line)}" for line in (*lines, *others))
    assert SECRET not in text
    assert SECRET not in seen.everything()


async def test_each_line_of_an_engine_names_its_run_and_its_flow(seen: Collected) -> None:
    with heard("lines") as lines:
        async with Engine(MemoryStore(), [order().then(nothing)], telemetry=telemetry(seen)) as engine:
            await (await engine.start("order", {}, run_id="r")).result()
    assert [f"{line.levelname} {line.getMessage()}" for line in lines] == [
        "INFO run r is accepted",
        "INFO run r begins",
        "DEBUG run r: step nothing is done",
        "INFO run r is completed",
    ]
    assert {(vars(line)["flow_run"], vars(line)["flow_name"]) for line in lines} == {("r", "order")}
