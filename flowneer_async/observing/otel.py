"""OpenTelemetry: traces and metrics of what an engine does. Needs the extra `otel`, `flowneer-async[otel]`."""

from opentelemetry import metrics, trace

from flowneer_async.engine.telemetry import Several
from flowneer_async.observing.metrics import Metrics
from flowneer_async.observing.traces import Traces


class OpenTelemetry(Several):
    """Traces and metrics, by these providers; by default by the global ones, whichever the application has set.

        engine = Engine(store, flows=[report], telemetry=OpenTelemetry())

    `flowneer_async.observing.traces.Traces` says what a trace looks like, `…observing.metrics.Metrics` which metrics
    there are. Flows of the engine need no `with_spans` of their own.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        super().__init__(
            Traces(trace.get_tracer("flowneer_async", tracer_provider=tracer_provider)),
            Metrics(metrics.get_meter("flowneer_async", meter_provider=meter_provider)),
        )
