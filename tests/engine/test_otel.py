"""OpenTelemetry of an engine: one trace for a run however often it is put down, few metrics, no value of the state."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as ambient
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from flowneer_async import Context, FlowBuilder, FlowError, Run
from flowneer_async.engine.telemetry import Several, Telemetry
from flowneer_async.errors import Fenced
from flowneer_async.events import RunFailed, RunStarted, RunWaiting, StepRetried
from flowneer_async.observing import LogLines
from flowneer_async.observing.otel import OpenTelemetry
from flowneer_async.observing.work import Work
from tests.support.observed import Collected, Hand, State, collected, context_of, facts

SECRET = "hunter2"
RUN = Run("r", "report", "dict", ())


@pytest.fixture
def seen() -> Iterator[Collected]:
    with collected() as each:
        yield each


def telemetry(seen: Collected) -> OpenTelemetry:
    return OpenTelemetry(seen.tracers, seen.meters)


def report() -> FlowBuilder[State]:
    return FlowBuilder[State]("report")


async def nothing(state: State) -> None: ...


# Traces ---------------------------------------------------------------------------------------------------------------


async def test_a_run_is_one_span_below_that_of_its_caller_and_its_steps_are_below_it(seen: Collected) -> None:
    with seen.tracer.start_as_current_span("request") as request:
        hand = Hand(telemetry(seen), report().then(nothing))
    await hand.work({})
    step, run = seen.named("nothing")[0], seen.named("run")[0]
    assert len(seen.spans) == 3
    assert run.parent is not None
    assert run.parent.span_id == request.get_span_context().span_id
    assert step.parent == context_of(run)
    assert len({context_of(span).trace_id for span in seen.spans}) == 1
    assert facts(run.attributes) == {"run_id": "r", "flow": "report", "recoveries": 0, "outcome": "completed"}
    assert (run.kind, run.status.status_code, run.links) == (SpanKind.CONSUMER, StatusCode.UNSET, ())


async def test_a_run_that_nobody_traces_who_starts_it_has_a_root_of_its_own(seen: Collected) -> None:
    hand = Hand(telemetry(seen), report().then(nothing))
    await hand.work({})
    [start], [run] = seen.named("start"), seen.named("run")
    assert start.parent is None
    assert start.kind is SpanKind.PRODUCER
    assert run.parent is not None
    assert run.parent.span_id == context_of(start).span_id


async def test_a_later_execution_in_another_process_is_of_the_same_trace_and_linked(seen: Collected) -> None:
    async def ask(state: State, ctx: Context[Any]) -> None:
        state["answer"] = await ctx.interrupt("?")

    with collected() as elsewhere:
        hand = Hand(telemetry(seen), report().then(ask).then(nothing))
        await hand.work({})
        await hand.work(answer=1, telemetry=telemetry(elsewhere))
        [start], [first], [later] = seen.named("start"), seen.named("run"), elsewhere.named("run")
    origin = context_of(start)
    assert context_of(first).trace_id == context_of(later).trace_id == origin.trace_id
    assert context_of(first).span_id != context_of(later).span_id
    assert [(link.context.trace_id, link.context.span_id) for link in later.links] == [
        (origin.trace_id, origin.span_id)
    ]
    assert [facts(run.attributes)["outcome"] for run in (first, later)] == ["waiting", "completed"]


def test_what_is_kept_with_a_run_is_where_it_was_started_from_and_nothing_else(seen: Collected) -> None:
    with seen.tracer.start_as_current_span("request") as request:
        ids = request.get_span_context()
        kept = f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}"
        assert telemetry(seen).tags() == {"@traceparent": kept}


def test_without_a_provider_nothing_is_kept_and_nothing_made() -> None:
    silent = OpenTelemetry(trace.NoOpTracerProvider())
    assert silent.tags() == {}
    with silent.execution(RUN) as tell:
        tell(RunStarted("r", None))
        silent.ended(RUN, "completed", 1.0)


async def test_a_run_whose_caller_is_not_sampled_is_not_sampled_either(seen: Collected) -> None:
    unsampled = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    with unsampled.get_tracer("t").start_as_current_span("request"):
        hand = Hand(telemetry(seen), report().then(nothing))
    await hand.work({})
    assert seen.spans == ()


@pytest.mark.parametrize("tag", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_run_with_no_traceparent_or_a_bad_one_is_traced_by_itself(seen: Collected, tag: str) -> None:
    found = Run("r", "report", "dict", (), tags={"@traceparent": tag}, begun=1, head=1)
    with telemetry(seen).execution(found):
        pass
    [run] = seen.spans
    assert (run.parent, run.links) == (None, ())


def test_an_execution_has_nothing_of_the_context_of_whoever_happened_to_begin_it(seen: Collected) -> None:
    token = ambient.attach(baggage.set_baggage("user", "theirs"))
    with seen.tracer.start_as_current_span("another request") as other, telemetry(seen).execution(RUN):
        assert baggage.get_all() == {}
        assert trace.get_current_span() is not other
    assert baggage.get_all() == {"user": "theirs"}
    ambient.detach(token)
    assert seen.named("run")[0].parent is None


def outcome(seen: Collected) -> tuple[str, str | None, StatusCode]:
    run = seen.named("run")[-1]
    of = facts(run.attributes)
    return of["outcome"], of.get("error.type"), run.status.status_code


def test_an_execution_says_how_the_run_stood_when_it_was_put_down(seen: Collected) -> None:
    told = telemetry(seen)
    with told.execution(RUN):
        pass
    assert outcome(seen) == ("running", None, StatusCode.UNSET)
    with told.execution(RUN) as tell:
        tell(RunWaiting(()))
    assert outcome(seen) == ("waiting", None, StatusCode.UNSET)
    with told.execution(RUN) as tell:
        tell(RunWaiting(()))
        tell(RunStarted("r", "r@1"))  # what it waited for had come
    assert outcome(seen) == ("running", None, StatusCode.UNSET)
    with told.execution(RUN) as tell:
        tell(RunFailed("r", Fenced("r")))
    assert outcome(seen) == ("running", "Fenced", StatusCode.ERROR)
    with told.execution(RUN) as tell:
        tell(RunFailed("r", FlowError("s", "r", OSError(SECRET), 1)))
        told.ended(RUN, "failed", 1.0)
    assert outcome(seen) == ("failed", "OSError", StatusCode.ERROR)
    with told.execution(RUN):
        told.ended(RUN, "cancelled", 1.0)
    assert outcome(seen) == ("cancelled", None, StatusCode.UNSET)


def test_an_execution_that_raises_says_so_and_what_it_raised_goes_on(seen: Collected) -> None:
    with pytest.raises(OSError, match=SECRET), telemetry(seen).execution(RUN):
        raise OSError(SECRET)
    assert outcome(seen) == ("running", "OSError", StatusCode.ERROR)
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_that_a_run_ended_while_nobody_worked_on_it_is_no_trouble(seen: Collected) -> None:
    telemetry(seen).ended(RUN, "cancelled", 1.0)
    assert seen.spans == ()
    assert seen.numbers("runs") == [({"flow": "report", "status": "cancelled"}, 1)]


async def test_executions_at_the_same_time_have_outcomes_of_their_own(seen: Collected) -> None:
    told, other = telemetry(seen), Run("other", "report", "dict", ())
    with told.execution(RUN) as one, told.execution(other):
        told.ended(other, "completed", 1.0)
        one(RunWaiting(()))
    outcomes = {facts(run.attributes)["run_id"]: facts(run.attributes)["outcome"] for run in seen.named("run")}
    assert outcomes == {"r": "waiting", "other": "completed"}


# Metrics --------------------------------------------------------------------------------------------------------------


async def test_runs_and_steps_are_counted_and_timed_by_flow(seen: Collected) -> None:
    async def charge(state: State, ctx: Context[Any]) -> None:
        if ctx.attempt == 1:
            raise OSError(SECRET)

    each = report().batch(lambda state: range(3), report().then(nothing), name="each")
    told = telemetry(seen)
    for run_id in ("a", "b"):
        await Hand(told, each.then(charge, retries=1), run_id).work({})
    done = {"flow": "report", "status": "completed"}
    assert seen.numbers("runs.accepted") == [({"flow": "report"}, 2)]
    assert seen.numbers("runs") == [(done, 2)]
    assert seen.counts("run.duration") == [(done, 2, 4.0)]
    ours, charged = {"flow": "report", "step": "each/nothing"}, {"flow": "report", "step": "charge"}
    assert seen.numbers("steps") == [(ours, 6), (charged, 2)]
    assert seen.numbers("retries") == [(charged, 2)]
    assert [(facts, count) for facts, count, _ in seen.counts("step.duration")] == [
        ({**ours, "outcome": "done"}, 6),
        ({**charged, "outcome": "failed"}, 2),
        ({**charged, "outcome": "done"}, 2),
    ]


def test_recoveries_are_counted_and_so_are_runs_given_up(seen: Collected) -> None:
    told = telemetry(seen)
    told.recovered(RUN)
    told.recovered(RUN)
    told.parked(RUN)
    assert seen.numbers("recoveries") == [({"flow": "report"}, 2)]
    assert seen.numbers("parked") == [({"flow": "report"}, 1)]


class Still:
    """Measures that stand still."""

    def __init__(self, running: int, lag: float) -> None:
        self._running, self._lag = running, lag

    def running(self) -> int:
        return self._running

    def lag(self) -> float:
        return self._lag


def test_all_engines_at_work_in_the_process_are_watched_and_none_that_was_left(seen: Collected) -> None:
    told = telemetry(seen)
    with told.watch(Still(3, 0.5)):
        with told.watch(Still(4, 0.25)):
            assert (seen.numbers("runs.running"), seen.numbers("writer.lag")) == ([({}, 7)], [({}, 0.5)])
        assert seen.numbers("runs.running") == [({}, 3)]
    assert seen.numbers("runs.running") == []


def test_durations_are_in_seconds_and_have_buckets_made_for_seconds(seen: Collected) -> None:
    telemetry(seen).ended(RUN, "completed", 90.0)
    [point] = [point for name, _, point in seen.points() if name == "run.duration"]
    bounds = list(point.explicit_bounds)
    assert bounds[0] < 0.1
    assert bounds[-1] >= 86_400
    assert point.bucket_counts[bounds.index(600)] == 1


def test_metrics_have_no_ids_of_runs(seen: Collected) -> None:
    told, run = telemetry(seen), Run("one-of-many", "report", "dict", ())
    told.accepted(run)
    with told.execution(run) as tell:
        tell(StepRetried("each[12]/send", 1, "OSError", 0.1))
        told.ended(run, "failed", 1.0)
    told.recovered(run)
    told.parked(run)
    assert "one-of-many" not in str(seen.points())
    assert seen.numbers("retries") == [({"flow": "report", "step": "each/send"}, 1)]


# Laws -----------------------------------------------------------------------------------------------------------------


async def test_no_span_and_no_metric_holds_a_value_of_the_state(seen: Collected) -> None:
    async def charge(state: State, ctx: Context[Any]) -> None:
        await ctx.emit(SECRET)
        if ctx.attempt == 1:
            raise OSError(state["password"])
        state[SECRET] = await ctx.interrupt(SECRET)
        raise ValueError(state["password"])

    hand = Hand(telemetry(seen), report().then(charge, retries=2), "r")
    hand.run = Run("r", "report", "dict", (), error=SECRET, key=SECRET, tags={**hand.run.tags, "tenant": SECRET})
    await hand.work({"password": SECRET})
    with pytest.raises(FlowError):
        await hand.work(answer=SECRET)
    assert len(seen.named("run")) == 2
    assert seen.numbers("runs") == [({"flow": "report", "status": "failed"}, 1)]
    assert SECRET not in seen.everything()


async def test_nothing_is_kept_of_an_execution_that_is_over(seen: Collected) -> None:
    others = [each for each in gc.get_objects() if isinstance(each, Work)]
    told = Several(telemetry(seen), LogLines())
    await Hand(told, report().then(nothing)).work({})
    assert [each for each in gc.get_objects() if isinstance(each, Work) and each not in others] == []


def test_opentelemetry_is_imported_where_it_is_used() -> None:
    code = "import sys, flowneer_async.observing; print([name for name in sys.modules if 'opentelemetry' in name])"
    path = "".join(f"sys.path.insert(0, {entry!r})\n" for entry in reversed(sys.path) if entry)
    ran = subprocess.run([sys.executable, "-c", f"import sys\n{path}{code}"], capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


class Spy(Telemetry):
    def __init__(self, name: str, told: list[str]) -> None:
        self._name, self._told = name, told

    def tags(self) -> dict[str, str]:
        return {"@both": self._name, f"@{self._name}": ""}

    def parked(self, run: Run) -> None:
        self._told.append(self._name)

    recovered = accepted = parked


async def test_several_are_told_everything_in_their_order(seen: Collected) -> None:
    told = list[str]()
    both = Several(Spy("one", told), telemetry(seen), Spy("two", told))
    tags = both.tags()
    assert {name: text for name, text in tags.items() if name != "@traceparent"} == {
        "@both": "two",
        "@one": "",
        "@two": "",
    }
    both.accepted(RUN)
    both.recovered(RUN)
    both.parked(RUN)
    assert told == ["one", "two"] * 3
    await Hand(both, report().then(nothing)).work({})
    assert len(seen.named("run")) == len(seen.named("nothing")) == 1
    with both.watch(Still(1, 0.0)):
        assert seen.numbers("runs.running") == [({}, 1)]


async def test_telemetry_that_heeds_nothing_lets_a_run_be(seen: Collected) -> None:
    hand = Hand(Telemetry(), report().then(nothing))
    hand.telemetry.recovered(RUN)
    hand.telemetry.parked(RUN)
    with hand.telemetry.watch(Still(0, 0.0)):
        await hand.work({})
    assert (await hand.store.read("r")).status == "completed"


def test_where_nobody_gives_a_provider_the_global_ones_are_used() -> None:
    assert OpenTelemetry(meter_provider=MeterProvider(shutdown_on_exit=False)).tags() == {}
