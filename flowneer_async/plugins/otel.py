"""OpenTelemetry: a span for each run, lane and attempt of a step. Needs the extra `otel`, `flowneer-async[otel]`."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from opentelemetry import context as ambient
from opentelemetry import trace

from flowneer_async.context import Context
from flowneer_async.cursor import decode, encode
from flowneer_async.hooks import Filter, Hooks, Proceed
from flowneer_async.plugins.builder import F
from flowneer_async.plugins.outcome import outcome_of, type_name
from flowneer_async.plugins.place import static_path
from flowneer_async.plugins.runs import PerRun
from flowneer_async.versions import Status


def spans(tracer: trace.Tracer | None = None) -> Hooks[object]:
    """Hooks that make spans with `tracer`, by default that of the global provider for "flowneer_async".

    A run's span, `run`, is a child of the span that was current when it began. Spans of steps have the step's path
    without numbers as their name, and are current while the step goes on; they stand below the span of their lane, or
    of the run. Attributes are ids, `flowneer.run_id`, `flowneer.step`, `flowneer.attempt`, and what became of it,
    `flowneer.outcome` and `error.type`: no message of an error, which may hold values of the state.
    """
    return _RunSpans(trace.get_tracer("flowneer_async") if tracer is None else tracer).hooks()


def step_spans(tracer: trace.Tracer) -> Hooks[object]:
    """The same but for the run's span: what stood below it stands below the span that is current then.

    For whoever makes a span around each execution of a run, as an engine's telemetry does.
    """
    return _Spans(tracer).hooks()


@contextmanager
def current(span: trace.Span, within: ambient.Context | None = None) -> Generator[None]:
    """The span is the current one, in the context `within` (None: that which is), until it ends with the block."""
    token = ambient.attach(trace.set_span_in_context(span, within))
    is_ours = True
    try:
        yield
    except GeneratorExit:  # thrown away, maybe by another task: the context is not ours any more
        is_ours = False
        raise
    finally:
        if is_ours:
            ambient.detach(token)
        span.end()


class _Spans:
    """Those of steps and lanes."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._open: PerRun[dict[str, trace.Span]] = PerRun(dict)
        """The spans that others may stand below, by their path; that of the run has none."""

    def hooks(self) -> Hooks[object]:
        return Hooks(after_flow=self.ended, wrap_step=self.around_step, wrap_parallel_fn=self.around_lane)

    def ended(self, state: object, ctx: Context, status: Status) -> None:
        self._open.drop(state, ctx, status)

    async def around_step(self, proceed: Proceed, state: object, ctx: Context) -> None:
        with self._span(ctx, {"flowneer.attempt": ctx.attempt}):
            await proceed()

    async def around_lane(self, proceed: Proceed, state: object, ctx: Context) -> None:
        with self._span(ctx, {}) as span:
            lanes = self._open.of(ctx)
            lanes[ctx.step] = span
            try:
                await proceed()
            finally:
                lanes.pop(ctx.step, None)

    @contextmanager
    def _span(self, ctx: Context, attributes: Mapping[str, int]) -> Generator[trace.Span]:
        ids: dict[str, str | int] = {"flowneer.run_id": ctx.run_id, "flowneer.step": ctx.step, **attributes}
        span = self._tracer.start_span(static_path(ctx.step), self._above(ctx), attributes=ids)
        with current(span):
            try:
                yield span
                span.set_attribute("flowneer.outcome", "done")
            except GeneratorExit:
                raise
            except BaseException as error:
                _fail(span, error)
                raise

    def _above(self, ctx: Context) -> ambient.Context:
        """The context of the span that this one stands below: the innermost lane's, the run's, or the current one."""
        spans = self._open.of(ctx)
        frames = decode(ctx.step)
        paths = (encode(frames[:depth]) for depth in range(len(frames) - 1, -1, -1))
        span = next((spans[path] for path in paths if path in spans), None)
        return ambient.get_current() if span is None else trace.set_span_in_context(span)


class _RunSpans(_Spans):
    """Those of runs as well."""

    def hooks(self) -> Hooks[object]:
        return replace(super().hooks(), before_flow=self.begun)

    def begun(self, state: object, ctx: Context) -> None:
        self._open.of(ctx)[""] = self._tracer.start_span("run", attributes={"flowneer.run_id": ctx.run_id})

    def ended(self, state: object, ctx: Context, status: Status) -> None:
        span = self._open.of(ctx).get("")
        super().ended(state, ctx, status)
        if span is not None:
            span.set_attribute("flowneer.outcome", status)
            if status == "failed":
                span.set_status(trace.StatusCode.ERROR)
            span.end()


def _fail(span: trace.Span, error: BaseException) -> None:
    outcome = outcome_of(error)
    span.set_attribute("flowneer.outcome", outcome)
    if outcome == "failed":
        span.set_attribute("error.type", type_name(error))
        span.set_status(trace.StatusCode.ERROR, type_name(error))


class Tracing:
    """`flow.with_spans(tracer)`, for `FlowBuilder.extend([Tracing])`."""

    def with_spans(self: F, tracer: trace.Tracer | None = None, filter: Filter | None = None) -> F:
        """Each run, and each of its steps that `filter` names, is a span."""
        return self.add_hooks(spans(tracer), filter)
