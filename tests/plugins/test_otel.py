"""OpenTelemetry: a span for each run, lane and attempt, one below the other, with ids alone."""

import contextvars
import logging
import types
from collections.abc import Coroutine, Generator, Iterator
from typing import Any, cast

import anyio
import pytest
from opentelemetry import context as ambient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from flowneer_async import Context, FlowError
from flowneer_async.plugins.otel import spans
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.plugged import State, context, each_backend, flow, in_backend, nothing, turns

SECRET = "hunter2"


class Traces:
    """A tracer, and the spans that it has made and that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def tree(self) -> set[tuple[str, str]]:
        """Each span's path and outcome, each with that of the span it stands below."""
        paths = {span.context.span_id: str(facts(span).get("step", span.name)) for span in self.spans if span.context}
        return {(paths[span.context.span_id], above(span, paths)) for span in self.spans if span.context}


def above(span: ReadableSpan, paths: dict[int, str]) -> str:
    return "" if span.parent is None else paths[span.parent.span_id]


def facts(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("flowneer."): value for name, value in (span.attributes or {}).items()}


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    yield traces
    traces.provider.shutdown()


async def test_a_run_is_a_span_and_so_is_each_attempt_of_its_steps(traces: Traces) -> None:
    """The attempts stand below the run, and have ids and what became of them."""

    def charge(state: State, ctx: Context[Any]) -> None:
        if ctx.attempt == 1:
            raise OSError(state["password"])

    traced = flow().then(charge, retries=1).add_hooks(spans(traces.tracer))
    await traced.run({"password": SECRET}, run_id="r", world=FakeWorld())
    failed, done, run = traces.spans
    ids = {"run_id": "r", "step": "charge"}
    assert facts(failed) == {**ids, "attempt": 1, "outcome": "failed", "error.type": "OSError"}
    assert facts(done) == {**ids, "attempt": 2, "outcome": "done"}
    assert facts(run) == {"run_id": "r", "outcome": "completed"}
    assert [span.name for span in traces.spans] == ["charge", "charge", "run"]
    assert [span.status.status_code for span in traces.spans] == [StatusCode.ERROR, StatusCode.UNSET, StatusCode.UNSET]
    assert traces.tree() == {("charge", "run"), ("run", "")}


async def test_no_span_holds_a_value_of_the_state(traces: Traces) -> None:
    """An error's message may be one: there is no event with it, no status with it."""

    def charge(state: State) -> None:
        raise ValueError(state["password"])

    with pytest.raises(FlowError):
        await flow().then(charge).add_hooks(spans(traces.tracer)).run({"password": SECRET})
    assert len(traces.spans) == 2
    assert SECRET not in "".join(span.to_json() for span in traces.spans)
    assert all(span.status.status_code is StatusCode.ERROR for span in traces.spans)


@each_backend
def test_steps_of_lanes_stand_below_their_lane(backend: str) -> None:
    """However the lanes take turns; a lane inside a lane stands below the outer one."""
    traces = Traces()

    async def step(state: State) -> None:
        await turns()

    async def main() -> None:
        inner = flow().batch(lambda state: range(2), flow().then(step), name="each", concurrency=2)
        traced = flow().parallel([flow().then(step, name="a"), inner], name="both").then(nothing)
        await traced.add_hooks(spans(traces.tracer)).run({})

    in_backend(backend, main)
    items = {f"both[1]/each[{item}]" for item in range(2)}
    assert traces.tree() == {
        ("run", ""),
        ("nothing", "run"),
        ("both[0]", "run"),
        ("both[1]", "run"),
        ("both[0]/a", "both[0]"),
        *((item, "both[1]") for item in items),
        *((f"{item}/step", item) for item in items),
    }
    assert len({span.context.trace_id for span in traces.spans if span.context}) == 1


@each_backend
def test_the_span_of_a_step_is_the_current_one_while_it_goes_on(backend: str) -> None:
    """What the step traces itself stands below it, though two lanes take turns; afterwards all is as it was."""
    traces = Traces()

    async def step(state: State, ctx: Context[Any]) -> None:
        await turns(3)
        with traces.tracer.start_as_current_span(f"own {ctx.step}"):
            await turns(3)

    async def main() -> None:
        bodies = [flow().then(step, name="a"), flow().then(step, name="b")]
        before = ambient.get_current()
        await flow().parallel(bodies, name="both").add_hooks(spans(traces.tracer)).run({})
        assert ambient.get_current() is before

    in_backend(backend, main)
    assert {("own both[0]/a", "both[0]/a"), ("own both[1]/b", "both[1]/b")} < traces.tree()


