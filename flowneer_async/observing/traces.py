"""One trace for each run, over all the processes that work on it. Needs the extra `otel`."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import context as ambient
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flowneer_async.engine.telemetry import Telemetry, Tell
from flowneer_async.hooks import Hooks
from flowneer_async.observing.work import Work, Works, goes_on
from flowneer_async.plugins.otel import current, step_spans
from flowneer_async.versions import Run, Status

_W3C = TraceContextTextMapPropagator()
_TAG = "@traceparent"


class Traces(Telemetry):
    """Spans that `tracer` makes.

    A run belongs to the trace of whoever started it: the span that was current then is kept with the run, as the tag
    `@traceparent` (https://www.w3.org/TR/trace-context); where there was none, a span `start` is made for it. Each
    execution, in whichever process, is a span `run` below that one; a later one is linked to it as well, for what came
    in between may never have been exported. Below it are the spans of lanes and steps. Attributes are ids and types:
    `flowneer.run_id`, `flowneer.flow`, `flowneer.recoveries`, `flowneer.outcome` (the run's status; "running" where it
    was put down for somebody else to go on with), `error.type`, and those of steps.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._works = Works()

    def hooks(self, flow: str) -> Sequence[Hooks[object]]:
        """Those that make the spans of steps."""
        return (step_spans(self._tracer),)

    def tags(self) -> Mapping[str, str]:
        """Where the run is started from, or nothing where nobody traces."""
        carrier = dict[str, str]()
        _W3C.inject(carrier, self._caller())
        return {_TAG: carrier["traceparent"]} if "traceparent" in carrier else {}

    @contextmanager
    def execution(self, run: Run) -> Generator[Tell]:
        """A span, which is the current one meanwhile; nothing else of the context around it is passed on."""
        above = _W3C.extract({"traceparent": run.tags.get(_TAG, "")}, ambient.Context())
        links = [trace.Link(trace.get_current_span(above).get_span_context())] if goes_on(run) else []
        span = self._tracer.start_span("run", above, trace.SpanKind.CONSUMER, _attributes(run), links)
        with current(span, ambient.Context()), self._works.on(run, lambda work: _close(span, work)) as tell:
            yield tell

    def ended(self, run: Run, status: Status, seconds: float) -> None:
        """The outcome of its execution."""
        self._works.ended(run, status)

    def _caller(self) -> ambient.Context:
        context = ambient.get_current()
        if trace.get_current_span(context).get_span_context().is_valid:
            return context
        span = self._tracer.start_span("start", context, trace.SpanKind.PRODUCER)
        span.end()
        return trace.set_span_in_context(span, context)


def _attributes(run: Run) -> dict[str, str | int]:
    return {"flowneer.run_id": run.run_id, "flowneer.flow": run.flow, "flowneer.recoveries": run.recoveries}


def _close(span: trace.Span, work: Work) -> None:
    span.set_attribute("flowneer.outcome", work.status)
    if work.error is not None:
        span.set_attribute("error.type", work.error)
    if work.error is not None or work.status == "failed":
        span.set_status(trace.StatusCode.ERROR, work.error)
