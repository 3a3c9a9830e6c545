"""The plugins as a whole: what is public, what is imported, what is kept of a run, how they are added."""

import gc
import inspect
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any, assert_type

import anyio
import pytest

from flowneer_async import Context, FlowBuilder, FlowError, plugins
from flowneer_async.hooks import Hooks
from flowneer_async.plugins import (
    CircuitBreaker,
    DryRun,
    ManualStepping,
    Mocks,
    RateLimit,
    Stepper,
    Timed,
    Timing,
    audit_log,
    circuit_breaker,
    dry_run,
    log_lines,
    manual_stepping,
    otel,
    rate_limit,
    step_limit,
    timing,
)
from flowneer_async.plugins.runs import PerRun
from flowneer_stores import MemoryStore
from tests.support.plugged import State, flow, nothing

MADE: dict[str, Callable[[], Hooks[object]]] = {
    "timing": lambda: timing(lambda timed: None),
    "log_lines": log_lines,
    "spans": otel.spans,
    "audit_log": lambda: audit_log(lambda line: None),
    "circuit_breaker": lambda: circuit_breaker(CircuitBreaker()),
    "rate_limit": lambda: rate_limit(RateLimit(1000, 1)),
    "step_limit": lambda: step_limit(1000),
    "dry_run": lambda: dry_run(DryRun()),
}
METHODS = [
    *(value for name in plugins.__all__ if inspect.isclass(value := getattr(plugins, name)) and name.endswith("ing")),
    otel.Tracing,
]


def test_the_list_of_names_is_sorted_and_complete() -> None:
    """Every public name of the package, but its modules, is on its list."""
    public = {name for name, value in vars(plugins).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert list(plugins.__all__) == sorted(public)


@pytest.mark.parametrize("name", plugins.__all__)
def test_every_name_and_method_says_what_it_is(name: str) -> None:
    value = getattr(plugins, name)
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}("), "a docstring that a dataclass made"
    if inspect.isclass(value):
        members = [member for key, member in vars(value).items() if key[0] != "_"]
        assert all(member.__doc__ for member in members if isinstance(member, (types.FunctionType, property)))


def test_opentelemetry_is_imported_where_it_is_used() -> None:
    code = "import sys, flowneer_async.plugins; print([name for name in sys.modules if 'opentelemetry' in name])"
    path = "".join(f"sys.path.insert(0, {entry!r})\n" for entry in reversed(sys.path) if entry)
    ran = subprocess.run([sys.executable, "-c", f"import sys\n{path}{code}"], capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


# Nothing is kept of a run ---------------------------------------------------------------------------------------------


async def completed(plugged: FlowBuilder[State]) -> None:
    await plugged.then(nothing).run({})


async def failed(plugged: FlowBuilder[State]) -> None:
    async def fail(state: State) -> None:
        raise ValueError

    with pytest.raises(FlowError):
        await plugged.then(fail).run({})


async def cancelled(plugged: FlowBuilder[State]) -> None:
    with anyio.CancelScope() as scope:

        async def hang(state: State) -> None:
            scope.cancel()
            await anyio.sleep_forever()

        await plugged.then(hang).run({})


async def waiting(plugged: FlowBuilder[State]) -> None:
    async def ask(state: State, ctx: Context[Any]) -> None:
        await ctx.interrupt("?")

    stored = plugged.then(ask).with_versioned_checkpoint(MemoryStore())
    assert (await stored.run({}, run_id="r")).status == "waiting"


async def cut_off(plugged: FlowBuilder[State]) -> None:
    """The store fails."""

    class Broken(MemoryStore):
        async def append(self, *args: Any, **more: Any) -> Any:
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        await plugged.then(nothing).with_versioned_checkpoint(Broken()).run({}, run_id="r")


def kept() -> list[PerRun[Any]]:
    """All that plugins keep of any run."""
    return [each for each in gc.get_objects() if isinstance(each, PerRun) and len(each)]


@pytest.mark.parametrize("end", [completed, failed, cancelled, waiting, cut_off], ids=lambda end: end.__name__)
@pytest.mark.parametrize("name", [name for name in MADE if name != "dry_run"])
async def test_nothing_is_kept_of_a_run_that_has_ended(name: str, end: Callable[[FlowBuilder[State]], Any]) -> None:
    """In whatever way: a process that does many runs does not grow."""
    others = kept()
    plugged = flow().then(nothing, name="first").add_hooks(MADE[name]())
    await end(plugged)
    assert [each for each in kept() if each not in others] == []


async def test_a_stepper_keeps_nothing_of_a_run_that_has_ended() -> None:
    stepper = Stepper()
    stepper.continue_()
    for end in [completed, failed, cancelled, waiting]:
        await end(flow().add_hooks(manual_stepping(stepper)))
        assert (await stepper.next(), stepper.paused) == (None, ())


# How they are added ---------------------------------------------------------------------------------------------------


def test_each_has_a_class_of_one_method_and_all_go_together() -> None:
    """`FlowBuilder.extend` with all of them: no two have a method of one name."""
    extended = FlowBuilder.extend(METHODS)
    names = [name for method in METHODS for name in vars(method) if name[0] != "_"]
    assert sorted(names) == sorted(f"with_{name}" for name in [*MADE, "mocks", "manual_stepping"])
    assert all(hasattr(extended, name) for name in names)


async def test_the_methods_add_what_the_functions_make() -> None:
    """With a filter or without, each gives a new flow of the same kind."""
    extended: Any = FlowBuilder.extend(METHODS)
    times, record, mocks, lines = list[Timed](), DryRun(), Mocks({"b": None}), list[Any]()

    def boom(state: State) -> None:
        raise AssertionError("called")

    built = extended("flow").then(nothing, name="a").then(boom, name="b").then(boom, name="c")
    plugged = (
        built.with_timing(times.append, ["a"])
        .with_log_lines()
        .with_spans()
        .with_audit_log(lines.append, actor="me")
        .with_circuit_breaker(CircuitBreaker(), ["a"])
        .with_rate_limit(RateLimit(1000, 1))
        .with_step_limit(3)
        .with_mocks(mocks)
        .with_dry_run(record, ["c"])
    )
    assert type(plugged) is extended
    assert plugged is not built
    await plugged.run({})
    assert {time.step for time in times} == {"a"}
    assert record.steps == ["c"]
    assert [call.step for call in mocks.calls] == ["b"]
    assert {line.actor for line in lines} == {"me"}


class Report(FlowBuilder[State], Timing, ManualStepping):
    """A builder that type checkers know the methods of: what `extend` makes, written out."""


async def test_a_subclass_may_name_the_plugins_and_keeps_its_type() -> None:
    """Type checkers follow the whole chain."""
    times, stepper = list[Timed](), Stepper()
    report = Report("report").then(nothing).with_timing(times.append).with_manual_stepping(stepper, ["never"])
    assert_type(report, Report)
    await report.run({})
    assert len(times) == 2
    plain = FlowBuilder[State]("plain").then(nothing).add_hooks(timing(times.append), ["nothing"])
    assert_type(plain, FlowBuilder[State])
