"""Rate limit: never more than so many calls in a span of time, in the order they came."""

import math
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async import BadOption
from flowneer_async.plugins import RateLimit, rate_limit
from flowneer_async.testing import FakeWorld
from tests.support.plugged import State, each_backend, flow, in_backend, nothing, seconds_of, turns
from tests.support.trees import QUICK


def limit_of(world: FakeWorld, calls: int, seconds: float) -> RateLimit:
    return RateLimit(calls, seconds, clock=seconds_of(world), sleep=world.sleep)


@QUICK
@given(
    calls=st.integers(1, 5),
    seconds=st.floats(0.001, 100),
    pauses=st.lists(st.integers(0, 50_000).map(lambda ms: ms / 1000), max_size=30),
)
def test_no_span_of_time_has_more_calls_than_allowed(calls: int, seconds: float, pauses: list[float]) -> None:
    """Wherever the span begins; and nobody waits where the limit is not reached."""
    world = FakeWorld()
    clock, began = seconds_of(world), list[float]()

    async def main() -> None:
        limit = limit_of(world, calls, seconds)
        for pause in pauses:
            world.move(pause)
            free = len(began) < calls or round(clock() - began[-calls] - seconds, 9) > 0
            slept = len(world.slept)
            await limit.acquire()
            assert not free or len(world.slept) == slept
            began.append(clock())

    anyio.run(main)
    assert all(round(later - earlier - seconds, 9) >= 0 for earlier, later in zip(began, began[calls:], strict=False))


@each_backend
def test_who_comes_first_goes_first(backend: str) -> None:
    """However many wait, and one that is cancelled meanwhile holds nobody up and uses nothing."""

    async def main() -> None:
        world, order = FakeWorld(held=True), list[int]()
        limit = limit_of(world, 1, 10)
        scopes = [anyio.CancelScope() for _ in range(5)]

        async def one(number: int) -> None:
            with scopes[number]:
                await limit.acquire()
                order.append(number)

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(one, number)
                await turns()
            scopes[1].cancel()  # sleeps until its token is there
            scopes[3].cancel()  # waits for its turn
            await turns()
            for _ in range(2):
                await world.asleep()
                world.move(10)
                await turns()
        assert order == [0, 2, 4]
        assert world.now() == FakeWorld().now() + 20_000

    in_backend(backend, main)


async def test_runs_steps_and_attempts_share_one_limit() -> None:
    """Two runs of two steps, one of which is tried twice, are six calls: at three in 10 s, that takes one wait."""
    world, began = FakeWorld(), list[float]()
    clock = seconds_of(world)

    def step(state: State, ctx: Any) -> None:
        began.append(clock())
        if ctx.step == "b" and ctx.attempt == 1:
            raise OSError

    limited = flow().then(step, name="a").then(step, name="b", retries=1)
    limited = limited.add_hooks(rate_limit(limit_of(world, 3, 10)))
    async with anyio.create_task_group() as group:
        for run_id in ["r1", "r2"]:
            group.start_soon(lambda run_id=run_id: limited.run({}, run_id=run_id, world=world))
    assert began == [0, 0, 0, 10, 10, 10]


async def test_the_wait_is_no_part_of_the_timeout_of_a_step() -> None:
    """The time of the step's own does not run while it is not called."""
    world, deadlines = FakeWorld(), list[float]()

    async def sleep(seconds: float) -> None:
        deadlines.append(anyio.current_effective_deadline())
        await world.sleep(seconds)

    limit = RateLimit(1, 100, clock=seconds_of(world), sleep=sleep)
    limited = flow().then(nothing, timeout=10).add_hooks(rate_limit(limit))
    for _ in range(2):
        await limited.run({})
    assert deadlines == [math.inf]


@pytest.mark.parametrize("options", [(0, 1), (1.5, 1), (1, 0), (1, float("inf"))])
def test_options_that_make_no_sense_are_refused(options: tuple[Any, Any]) -> None:
    with pytest.raises(BadOption):
        RateLimit(*options)
