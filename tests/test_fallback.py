"""A fallback takes the place of a step that has failed for good."""

from pathlib import Path
from typing import Any

import pytest

from flowneer_async import BadStep, Context, FlowBuilder, FlowError, TooManyVisits, UnknownAnchor, fragment, goto
from flowneer_async.testing import Crash, FakeWorld
from tests.support.stage import Flow, Stage, State
from tests.support.stores import KINDS


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage("memory", tmp_path)


def fail(state: State) -> None:
    state["half"] = "made"
    state["tries"] = state.get("tries", 0) + 1
    raise ValueError


def instead(state: State) -> None:
    state["instead"] = True


def after(state: State) -> None:
    state["after"] = True


def falling_back(step: Any = fail, fallback: Any = instead, **options: Any) -> Flow:
    return FlowBuilder("flow").then(step, name="step", fallback=fallback, **options)


async def test_a_fallback_is_done_in_place_of_a_step_that_failed(stage: Stage) -> None:
    """It begins with the state that was before the step; what comes after goes on as if the step were done."""
    result = await stage.run(falling_back().then(after), {"before": 1})
    assert (result.status, result.state) == ("completed", {"before": 1, "instead": True, "after": True})
    assert await stage.paths() == ["step", "after"]


async def test_a_fallback_waits_for_the_last_attempt(quick: Stage) -> None:
    """Retries come first; a step that does well in one of them needs no fallback."""
    attempts: list[int] = []

    def second_time(state: State, ctx: Context[Any]) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt < 2:
            raise ValueError

    assert (await quick.run(falling_back(second_time, retries=2))).state == {}
    assert attempts == [1, 2]


async def test_a_fallback_follows_a_timeout_too(tmp_path: Path) -> None:
    """A step that takes too long has failed."""

    async def slow(state: State) -> None:
        raise TimeoutError

    assert (await Stage("memory", tmp_path).run(falling_back(slow, timeout=5))).state == {"instead": True}


async def test_a_fallback_has_the_rights_of_a_step(quick: Stage) -> None:
    """It may be async, and want a context: with the run, the item and the live objects of the step."""
    told: list[object] = []

    async def tell(state: State, ctx: Context[str]) -> None:
        told.append((ctx.run_id, ctx.item, ctx.index, ctx.deps))

    flow: Flow = FlowBuilder("flow").batch(lambda s: "ab", fragment().then(fail, fallback=tell), name="all")
    await quick.run(flow, deps="live")
    assert told == [("r", "a", 0, "live"), ("r", "b", 1, "live")]


async def test_a_fallback_that_fails_is_the_failure_of_the_step(stage: Stage) -> None:
    """The error is the fallback's, and shows why the step had failed, too; run again, it begins with the step."""

    def fail_too(state: State) -> None:
        raise KeyError("fallback")

    with pytest.raises(FlowError) as caught:
        await stage.run(falling_back(fallback=fail_too))
    assert (caught.value.step, type(caught.value.cause)) == ("step", KeyError)
    chain, seen = caught.value.cause, list[type]()
    while chain is not None:
        seen.append(type(chain))
        chain = chain.__cause__ or chain.__context__
    assert ValueError in seen
    assert await stage.status() == "failed"
    assert (await stage.run(falling_back())).state == {"instead": True}


async def test_a_fallback_may_jump(quick: Stage) -> None:
    """As the step could have: to an anchor around it, which counts its visits."""

    def over(state: State) -> Any:
        return goto("end")

    flow = falling_back(fallback=over).then(after).anchor("end").then(instead)
    assert (await quick.run(flow)).state == {"instead": True}

    with pytest.raises(UnknownAnchor):
        await Stage("memory", Path()).run(falling_back(fallback=lambda s: "#nowhere"))
    again: Flow = FlowBuilder("flow").anchor("top", max_visits=2).then(fail, fallback=lambda s: "#top")
    with pytest.raises(FlowError) as caught:
        await Stage("memory", Path()).run(again)
    assert isinstance(caught.value.cause, TooManyVisits)


async def test_a_fallback_can_be_undone(quick: Stage) -> None:
    """It stands for its step, whose compensation undoes it."""
    log: list[str] = []
    flow = falling_back(compensate=lambda s, ctx: log.append(ctx.step)).then(fail)
    with pytest.raises(FlowError):
        await quick.run(flow)
    assert log == ["step/@undo"]


async def test_a_fallback_that_was_interrupted_is_begun_anew_with_the_step(stage: Stage) -> None:
    """The step failed before the crash, but that was not stored: it gets another chance."""
    broken, killed = [True], [True]

    def flaky(state: State) -> None:
        if broken[0]:
            raise ValueError
        state["step"] = "well"

    def dies(state: State) -> None:
        if killed[0]:
            raise Crash

    with pytest.raises(Crash):
        await stage.run(falling_back(flaky, dies))
    broken[0] = killed[0] = False
    assert (await stage.run(falling_back(flaky, dies))).state == {"step": "well"}


async def test_a_fallback_in_a_lane_changes_its_draft_alone(quick: Stage) -> None:
    """What the failed step had changed of the draft is not merged."""
    flow: Flow = FlowBuilder("flow").parallel([falling_back(), fragment().then(after)])
    assert (await quick.run(flow)).state == {"instead": True, "after": True}


async def test_a_fallback_for_a_step_that_may_be_done_at_most_once_leaves_no_doubt(quick: Stage) -> None:
    """The step has failed, and was replaced: nobody is asked about it any more."""
    flow = falling_back(delivery="at_most_once").sleep(10)
    assert (await quick.run(flow)).status == "waiting"
    assert (await quick.plan(flow)).in_doubt == ()


async def test_a_fallback_works_without_a_store() -> None:
    """And gets the state that was before the step there, too."""
    assert (await falling_back().run({"before": 1}, world=FakeWorld())).state == {"before": 1, "instead": True}


def test_a_fallback_is_checked_while_the_flow_is_built() -> None:
    """It takes what a step takes."""
    for wrong in (5, lambda: None, lambda a, b, c: None):
        with pytest.raises(BadStep):
            falling_back(fallback=wrong)
