"""`on_error`: what is done in place of the rest when a step of a flow or body fails for good."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from flowneer_async import BadStep, Context, Failure, FlowBuilder, FlowError, UnknownAnchor, fragment
from flowneer_async.testing import FakeWorld
from tests.support.stage import Flow, Stage, State
from tests.support.stores import KINDS

Ctx = Context[Any]


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage("memory", tmp_path)


def do(state: State, ctx: Ctx) -> None:
    state["done"] = [*state.get("done", []), ctx.step]


def undo(state: State, ctx: Ctx) -> None:
    state["done"] = [*state["done"], ctx.step]


def fail(state: State) -> None:
    state["half"] = "made"
    raise ValueError


def tell(state: State, ctx: Ctx) -> None:
    assert ctx.failure is not None
    state["told"] = [*state.get("told", []), (ctx.step, ctx.failure.step, ctx.failure.error)]


def telling() -> Flow:
    return fragment().then(tell)


async def test_a_failure_leads_to_the_on_error_body_and_the_flow_has_not_failed(stage: Stage) -> None:
    """The rest is not done, what the step had half made is taken back, and ctx.failure names step and error."""
    flow: Flow = FlowBuilder("flow").then(do).then(fail).then(do, name="rest").on_error(telling())
    result = await stage.run(flow)
    assert (result.status, result.failures) == ("completed", ())
    assert result.state == {"done": ["do"], "told": [("@error/tell", "fail", "ValueError")]}
    assert await stage.status() == "completed"
    assert await stage.paths() == ["do", "@failed", "@error/tell"]
    assert (await stage.run(flow)).state == result.state


async def test_nothing_of_it_is_done_when_nothing_fails(quick: Stage) -> None:
    """The flow does its steps, and is over."""
    assert (await quick.run(FlowBuilder[State]("flow").then(do).on_error(telling()))).state == {"done": ["do"]}


async def test_only_a_step_that_has_failed_for_good_leads_there(quick: Stage) -> None:
    """Neither one that is tried again, nor one that has a fallback."""

    def second_time(state: State, ctx: Ctx) -> None:
        if ctx.attempt == 1:
            raise ValueError

    flow: Flow = FlowBuilder("flow").then(second_time, retries=1).then(fail, fallback=do).on_error(telling())
    assert (await quick.run(flow)).state == {"done": ["fail/@fallback"]}


async def test_a_body_that_failed_is_done_and_its_flow_goes_on(quick: Stage) -> None:
    """The steps after the inner flow are done; its failure is known inside its on_error only."""

    def look(state: State, ctx: Ctx) -> None:
        state["failure"] = ctx.failure

    inner = fragment().then(do).then(fail).on_error(telling())
    flow: Flow = FlowBuilder("flow").then(inner, name="inner").then(look)
    assert (await quick.run(flow)).state == {
        "done": ["inner/do"],
        "told": [("inner/@error/tell", "inner/fail", "ValueError")],
        "failure": None,
    }


async def test_the_nearest_on_error_takes_a_failure(quick: Stage) -> None:
    """One that stands deep in cases, loops and flows without any leads out to the next that has one."""
    deep = fragment().branch(
        lambda s: "x", {"x": fragment().loop(lambda s: True, fragment().then(fail), name="l")}, name="b"
    )
    inner = fragment().then(deep, name="deep").on_error(telling())
    flow: Flow = FlowBuilder("flow").then(inner, name="inner").on_error(fragment().then(do))
    assert (await quick.run(flow)).state == {"told": [("inner/@error/tell", "inner/deep/b/x/l[0]/fail", "ValueError")]}


async def test_what_a_body_did_is_undone_before_its_on_error(quick: Stage) -> None:
    """In reverse, and only its own steps: what came before it stays done."""
    inner = (
        fragment()
        .then(do, name="a", compensate=undo)
        .then(do, name="b", compensate=undo)
        .then(fail)
        .on_error(telling())
    )
    flow: Flow = FlowBuilder("flow").then(do, name="before", compensate=undo).then(inner, name="inner")
    result = await quick.run(flow)
    assert result.state["done"] == ["before", "inner/a", "inner/b", "inner/b/@undo", "inner/a/@undo"]
    assert len(result.state["told"]) == 1


async def test_a_later_failure_undoes_what_is_still_done(stage: Stage) -> None:
    """Not once more what an inner on_error has undone; but what that on_error itself has done."""
    log: list[str] = []

    def note(state: State, ctx: Ctx) -> None:
        log.append(ctx.step)

    inner = fragment().then(do, name="a", compensate=note).then(fail)
    inner = inner.on_error(fragment().then(do, name="b", compensate=note))
    flow: Flow = FlowBuilder("flow").then(do, name="c", compensate=note).then(inner, name="inner").then(fail)
    with pytest.raises(FlowError):
        await stage.run(flow)
    assert log == ["inner/a/@undo", "inner/@error/b/@undo", "c/@undo"]


async def test_an_on_error_body_may_fail_itself(quick: Stage) -> None:
    """That is the failure of the body, and the matter of the next one around it, which undoes what is left."""
    inner = fragment().then(fail).on_error(fragment().then(do, name="half", compensate=undo).then(fail, name="worse"))
    flow: Flow = FlowBuilder("flow").then(inner, name="inner").on_error(telling())
    result = await quick.run(flow)
    assert result.state == {
        "done": ["inner/@error/half", "inner/@error/half/@undo"],
        "told": [("@error/tell", "inner/@error/worse", "ValueError")],
    }


async def test_where_the_outermost_on_error_fails_the_run_has_failed_and_goes_on_there(stage: Stage) -> None:
    """Run again, it does not begin with the flow's own steps, but with the step of the on_error that failed."""
    broken = [True]

    def flaky(state: State, ctx: Ctx) -> None:
        if broken[0]:
            raise OSError
        assert ctx.failure == Failure("fail", "ValueError")

    flow: Flow = FlowBuilder("flow").then(do).then(fail).on_error(fragment().then(do, name="first").then(flaky))
    with pytest.raises(FlowError) as caught:
        await stage.run(flow)
    assert caught.value.step == "@error/flaky"
    assert await stage.status() == "failed"
    broken[0] = False
    assert (await stage.run(flow)).state == {"done": ["do", "@error/first"]}


