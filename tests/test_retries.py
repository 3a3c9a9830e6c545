"""How often a step is tried, how long after, and what is never tried again."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from flowneer_async import (
    Backoff,
    BadOption,
    Context,
    FlowBuilder,
    FlowError,
    World,
)
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.chains import stored_states

State = dict[str, Any]


async def fail(state: State, ctx: Context[list[int]]) -> None:
    ctx.deps.append(ctx.attempt)
    raise OSError(len(ctx.deps))


def failing(**options: Any) -> FlowBuilder[State]:
    return FlowBuilder("flow").then(fail, **options)


@pytest.mark.parametrize("retries", [0, 1, 4])
async def test_a_step_is_tried_once_and_then_as_often_as_it_has_retries(retries: int) -> None:
    """`retries` more attempts, numbered from 1; the error of the last is the one told."""
    attempts: list[int] = []
    with pytest.raises(FlowError) as caught:
        await failing(retries=retries).run({}, deps=attempts, world=FakeWorld())
    assert attempts == list(range(1, retries + 2))
    assert caught.value.attempts == retries + 1
    assert caught.value.cause.args == (retries + 1,)
    assert caught.value.cause is caught.value.__cause__
    assert not retries or f"after {retries + 1} attempts" in str(caught.value)


async def test_a_step_that_succeeds_is_not_tried_again() -> None:
    """The first attempt that ends well is the last."""
    attempts: list[int] = []

    async def second_time(state: State, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise OSError

    world = FakeWorld()
    await FlowBuilder("flow").then(second_time, retries=9, delay=2.5).run({}, world=world)
    assert (attempts, world.slept) == ([1, 2], [2.5])


@pytest.mark.parametrize(
    ("delay", "draws", "slept"),
    [
        (0.0, [0], [0, 0, 0, 0]),
        (3, [0], [3, 3, 3, 3]),
        (Backoff(first=1, factor=3, most=20, jitter=0), [0.9], [1, 3, 9, 20]),
        (Backoff(first=1, factor=1, jitter=1), [0, 0.25, 0.5, 1], [1, 0.75, 0.5, 0]),
        (Backoff(first=2, factor=2, most=10, jitter=0.5), [0, 1, 0.5, 0], [2, 2, 6, 10]),
    ],
    ids=str,
)
async def test_the_delay_is_slept_before_each_retry(delay: Any, draws: list[float], slept: list[float]) -> None:
    """The world sleeps between attempts, and neither before the first nor after the last."""
    world = FakeWorld(draws=draws)
    with pytest.raises(FlowError):
        await failing(retries=4, delay=delay).run({}, deps=[], world=world)
    assert world.slept == slept


def test_a_back_off_never_overflows() -> None:
    """The millionth wait is the longest, like the hundredth."""
    assert Backoff(first=1, factor=10, most=60, jitter=0).wait(10**6, lambda: 0.0) == 60
    assert Backoff(first=0, most=0).wait(10**6, lambda: 1.0) == 0


@pytest.mark.parametrize(
    "numbers", [{"first": -1}, {"factor": 0.5}, {"most": -1}, {"jitter": 2}, {"jitter": -0.1}, {"first": math.nan}]
)
def test_a_back_off_that_makes_no_sense_is_refused(numbers: dict[str, float]) -> None:
    """Negative waits, shrinking ones and a jitter above all of it are refused."""
    with pytest.raises(BadOption):
        Backoff(**numbers)


async def test_options_may_be_functions_of_the_state() -> None:
    """Retries, delay and timeout may each be a function, asked with the state before the step."""
    seen: list[State] = []

    def asked(value: object) -> Callable[[State], Any]:
        return lambda state: seen.append(dict(state)) or value

    async def hang(state: State, ctx: Context[list[int]]) -> None:
        ctx.deps.append(ctx.attempt)
        state["mess"] = True
        await anyio.sleep_forever()

    world, attempts = FakeWorld(), list[int]()
    flow = FlowBuilder("flow").then(hang, retries=asked(2), delay=asked(7), timeout=asked(0.001))
    with pytest.raises(FlowError):
        await flow.run({"a": 1}, deps=attempts, world=world)
    assert (attempts, world.slept) == ([1, 2, 3], [7, 7])
    assert all(state == {"a": 1} for state in seen)


BAD_VALUES = [
    ("retries", -1),
    ("retries", 1.0),
    ("retries", True),
    ("retries", None),
    ("delay", -0.5),
    ("delay", math.inf),
    ("delay", math.nan),
    ("delay", "1"),
    ("timeout", 0),
    ("timeout", -1),
    ("timeout", math.nan),
]


@pytest.mark.parametrize(("option", "value"), BAD_VALUES)
def test_a_bad_option_is_refused_while_building(option: str, value: object) -> None:
    """An option that makes no sense is an error before any run, which names it."""
    with pytest.raises(BadOption, match=option):
        failing(**{option: value})


@pytest.mark.parametrize(("option", "value"), BAD_VALUES)
async def test_a_bad_value_from_a_function_is_told_before_the_step(option: str, value: object) -> None:
    """What a function of the state gives is checked too: the step fails with the option's name, and is not called."""
    attempts: list[int] = []
    options: dict[str, Any] = {"retries": 1, option: lambda state: value}
    with pytest.raises(FlowError) as caught:
        await failing(**options).run({}, deps=attempts, world=FakeWorld())
    assert isinstance(caught.value.cause, BadOption)
    assert caught.value.cause.option == option
    assert attempts == []


async def test_a_function_that_fails_is_the_steps_failure() -> None:
    """An option's function that raises fails its step, and the run can go on once that is mended."""
    store = MemoryStore()
    flow = failing(retries=lambda state: state["retries"]).with_versioned_checkpoint(store)
    with pytest.raises(FlowError) as caught:
        await flow.run({}, run_id="r", deps=[])
    assert isinstance(caught.value.cause, KeyError)
    assert (await store.read("r")).status == "failed"


class Crash(BaseException):
    """What no step catches."""


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def crash() -> None:
    raise Crash


@pytest.mark.parametrize(("act", "error"), [(cancel_itself, asyncio.CancelledError), (crash, Crash)])
@pytest.mark.parametrize("timeout", [None, 60])
async def test_a_cancellation_is_not_retried(
    act: Callable[[], Awaitable[None]], error: type[BaseException], timeout: float | None
) -> None:
    """Being cancelled, or told to end, is no failure of the step: it goes through at once."""
    attempts: list[int] = []

    async def step(state: State, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        await act()

    flow = FlowBuilder("flow").then(step, retries=3, timeout=timeout)
    with pytest.raises(error):
        await asyncio.create_task(flow.run({}))
    assert attempts == [1]


async def test_a_run_cancelled_between_two_attempts_keeps_the_state_before_the_step() -> None:
    """Cancelled while it waits for the next attempt, a run is stored as cancelled with the state before the step."""
    store = MemoryStore()

    async def sleep(seconds: float) -> None:
        await cancel_itself()

    flow = failing(retries=3).with_versioned_checkpoint(store)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(flow.run({"n": 1}, run_id="r", deps=[], world=World(sleep=sleep)))
    assert (await store.read("r")).status == "cancelled"
    assert await stored_states(store, "r") == [{"n": 1}]
