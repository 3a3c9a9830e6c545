"""`plan_resume`: what going on with a run would do, for every kind of position, before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from flowneer_async import (
    Context,
    FlowBuilder,
    FlowChanged,
    FlowError,
    ForeignRun,
    StoreNeeded,
    Undone,
    UnknownRun,
    Waiting,
    fragment,
)
from flowneer_async.testing import Crash, FakeWorld
from tests.support.stage import Flow, Stage, State
from tests.support.stores import KINDS

Ctx = Context[Any]
START = FakeWorld().now()  # Unix ms


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage("memory", tmp_path)


def do(state: State, ctx: Ctx) -> None:
    state["done"] = [*state.get("done", []), ctx.step]


def fail(state: State) -> None:
    raise ValueError


def steps(text: str, flow: Flow | None = None) -> Flow:
    """Steps by their names; `nap` is one that sleeps."""
    flow = FlowBuilder("flow") if flow is None else flow
    for name in text.split():
        flow = flow.sleep(10, name=name) if name.startswith("nap") else flow.then(do, name=name)
    return flow


def body(text: str) -> Flow:
    return steps(text, fragment())


def flow() -> Flow:
    return FlowBuilder("flow").then(do, name="a")


def on_x(state: State) -> str:
    return "x"


def jump(state: State) -> str:
    return "#end"


POSITIONS: dict[str, tuple[Flow, str, str]] = {
    "first": (steps("nap a"), "", "nap"),
    "top": (steps("a b nap c"), "a b", "nap"),
    "sub": (flow().then(body("b nap c"), name="s").then(do, name="d"), "a s/b", "s/nap"),
    "case": (flow().branch(on_x, {"x": body("b nap"), "y": body("c")}), "a on_x/x/b", "on_x/x/nap"),
    "default": (flow().branch(on_x, {"y": body("c")}, default=body("b nap")), "a on_x/default/b", "on_x/default/nap"),
    "loop": (flow().loop(lambda s: True, body("b nap"), name="l"), "a l/b", "l[0]/nap"),
    "batch": (flow().batch(lambda s: "xy", body("b nap"), name="l"), "a l/b", "l[0]/nap"),
    "alone": (flow().batch(lambda s: "xy", body("b nap"), name="l", max_failures=1), "a l/b", "l[0]/nap"),
    "lanes": (flow().batch(lambda s: "xy", body("b nap"), name="l", concurrency=2), "a l/b", "l[0]/nap l[1]/nap"),
    "parallel": (
        flow().parallel([body("b nap"), body("c d"), body("nap-2")], name="l"),
        "a l/b l/c l/d",
        "l[0]/nap l[2]/nap-2",
    ),
    "jump": (flow().then(jump).then(do, name="over").anchor("end").sleep(10, name="nap"), "a jump", "nap~1"),
    "on_error": (flow().then(fail).on_error(body("b nap")), "a @error/b", "@error/nap"),
}


@pytest.mark.parametrize(("flow", "skipped", "again"), POSITIONS.values(), ids=POSITIONS)
async def test_a_waiting_run_goes_on_where_it_waits(flow: Flow, skipped: str, again: str, quick: Stage) -> None:
    """What is done is skipped, and not the bodies that the run is inside of; each lane goes on where it is."""
    await quick.run(flow)
    plan = await quick.plan(flow)
    assert (plan.run_id, plan.status, plan.reason) == ("r", "waiting", None)
    assert (" ".join(plan.skipped), " ".join(plan.again)) == (skipped, again)
    assert (plan.in_doubt, plan.asks) == ((), ())


async def test_nothing_is_run_and_nothing_is_stored(stage: Stage) -> None:
    """Neither a step, nor a lease: the run may even be at work."""
    flow = steps("a nap b")
    await stage.run(flow)
    paths = await stage.paths()
    async with stage.store() as store:
        before = await store.read("r")
        await flow.with_versioned_checkpoint(store).plan_resume("r")
        assert (await store.read("r"), await stage.paths()) == (before, paths)


async def test_it_says_what_the_run_waits_for(stage: Stage) -> None:
    """As the result of the run did, and without running it."""

    async def ask(state: State, ctx: Ctx) -> None:
        await ctx.interrupt({"may": "I?"})

    flow: Flow = FlowBuilder("flow").parallel(
        [fragment().then(ask), fragment().sleep(10, name="nap"), fragment().wait_for("paid", timeout=20)]
    )
    result = await stage.run(flow)
    plan = await stage.plan(flow)
    assert (
        set_of(plan.waits)
        == set_of(result.waits)
        == set_of(
            (
                Waiting("answer", "parallel[0]/ask", question={"may": "I?"}),
                Waiting("sleep", "parallel[1]/nap", START + 10_000),
                Waiting("signal", "parallel[2]/paid", START + 20_000, "paid"),
            )
        )
    )
    assert plan.asks == ("parallel[0]/ask",)


def set_of(waits: Any) -> set[str]:
    """They may come in any order, and a question need not be hashable."""
    return {f"{wait!r} {wait.question!r}" for wait in waits}


async def test_a_step_in_doubt_is_named(stage: Stage) -> None:
    """It may be done at most once, and was interrupted; without verify it waits for an answer."""

    def pay(state: State) -> None:
        raise Crash

    flow = steps("a").batch(lambda s: "x", fragment().then(pay, delivery="at_most_once"), name="all")
    with pytest.raises(Crash):
        await stage.run(flow)
    plan = await stage.plan(flow)
    assert (plan.status, plan.again, plan.in_doubt) == ("running", ("all[0]/pay",), ("all[0]/pay",))
    assert plan.asks == ("all[0]/pay",)


async def test_a_doubt_that_verify_settles_asks_nobody(quick: Stage) -> None:
    """It is in doubt all the same."""

    def pay(state: State) -> None:
        raise Crash

    flow: Flow = FlowBuilder("flow").then(pay, delivery="at_most_once", verify=lambda s: True)
    with pytest.raises(Crash):
        await quick.run(flow)
    plan = await quick.plan(flow)
    assert (plan.in_doubt, plan.asks, plan.waits) == (("pay",), (), ())


async def test_a_failed_run_goes_on_at_the_step_that_failed(quick: Stage) -> None:
    """The same step is done again, for its reason may be gone."""
    flow = steps("a").then(fragment().then(do, name="b").then(fail), name="s")
    with pytest.raises(FlowError):
        await quick.run(flow)
    plan = await quick.plan(flow)
    assert (plan.status, plan.skipped, plan.again) == ("failed", ("a", "s/b"), ("s/fail",))


@pytest.mark.parametrize("at", range(1, 7))
async def test_a_run_that_is_being_undone_goes_on_undoing(at: int, quick: Stage) -> None:
    """The next compensation is named, then the on_error; when all is undone, the reason is Undone."""
    log: list[str] = []

    def undo(state: State, ctx: Ctx) -> None:
        log.append(ctx.step)

    flow = FlowBuilder[State]("flow").then(do, name="a", compensate=undo).then(do, name="b", compensate=undo).then(fail)
    assert await quick.crash(flow, at + 1)  # at 0 the run was not created
    plan = await quick.plan(flow)
    expected = [("a",), ("b",), ("fail",), ("b/@undo",), ("a/@undo",), ()]
    assert plan.again == expected[at - 1]
    if at < 6:
        assert plan.reason is None
        return
    assert isinstance(plan.reason, Undone)
    with pytest.raises(Undone):
        await quick.run(flow)


async def test_an_undone_body_goes_on_with_its_on_error(quick: Stage) -> None:
    """And inside of it as inside of any body."""
    inner = fragment().then(do, name="a", compensate=do).then(fail).on_error(body("b nap c"))
    flow = steps("z").then(inner, name="s")
    seen: list[tuple[str, ...]] = []
    for at in range(4, 9):
        stage = Stage("memory", Path())
        await stage.crash(flow, at)
        seen.append((await stage.plan(flow)).again)
    assert seen == [("s/fail",), ("s/a/@undo",), ("s/@error/b",), ("s/@error/nap",), ("s/@error/nap",)]


async def test_a_finished_run_goes_on_with_nothing(stage: Stage) -> None:
    """What it has done is done; the case that was not taken and the on_error that was not needed are not."""
    flow = steps("a").branch(lambda s: "x", {"x": body("b"), "y": body("c")}, name="r")
    flow = flow.on_error(body("d"))
    await stage.run(flow)
    plan = await stage.plan(flow)
    assert (plan.status, plan.again, plan.reason) == ("completed", (), None)
    assert set(plan.skipped) == {"a", "r", "r/x/b"}


async def test_a_run_that_does_not_fit_has_a_reason(stage: Stage) -> None:
    """The very error that running it would raise."""
    await stage.run(steps("a nap b"))
    changed, other = steps("nap b"), steps("a nap b", FlowBuilder("other"))
    plans = [await stage.plan(changed), await stage.plan(other)]
    assert [type(plan.reason) for plan in plans] == [FlowChanged, ForeignRun]
    for plan, flow in zip(plans, (changed, other), strict=True):
        assert (plan.status, plan.skipped, plan.again) == ("waiting", (), ())
        with pytest.raises(type(plan.reason), match=r"r") as caught:  # type: ignore[arg-type]
            await stage.run(flow)
        assert str(caught.value) == str(plan.reason)


async def test_a_migration_is_planned_and_not_done(stage: Stage) -> None:
    """It is asked where the run would go on; the stored state is as it was."""
    await stage.run(steps("a nap b"))

    def migrate(state: State, change: FlowChanged) -> str:
        state["migrated"] = True
        return "x"

    stage.options["migrate"] = migrate
    paths = await stage.paths()
    plan = await stage.plan(steps("x y"))
    assert (plan.again, plan.reason) == (("y",), None)
    assert await stage.paths() == paths
    del stage.options["migrate"]
    assert (await stage.run(steps("a nap b"))).state == {"done": ["a"]}


async def test_the_progress_of_a_run_is_drawn(stage: Stage) -> None:
    """What is done, where the run is and why, in the flowchart and in the description."""
    flow = steps("a").loop(lambda s: True, body("b nap c"), name="l")
    await stage.run(flow)
    progress = (await stage.plan(flow)).progress
    assert (progress.done, progress.waiting) == (frozenset({"a", "l/b"}), frozenset({"l/nap"}))
    assert (progress.current, progress.failed) == (frozenset(), frozenset())
    described = flow.describe(progress)
    assert marks(described) == {"a": "done", "b": "done", "nap": "waiting", "c": "ahead", "l": "ahead"}
    chart = flow.to_mermaid(progress)
    assert "classDef done" in chart
    assert "classDef waiting" in chart


def marks(described: Any) -> dict[str, str]:
    """The status of each step by its name."""
    found: dict[str, str] = {}
    if isinstance(described, list):
        for each in described:
            found |= marks(each)
    elif isinstance(described, dict):
        if "name" in described and "status" in described:
            found[described["name"]] = described["status"]
        for each in described.values():
            found |= marks(each)
    return found


@pytest.mark.parametrize(("kind", "status"), [("failed", "failed"), ("current", "running")])
async def test_the_mark_tells_why_a_run_stands_where_it_does(kind: str, status: str, stage: Stage) -> None:
    """It has failed there, or its process died."""

    def end(state: State) -> None:
        raise Crash if kind == "current" else ValueError

    flow = steps("a").then(end)
    with pytest.raises((Crash, FlowError)):
        await stage.run(flow)
    plan = await stage.plan(flow)
    assert plan.status == status
    assert getattr(plan.progress, kind) == frozenset({"end"})


async def test_an_unknown_run_has_no_plan(quick: Stage) -> None:
    """UnknownRun, and StoreNeeded without a store."""
    with pytest.raises(UnknownRun):
        await quick.plan(steps("a"))
    with pytest.raises(StoreNeeded):
        await steps("a").plan_resume("r")
