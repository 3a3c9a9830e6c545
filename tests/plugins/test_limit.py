"""Step limit: a run that never comes to an end is stopped."""

import anyio
import pytest

from flowneer_async import BadOption, FlowError, StepLimitReached, goto
from flowneer_async.plugins import step_limit
from flowneer_async.testing import FakeWorld
from tests.support.plugged import State, flow


def step(state: State) -> None:
    state["n"] = state.get("n", 0) + 1


async def stopped(limited, limit: int, state: State | None = None) -> None:  # type: ignore[no-untyped-def]
    """The run is stopped after so many steps."""
    state = {} if state is None else state
    with pytest.raises(FlowError) as caught:
        await limited.add_hooks(step_limit(limit)).run(state, run_id="r")
    cause = caught.value.cause
    assert isinstance(cause, StepLimitReached)
    assert (cause.run_id, cause.limit, state["n"]) == ("r", limit, limit)


async def test_a_jump_that_does_not_end_is_stopped() -> None:
    """Each visit counts."""

    def again(state: State):  # type: ignore[no-untyped-def]
        step(state)
        return goto("top")

    await stopped(flow().anchor("top").then(again), 7)


async def test_a_loop_that_does_not_end_is_stopped() -> None:
    """Each iteration counts."""
    await stopped(flow().loop(lambda state: True, flow().then(step), name="ever"), 7)


async def test_a_run_that_does_as_many_steps_as_it_may_completes() -> None:
    """The limit is what is allowed."""
    limited = flow().then(step, name="a").then(step, name="b")
    assert (await limited.add_hooks(step_limit(2)).run({})).state == {"n": 2}
    await stopped(limited, 1)


async def test_another_attempt_is_no_other_step() -> None:
    attempts = list[int]()

    def fail_twice(state: State, ctx) -> None:  # type: ignore[no-untyped-def]
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise OSError

    await flow().then(fail_twice, retries=2).add_hooks(step_limit(1)).run({}, world=FakeWorld())
    assert attempts == [1, 2, 3]


async def test_a_step_past_the_limit_is_not_tried_again() -> None:
    """It would only be refused again, after its delay."""
    world = FakeWorld()
    with pytest.raises(FlowError) as caught:
        await (
            flow()
            .then(step, name="a")
            .then(step, name="b", retries=5, delay=9)
            .add_hooks(step_limit(1))
            .run({}, world=world)
        )
    assert isinstance(caught.value.cause, StepLimitReached)
    assert world.slept == []


async def test_each_run_has_a_count_of_its_own() -> None:
    """Runs one after the other and at the same time, of one id and of many."""
    limited = flow().then(step, name="a").then(step, name="b").add_hooks(step_limit(2))
    for _ in range(3):
        await limited.run({}, run_id="r")
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(limited.run, {})


@pytest.mark.parametrize("limit", [0, 1.5, True])
def test_a_limit_that_makes_no_sense_is_refused(limit: int) -> None:
    with pytest.raises(BadOption):
        step_limit(limit)
