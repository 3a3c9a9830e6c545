"""What telemetry has told: the spans, metrics and lines of a test; and an engine's part in it, played by hand."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flowneer_async import FlowBuilder, Run
from flowneer_async.answers import NO_ANSWER
from flowneer_async.engine.telemetry import Telemetry
from flowneer_async.events import Event
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore

State = dict[str, Any]
Point = tuple[str, Mapping[str, Any], Any]


class Collected:
    """A tracer provider and a meter provider, and what they have collected."""

    def __init__(self) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = self.tracers.get_tracer("test")

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Those that have ended."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def points(self) -> list[Point]:
        """Each metric's name, the attributes of one of its points, and the point."""
        data = self._reader.get_metrics_data()
        return [
            (metric.name.removeprefix("flowneer."), facts(point.attributes), point)
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]

    def numbers(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """The points of a counter or a gauge."""
        return [(dict(facts), point.value) for each, facts, point in self.points() if each == name]

    def counts(self, name: str) -> list[tuple[dict[str, Any], int, float]]:
        """The points of a histogram: how many, and their sum."""
        return [(dict(facts), point.count, point.sum) for each, facts, point in self.points() if each == name]

    def everything(self) -> str:
        """All that was collected, as text."""
        return "\n".join([*(span.to_json() for span in self.spans), str(self.points())])


@contextmanager
def collected() -> Iterator[Collected]:
    each = Collected()
    try:
        yield each
    finally:
        each.close()


@contextmanager
def heard(name: str = "flowneer_async") -> Iterator[list[logging.LogRecord]]:
    """All that is logged there while the block goes on."""
    records, logger = list[logging.LogRecord](), logging.getLogger(name)
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def facts(attributes: Any) -> dict[str, Any]:
    """Attributes without the name of ours before them."""
    return {name.removeprefix("flowneer."): value for name, value in (attributes or {}).items()}


def context_of(span: ReadableSpan) -> Any:
    """The ids of a span."""
    assert span.context is not None
    return span.context


class Hand:
    """One run of an engine, whose part is played by hand: it is accepted at once, and worked on when the test says."""

    def __init__(self, telemetry: Telemetry, flow: FlowBuilder[State], run_id: str = "r") -> None:
        self.telemetry, self.store, self.world = telemetry, MemoryStore(), FakeWorld()
        self._flow = flow.with_versioned_checkpoint(self.store)
        self.run = Run(run_id, flow.name, "dict", (), tags=telemetry.tags())
        telemetry.accepted(self.run)

    async def work(
        self, state: State | None = None, *, answer: object = NO_ANSWER, telemetry: Telemetry | None = None
    ) -> None:
        """One execution, in this process, or in one that has other telemetry; raises what the run raises."""
        telemetry = telemetry or self.telemetry
        flow = self._flow
        for hooks in telemetry.hooks(flow.name):
            flow = flow.add_hooks(hooks)
        with telemetry.execution(self.run) as tell:

            async def watch(event: Event) -> None:
                tell(event)

            self.run = replace(self.run, begun=1, head=1)
            work = flow.execution(state, run_id=self.run.run_id, answer=answer, world=self.world, watch=watch)
            await work.open()
            try:
                result = await work.work()
            except Exception:
                telemetry.ended(self.run, "failed", 2.0)
                raise
            if result.status != "waiting":
                telemetry.ended(self.run, result.status, 2.0)