async def test_each_iteration_and_item_has_a_failure_of_its_own(quick: Stage) -> None:
    """One that failed and was handled does not end the loop, nor the batch; nor does it touch the next one."""

    def odd(state: State, ctx: Ctx) -> None:
        if ctx.index is not None and ctx.index % 2:
            raise ValueError
        state["well"] = [*state.get("well", []), ctx.step]

    body = fragment().then(odd).on_error(telling())
    flow: Flow = (
        FlowBuilder("flow")
        .batch(lambda s: "abc", body, name="items")
        .loop(lambda s, ctx: ctx.index < 3, body, name="poll")
        .batch(lambda s: "ab", body, name="lanes", concurrency=2)
    )
    state = (await quick.run(flow)).state
    assert state["well"] == ["items[0]/odd", "items[2]/odd", "poll[0]/odd", "poll[2]/odd", "lanes[0]/odd"]
    assert [step for _, step, _ in state["told"]] == ["items[1]/odd", "poll[1]/odd", "lanes[1]/odd"]


async def test_the_failure_of_a_lane_is_handled_in_the_lane(stage: Stage) -> None:
    """The others are not cancelled, and the lanes are merged as if none had failed."""
    flow: Flow = FlowBuilder("flow").parallel(
        [
            fragment().then(do, name="a", compensate=undo).then(fail).on_error(telling()),
            fragment().then(lambda s: s.update(b=1), name="b"),
        ]
    )
    assert (await stage.run(flow)).state == {
        "done": ["parallel[0]/a", "parallel[0]/a/@undo"],
        "told": [("parallel[0]/@error/tell", "parallel[0]/fail", "ValueError")],
        "b": 1,
    }


async def test_the_failure_of_lanes_leads_to_the_on_error_around_them(quick: Stage) -> None:
    """It sees the state as it was before the lanes; what these had done is undone."""
    log: list[str] = []
    lane = fragment().then(do, name="a", compensate=lambda s, ctx: log.append(ctx.step)).then(fail)
    flow: Flow = FlowBuilder("flow").then(do).parallel([lane]).on_error(telling())
    assert (await quick.run(flow)).state == {
        "done": ["do"],
        "told": [("@error/tell", "parallel[0]/fail", "ValueError")],
    }
    assert log == ["parallel[0]/a/@undo"]


async def test_a_lane_that_takes_too_long_leads_there_too(quick: Stage) -> None:
    """As a failure of the lane with TimeoutError."""

    async def for_ever(state: State) -> None:
        await anyio.sleep_forever()

    flow: Flow = FlowBuilder("flow").parallel([for_ever], timeout=0.001).on_error(telling())
    assert (await quick.run(flow)).state == {"told": [("@error/tell", "parallel[0]", "TimeoutError")]}


