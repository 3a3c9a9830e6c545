"""How many runs and steps, how long they take, how far the store is behind. Needs the extra `otel`."""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import metrics

from flowneer_async.context import Context
from flowneer_async.engine.telemetry import Measures, Telemetry, Tell
from flowneer_async.events import Event, StepRetried
from flowneer_async.hooks import Hooks, Proceed
from flowneer_async.plugins.outcome import outcome_of
from flowneer_async.plugins.place import static_path
from flowneer_async.versions import Run, Status

_OF_STEPS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600)
_OF_RUNS = (0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 86_400, 7 * 86_400)


class Metrics(Telemetry):
    """Metrics that `meter` has; `clock` gives seconds.

        flowneer.runs.accepted    counter    {flow}                   runs that were accepted
        flowneer.runs             counter    {flow, status}           runs that are over
        flowneer.run.duration     histogram  {flow, status}           seconds from accepted to over
        flowneer.steps            counter    {flow, step}             steps that are done
        flowneer.retries          counter    {flow, step}             attempts that came after one that failed
        flowneer.step.duration    histogram  {flow, step, outcome}    seconds that an attempt took
        flowneer.recoveries       counter    {flow}                   times that a run's process was gone
        flowneer.parked           counter    {flow}                   runs that were given up for that
        flowneer.runs.running     gauge                               runs that this process works on now
        flowneer.writer.lag       gauge                               seconds that the oldest write has been waiting

    Attributes are `flowneer.flow`, `flowneer.status`, and so on. There are few of each: names of flows, and paths of
    steps without the numbers of items and iterations.
    """

    def __init__(self, meter: metrics.Meter, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._watched: list[Measures] = []
        """One for each engine that is at work in this process."""
        counter = meter.create_counter
        self._accepted = counter("flowneer.runs.accepted", "{run}", "Runs that were accepted")
        self._runs = counter("flowneer.runs", "{run}", "Runs that are over")
        self._steps = counter("flowneer.steps", "{step}", "Steps that are done")
        self._retries = counter("flowneer.retries", "{attempt}", "Attempts of steps that came after one that failed")
        self._recoveries = counter("flowneer.recoveries", "{recovery}", "Times that a run's process was gone")
        self._parked = counter("flowneer.parked", "{run}", "Runs given up, for their processes died again and again")
        self._run_duration = meter.create_histogram(
            "flowneer.run.duration", "s", "From accepted to over", explicit_bucket_boundaries_advisory=_OF_RUNS
        )
        self._step_duration = meter.create_histogram(
            "flowneer.step.duration", "s", "Of one attempt", explicit_bucket_boundaries_advisory=_OF_STEPS
        )
        gauge = meter.create_observable_gauge
        gauge("flowneer.runs.running", [self._running], "{run}", "Runs that this process works on")
        gauge("flowneer.writer.lag", [self._lag], "s", "For how long the oldest write of the store has been waiting")

    def hooks(self, flow: str) -> Sequence[Hooks[object]]:
        """Those that count and time steps."""

        async def around(proceed: Proceed, state: object, ctx: Context) -> None:
            with self._timed(flow, ctx):
                await proceed()

        def done(state: object, ctx: Context) -> None:
            self._steps.add(1, _of_step(flow, ctx.step))

        return (Hooks(wrap_step=around, after_step=done),)

    @contextmanager
    def watch(self, measures: Measures) -> Generator[None]:
        """Whoever collects the metrics asks for these."""
        self._watched.append(measures)
        try:
            yield
        finally:
            self._watched.remove(measures)

    def accepted(self, run: Run) -> None:
        """One more."""
        self._accepted.add(1, _of(run))

    def execution(self, run: Run) -> AbstractContextManager[Tell]:
        """Its retries."""

        def tell(event: Event) -> None:
            if isinstance(event, StepRetried):
                self._retries.add(1, _of_step(run.flow, event.step))

        return nullcontext(tell)

    def ended(self, run: Run, status: Status, seconds: float) -> None:
        """One more, that took so long."""
        facts = {**_of(run), "flowneer.status": status}
        self._runs.add(1, facts)
        self._run_duration.record(seconds, facts)

    def recovered(self, run: Run) -> None:
        """One more."""
        self._recoveries.add(1, _of(run))

    def parked(self, run: Run) -> None:
        """One more."""
        self._parked.add(1, _of(run))

    @contextmanager
    def _timed(self, flow: str, ctx: Context) -> Generator[None]:
        since, outcome = self._clock(), "done"
        try:
            yield
        except GeneratorExit:  # thrown away, where nobody is left to ask what a cancellation is
            outcome = "cancelled"
            raise
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            facts = {**_of_step(flow, ctx.step), "flowneer.outcome": outcome}
            self._step_duration.record(self._clock() - since, facts)

    def _running(self, options: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        watched = tuple(self._watched)  # asked from another thread
        return [metrics.Observation(sum(each.running() for each in watched))] if watched else []

    def _lag(self, options: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        watched = tuple(self._watched)
        return [metrics.Observation(max(each.lag() for each in watched))] if watched else []


def _of(run: Run) -> dict[str, str]:
    return {"flowneer.flow": run.flow}


def _of_step(flow: str, path: str) -> dict[str, str]:
    return {"flowneer.flow": flow, "flowneer.step": static_path(path)}