async def test_a_run_stands_below_the_span_that_was_current(traces: Traces) -> None:
    """A request that starts it, for one; and what else the context holds goes on."""
    seen = list[object]()
    token = ambient.attach(ambient.set_value("mine", "kept"))
    with traces.tracer.start_as_current_span("request"):
        traced = flow().then(lambda state: seen.append(ambient.get_value("mine")), name="look")
        await traced.add_hooks(spans(traces.tracer)).run({})
    ambient.detach(token)
    assert traces.tree() == {("request", ""), ("run", "request"), ("look", "run")}
    assert seen == ["kept"]


async def test_runs_at_the_same_time_have_traces_of_their_own(traces: Traces) -> None:
    async def step(state: State) -> None:
        await turns()

    traced = flow().then(step).add_hooks(spans(traces.tracer))
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(traced.run, {})
    runs = {span.context.span_id: facts(span)["run_id"] for span in traces.spans if span.name == "run" and span.context}
    steps = [span for span in traces.spans if span.name == "step"]
    assert len(steps) == len(runs) == 5
    assert all(span.parent and runs[span.parent.span_id] == facts(span)["run_id"] for span in steps)


@each_backend
def test_a_cancelled_run_has_ended_its_spans_and_is_no_error(backend: str) -> None:
    traces = Traces()

    async def main() -> None:
        with anyio.CancelScope() as scope:

            async def hang(state: State) -> None:
                scope.cancel()
                await anyio.sleep_forever()

            await flow().then(hang).add_hooks(spans(traces.tracer)).run({})

    in_backend(backend, main)
    assert [(span.name, facts(span)["outcome"]) for span in traces.spans] == [
        ("hang", "cancelled"),
        ("run", "cancelled"),
    ]
    assert all(span.status.status_code is StatusCode.UNSET for span in traces.spans)


async def test_a_step_that_interrupts_is_no_error(traces: Traces) -> None:
    """It waits, as it should; what goes on later is a span of its own."""

    async def ask(state: State, ctx: Context[Any]) -> None:
        state["answer"] = await ctx.interrupt("?")

    traced = flow().then(ask).with_versioned_checkpoint(MemoryStore()).add_hooks(spans(traces.tracer))
    await traced.run({}, run_id="r")
    assert [facts(span)["outcome"] for span in traces.spans] == ["interrupted", "waiting"]
    assert all(span.status.status_code is StatusCode.UNSET for span in traces.spans)


async def test_the_span_of_a_step_in_a_batch_has_a_name_without_numbers(traces: Traces) -> None:
    """Names have to be few; the number of the item is in an attribute."""
    batch = flow().batch(lambda state: range(3), flow().then(nothing), name="each")
    await batch.add_hooks(spans(traces.tracer)).run({})
    assert {span.name for span in traces.spans} == {"run", "each/nothing"}
    assert [facts(span).get("step") for span in traces.spans][:3] == [f"each[{item}]/nothing" for item in range(3)]


def test_a_step_that_is_thrown_away_leaves_no_complaint(traces: Traces, caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine may be closed in another context than it ran in: then the span is not the current one any more."""

    @types.coroutine
    def hang() -> Generator[None]:
        yield

    around = spans(traces.tracer).wrap_step
    assert around is not None
    work = cast(Coroutine[Any, Any, object], around(hang, {}, context("hang")))
    contextvars.copy_context().run(work.send, None)
    work.close()
    assert [span.name for span in traces.spans] == ["hang"]
    assert [line for line in caplog.records if line.levelno >= logging.ERROR] == []


async def test_without_a_tracer_the_global_one_is_used() -> None:
    """Where nobody has set one up, that makes nothing, and costs next to nothing."""
    await flow().then(nothing).add_hooks(spans()).run({})
    assert trace.get_current_span() is trace.INVALID_SPAN
