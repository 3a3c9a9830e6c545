"""A step that lets time pass: how long, from when on, and what becomes of the run meanwhile."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import BadOption, FlowBuilder, FlowError, Waiting, fragment
from flowneer_async.testing import FakeWorld
from tests.support.stage import Flow, Stage, State
from tests.support.stores import KINDS

START = FakeWorld().now()  # Unix ms


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage("memory", tmp_path)


def woken(state: State) -> None:
    state["woken"] = state.get("woken", 0) + 1


def napping(until: Any) -> Flow:
    return FlowBuilder("nap").sleep(until).then(woken)


IN_AN_HOUR = [
    3600,
    3600.0,
    timedelta(hours=1),
    datetime.fromtimestamp(START / 1000 + 3600, UTC),
    lambda state: 3600,
    lambda state: timedelta(minutes=state["minutes"]),
    lambda state: datetime.fromtimestamp(START / 1000 + 3600, UTC),
]


@pytest.mark.parametrize("until", IN_AN_HOUR)
async def test_a_time_is_seconds_or_a_timedelta_or_a_moment_or_a_function_of_the_state(
    until: Any, tmp_path: Path
) -> None:
    """Each of them says when the run goes on, to the millisecond."""
    stage, flow = Stage("memory", tmp_path), napping(until)
    result = await stage.run(flow, {"minutes": 60})
    assert (result.status, result.waits) == ("waiting", (Waiting("sleep", "sleep", START + 3_600_000),))
    stage.world.move(3599.999)
    assert (await stage.resume(flow)).status == "waiting"
    stage.world.move(0.001)
    assert (await stage.resume(flow)).state == {"minutes": 60, "woken": 1}


async def test_the_deadline_counts_from_when_the_step_was_first_reached(stage: Stage) -> None:
    """Restarts in between, however many, do not move it."""
    flow = napping(100)
    for _ in range(4):
        result = await stage.run(flow)
        assert (result.status, result.waits[0].until) == ("waiting", START + 100_000)
        assert await stage.status() == "waiting"
        stage.world.move(30)
    assert (await stage.run(flow)).state == {"woken": 1}
    assert await stage.status() == "completed"


async def test_a_function_of_the_state_is_asked_once(stage: Stage) -> None:
    """The moment that it gave is stored: a resume does not ask again."""
    asked: list[State] = []

    def until(state: State) -> float:
        asked.append(dict(state))
        return 10

    flow = napping(until)
    await stage.run(flow)
    stage.world.move(9)
    await stage.resume(flow)
    stage.world.move(1)
    assert (await stage.resume(flow)).status == "completed"
    assert asked == [{}]


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_deadline_survives_a_crash_wherever_it_was_stored(stage: Stage, at: int, how: Any) -> None:
    """Once the deadline is stored it holds; before that the step was not reached."""
    flow = napping(100)
    assert await stage.crash(flow, at, how)
    reached = at == 3 or (at, how) == (2, "after")
    stage.world.move(60)
    result = await stage.run(flow)
    assert result.waits[0].until == START + (100_000 if reached else 160_000)


async def test_a_time_that_has_passed_already_is_not_waited_for(quick: Stage) -> None:
    """Neither no seconds, nor a moment of the past, put the run down."""
    flow = FlowBuilder("nap").sleep(0).sleep(datetime(2001, 1, 1, tzinfo=UTC), name="past").then(woken)
    result = await quick.run(flow)
    assert (result.status, result.state) == ("completed", {"woken": 1})


async def test_each_iteration_and_each_visit_sleeps_a_time_of_its_own(quick: Stage) -> None:
    """A loop that sleeps has one deadline for each iteration; so has a step that a jump leads to again."""

    def again(state: State) -> str | None:
        return "#top" if state["woken"] < 4 else None

    body = fragment().sleep(10).then(woken)
    flow = FlowBuilder[State]("nap").anchor("top").loop(lambda s: s.get("woken", 0) % 2 < 1, body, name="poll").sleep(5)
    flow = flow.then(woken, name="twice").then(again)
    result, steps = await quick.run(flow), list[tuple[str, int]]()
    while result.status == "waiting":
        (wait,) = result.waits
        assert wait.until is not None
        steps.append((wait.step, (wait.until - quick.world.now()) // 1000))
        quick.world.move(wait.until / 1000 - quick.world.now() / 1000)
        result = await quick.resume(flow)
    assert steps == [("poll[0]/sleep", 10), ("sleep", 5), ("poll~1[0]/sleep", 10), ("sleep~1", 5)]
    assert result.state == {"woken": 4}


async def test_lanes_sleep_side_by_side(quick: Stage) -> None:
    """Each lane has a deadline of its own; the one that is over goes on, and what the others wait for is told."""

    def mark(key: str) -> Flow:
        flow: Flow = fragment()
        return flow.sleep(lambda s: s[key], name="nap").then(lambda s: s.update({key: 0}), name="mark")

    flow = FlowBuilder("nap").parallel([mark("short"), mark("long")])
    result = await quick.run(flow, {"short": 10, "long": 30})
    waits = {wait.step: wait.until for wait in result.waits}
    assert waits == {"parallel[0]/nap": START + 10_000, "parallel[1]/nap": START + 30_000}
    quick.world.move(10)
    result = await quick.resume(flow)
    assert [wait.step for wait in result.waits] == ["parallel[1]/nap"]
    assert result.state == {"short": 10, "long": 30}
    quick.world.move(20)
    assert (await quick.resume(flow)).state == {"short": 0, "long": 0}


async def test_without_a_store_the_run_sleeps_in_place(tmp_path: Path) -> None:
    """There is nothing that could go on later; so run() takes the time itself."""
    world = FakeWorld()
    result = await napping(timedelta(minutes=1)).run({}, world=world)
    assert (result.status, result.state, world.slept) == ("completed", {"woken": 1}, [60.0])


async def test_a_run_that_sleeps_makes_no_versions_while_it_is_polled(stage: Stage) -> None:
    """Going on too early leaves the chain as it was."""
    flow = napping(100)
    first = await stage.run(flow)
    for _ in range(3):
        assert (await stage.resume(flow)).version == first.version
    assert await stage.paths() == ["sleep/@wait"]


@pytest.mark.parametrize("until", [-1, True, "soon", float("nan"), timedelta(-1), datetime(2030, 1, 1)])
async def test_a_time_that_makes_no_sense_is_refused(until: Any, tmp_path: Path) -> None:
    """While the flow is built where it is written out, else as the failure of the step; a moment needs a zone."""
    with pytest.raises(BadOption, match="until"):
        napping(until)
    stage = Stage("memory", tmp_path)
    with pytest.raises(FlowError) as caught:
        await stage.run(napping(lambda state: until))
    assert isinstance(caught.value.cause, BadOption)
    assert caught.value.step == "sleep"


async def test_a_function_that_fails_is_the_failure_of_the_step(quick: Stage) -> None:
    """The run can go on at the sleep, once the function works."""

    def broken(state: State) -> float:
        raise ZeroDivisionError

    with pytest.raises(FlowError) as caught:
        await quick.run(napping(broken))
    assert (caught.value.step, type(caught.value.cause)) == ("sleep", ZeroDivisionError)
    assert await quick.status() == "failed"
    assert (await quick.run(napping(0))).status == "completed"


async def test_a_forked_sleep_has_a_deadline_of_its_own(stage: Stage) -> None:
    """A fork is a new run: it has the same time to wait, from when it reaches the step."""
    flow = napping(100)
    await stage.run(flow)
    stage.world.move(40)
    fork = await stage.fork(flow, 1, "fork")
    assert (fork.status, fork.waits[0].until) == ("waiting", START + 140_000)