@pytest.mark.parametrize("how", ["before", "after"])
async def test_an_on_error_goes_on_after_a_crash(how: Any) -> None:
    """Wherever the process died: once the failure is stored, the body that failed is not tried again."""
    inner = fragment().then(do, name="a", compensate=undo).then(fail)
    inner = inner.on_error(fragment().then(do, name="b").then(tell))
    flow: Flow = FlowBuilder("flow").then(inner, name="inner").then(do, name="z")
    expected = (await flow.run({}, world=FakeWorld())).state
    at = 0
    while True:
        at += 1
        stage = Stage("memory", Path())
        if not await stage.crash(flow, at, how):
            break
        mended = at > 3 or (at == 3 and how == "after")  # the failure is stored: what would work now comes too late
        repaired = fragment().then(do, name="a", compensate=undo).then(do, name="fail")
        repaired = repaired.on_error(fragment().then(do, name="b").then(tell))
        again = FlowBuilder[State]("flow").then(repaired, name="inner").then(do, name="z") if mended else flow
        assert (await stage.run(again)).state == expected
    assert at == 9  # create, a, failed, undo, b, tell, z, the end


# Jumps ----------------------------------------------------------------------------------------------------------------


async def test_an_on_error_may_jump_to_try_its_flow_again(stage: Stage) -> None:
    """To an anchor of the body that failed, or of one around it; each failure is told anew."""

    def third_time(state: State, ctx: Ctx) -> None:
        state["step"] = ctx.step
        if len(state.get("told", [])) < 2:
            raise ValueError

    def again(state: State, ctx: Ctx) -> str:
        tell(state, ctx)
        return "#again"

    own: Flow = FlowBuilder("flow").anchor("again").then(third_time).on_error(fragment().then(again))
    state = (await stage.run(own)).state
    assert state["step"] == "third_time~2"
    assert [step for _, step, _ in state["told"]] == ["third_time", "third_time~1"]
    around: Flow = (
        FlowBuilder("flow").anchor("again").then(fragment().then(third_time).on_error(fragment().then(again)), name="s")
    )
    state = (await Stage("memory", Path()).run(around)).state
    assert state["step"] == "s~2/third_time"
    assert [step for _, step, _ in state["told"]] == ["s/third_time", "s~1/third_time"]


async def test_what_was_undone_before_a_jump_is_done_and_undone_anew(quick: Stage) -> None:
    """A second try that fails as well undoes what it has done, and not what the first one had."""

    def again_once(state: State, ctx: Ctx) -> str | None:
        return "#again" if len(state["done"]) < 3 else None

    flow: Flow = FlowBuilder("flow").anchor("again").then(do, name="a", compensate=undo).then(fail)
    state = (await quick.run(flow.on_error(fragment().then(again_once)))).state
    assert state["done"] == ["a", "a/@undo", "a~1", "a~1/@undo"]


@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_jump_out_of_an_on_error_survives_a_crash(how: Any) -> None:
    """Wherever the process died, the second try is the second."""

    def second_time(state: State, ctx: Ctx) -> None:
        if ctx.step == "second_time":
            raise ValueError
        state["step"] = ctx.step

    flow: Flow = FlowBuilder("flow").then(do).anchor("again").then(second_time).then(do, name="z")
    flow = flow.on_error(fragment().then(do, name="b").then(lambda s: "#again", name="jump"))
    expected, at = (await flow.run({}, world=FakeWorld())).state, 0
    while True:
        at += 1
        stage = Stage("memory", Path())
        if not await stage.crash(flow, at, how):
            break
        assert (await stage.run(flow)).state == expected
    assert at == 9


async def test_a_jump_out_of_the_on_error_of_a_lane_is_refused(quick: Stage) -> None:
    """As any jump out of a lane is."""
    lane = fragment().then(fail).on_error(fragment().then(lambda s: "#top", name="jump"))
    with pytest.raises(UnknownAnchor):
        await quick.run(FlowBuilder[State]("flow").anchor("top").parallel([lane]))


# While it is built ----------------------------------------------------------------------------------------------------


def test_an_on_error_is_checked_while_the_flow_is_built() -> None:
    """One for each flow, of at least one step; a fragment that has one cannot be added to others' steps."""
    flow: Flow = FlowBuilder("flow").then(do)
    for wrong in (fragment(), 5, lambda body: body):
        with pytest.raises(BadStep):
            flow.on_error(wrong)  # type: ignore[arg-type]
    with pytest.raises(BadStep):
        flow.on_error(telling()).on_error(telling())
    with pytest.raises(BadStep):
        flow.add(fragment().then(do, name="more").on_error(telling()))


async def test_without_a_store_a_failure_is_handled_all_the_same() -> None:
    """Undoing, and taking back what the step had half made, too."""
    flow: Flow = FlowBuilder("flow").then(do, compensate=undo).then(fail).on_error(telling())
    result = await flow.run({}, world=FakeWorld())
    assert result.state == {"done": ["do", "do/@undo"], "told": [("@error/tell", "fail", "ValueError")]}
