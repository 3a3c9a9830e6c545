"""Retries, delays and timeouts of one step."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec
import pydantic
import pytest

from flowneer_async import (
    Backoff,
    BadOption,
    Context,
    FlowBuilder,
    FlowError,
    StateNotSerializable,
    World,
)
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.chains import stored_states
from tests.support.entries import DictStore

State = dict[str, Any]


async def fail(state: State, ctx: Context[list[int]]) -> None:
    ctx.deps.append(ctx.attempt)
    raise OSError(len(ctx.deps))


def failing(**options: Any) -> FlowBuilder[State]:
    return FlowBuilder("flow").then(fail, **options)


# How often, and how long after ----------------------------------------------------------------------------------------


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


# Options as functions of the state ------------------------------------------------------------------------------------


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


# The state between attempts -------------------------------------------------------------------------------------------


@dataclass
class Data:
    gone: str
    n: int = 1
    items: list[Any] = field(default_factory=lambda: [1, [2]])
    left: Any = None


class Model(pydantic.BaseModel):
    gone: str
    n: int = 1
    items: list[Any] = pydantic.Field(default_factory=lambda: [1, [2]])
    left: Any = None


class Struct(msgspec.Struct):
    gone: str
    n: int = 1
    items: list[Any] = msgspec.field(default_factory=lambda: [1, [2]])
    left: Any = None


def a_dict(gone: str) -> State:
    return {"n": 1, "items": [1, [2]], "gone": gone, "left": None}


def items_of(state: Any) -> State:
    if isinstance(state, dict):
        return state
    return {name: getattr(state, name) for name in ("n", "items", "gone", "left") if hasattr(state, name)}


def change(state: Any, name: str, value: object) -> None:
    state.__setitem__(name, value) if isinstance(state, dict) else setattr(state, name, value)


def drop(state: Any, name: str) -> None:
    state.__delitem__(name) if isinstance(state, dict) else delattr(state, name)


def cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


LEFTOVERS: list[Callable[[], Any]] = [
    object,
    cycle,
    lambda: 10**30,
    lambda: "\ud800",
    int,
]
STORES: list[Callable[[FlowBuilder[Any]], FlowBuilder[Any]]] = [
    lambda flow: flow,
    lambda flow: flow.with_versioned_checkpoint(MemoryStore()),
    lambda flow: flow.with_versioned_checkpoint(MemoryStore(), durability="async"),
    lambda flow: flow.with_versioned_checkpoint(MemoryStore(), durability="exit"),
    lambda flow: flow.with_versioned_checkpoint(MemoryStore(), skip_unchanged=True),
    lambda flow: flow.with_versioned_checkpoint(MemoryStore(), ["nothing"]),
    lambda flow: flow.with_versioned_checkpoint(MemoryStore(), ["mess"]),
    lambda flow: flow.with_versioned_checkpoint(DictStore()),
    lambda flow: flow.with_versioned_checkpoint(DictStore(), ["mess"]),
]
STORE_IDS = ["none", "sync", "async", "exit", "skip", "filter-all", "filter-step", "two-methods", "two-methods-filter"]


@pytest.mark.parametrize("new", [a_dict, Data, Model, Struct], ids=lambda new: new.__name__)
@pytest.mark.parametrize("stored", STORES, ids=STORE_IDS)
@pytest.mark.parametrize("leftover", LEFTOVERS, ids=range(len(LEFTOVERS)))
async def test_each_attempt_begins_with_the_state_before_the_step(
    new: Callable[..., Any], stored: Callable[[Any], Any], leftover: Callable[[], Any]
) -> None:
    """Whatever a failed attempt did to a state of any kind is undone in place, with and without a store."""
    seen: list[State] = []

    def first(state: Any) -> None:
        state_items = items_of(state)["items"]
        state_items.append("first")
        change(state, "n", 1.0)

    async def mess(state: Any, ctx: Context) -> None:
        assert state is passed
        seen.append({name: repr(value) for name, value in items_of(state).items()})
        items_of(state)["items"][1].append(leftover())
        change(state, "left", leftover())
        change(state, "n", True)
        drop(state, "gone")
        if ctx.attempt < 3:
            raise OSError
        change(state, "left", "done")
        items_of(state)["items"][1].pop()

    passed = new(gone="here")
    flow = stored(FlowBuilder("flow", None if new is a_dict else type(passed)).then(first).then(mess, retries=2))
    result = await flow.run(passed, world=FakeWorld())
    assert seen == [{"n": "1.0", "items": "[1, [2], 'first']", "gone": "'here'", "left": "None"}] * 3
    assert items_of(result.state) == {"n": True, "items": [1, [2], "first"], "left": "done"}


async def test_keys_that_an_attempt_added_are_gone_in_the_next() -> None:
    """A new key of a failed attempt is not there in the next one, nor in what is stored."""
    store = MemoryStore()

    async def add(state: State, ctx: Context) -> None:
        assert state == {"a": 1}
        state[f"attempt-{ctx.attempt}"] = object() if ctx.attempt == 1 else True
        if ctx.attempt == 1:
            raise OSError

    await FlowBuilder("flow").then(add, retries=1).with_versioned_checkpoint(store).run({"a": 1}, run_id="r")
    assert await stored_states(store, "r") == [{"a": 1}, {"a": 1, "attempt-2": True}]


async def test_what_an_attempt_did_not_change_stays_the_same_object() -> None:
    """Only values that a failed attempt changed are put back: others keep their identity."""
    kept, changed = [1], [2]

    async def touch(state: State, ctx: Context) -> None:
        assert state["kept"] is kept
        if ctx.attempt == 1:
            state["changed"].append(3)
            raise OSError

    result = await FlowBuilder("flow").then(touch, retries=1).run({"kept": kept, "changed": changed})
    assert result.state["kept"] is kept
    assert result.state["changed"] == [2]


async def test_a_state_that_cannot_be_restored_is_refused_before_the_step() -> None:
    """Retries need a state that could be stored, also without a store; a state that cannot says so by its path."""
    attempts: list[int] = []
    with pytest.raises(StateNotSerializable, match=r"\$\.live"):
        await failing(retries=1).run({"live": object()}, deps=attempts)
    assert attempts == []


async def test_after_the_last_attempt_the_run_goes_on_from_the_state_before_the_step() -> None:
    """A half-changed state of a failed step is never stored."""
    store = MemoryStore()

    async def mess(state: State) -> None:
        state["n"] += 1
        state["left"] = object()
        raise OSError

    flow = FlowBuilder("flow").then(mess, retries=2).with_versioned_checkpoint(store)
    with pytest.raises(FlowError):
        await flow.run({"n": 1}, run_id="r", world=FakeWorld())
    assert await stored_states(store, "r") == [{"n": 1}]


async def test_a_state_that_cannot_be_stored_is_told_and_not_retried() -> None:
    """A value that would not come back ends the run before the step counts as done; a mended step goes on."""
    store, calls = MemoryStore(), list[int]()

    async def leave(state: State) -> None:
        calls.append(1)
        state["rows"] = [1, {"live": object()}]

    async def mended(state: State) -> None:
        state["rows"] = [1]

    flow = FlowBuilder("flow").then(leave, retries=5, name="s").with_versioned_checkpoint(store)
    with pytest.raises(StateNotSerializable, match=r"after step 's': \$\.rows\[1\]\.live") as caught:
        await flow.run({}, run_id="r", world=FakeWorld())
    assert (caught.value.path, caught.value.step, calls) == ("$.rows[1].live", "s", [1])
    assert (await store.read("r")).status == "failed"
    flow = FlowBuilder("flow").then(mended, name="s").with_versioned_checkpoint(store)
    assert (await flow.run(run_id="r")).state == {"rows": [1]}


# Timeouts -------------------------------------------------------------------------------------------------------------


async def hang(state: State, ctx: Context[list[int]]) -> None:
    ctx.deps.append(ctx.attempt)
    assert "mess" not in state
    state["mess"] = object()
    await anyio.sleep_forever()


@pytest.mark.parametrize("timeout", [0.001, lambda state: 0.001])
@pytest.mark.parametrize("retries", [0, 2])
async def test_an_attempt_that_takes_too_long_has_failed(timeout: Any, retries: int) -> None:
    """An attempt past its timeout is cancelled and counts as failed with TimeoutError; the next begins anew."""
    attempts: list[int] = []
    flow = FlowBuilder("flow").then(hang, timeout=timeout, retries=retries)
    with pytest.raises(FlowError) as caught:
        await flow.run({}, deps=attempts, world=FakeWorld())
    assert isinstance(caught.value.cause, TimeoutError)
    assert attempts == list(range(1, retries + 2))


async def test_a_timeout_that_is_none_is_no_limit() -> None:
    """`timeout=None`, given or chosen by a function, lets a step take its time."""

    async def step(state: State) -> None:
        await asyncio.sleep(0)

    for timeout in (None, lambda state: None, 60):
        assert (await FlowBuilder("flow").then(step, timeout=timeout).run({})).status == "completed"


async def test_a_step_may_clean_up_when_its_time_is_over() -> None:
    """A step that is past its timeout sees a cancellation, and its `finally` runs before the next attempt."""
    order: list[str] = []

    async def careful(state: State, ctx: Context) -> None:
        order.append(f"begin {ctx.attempt}")
        try:
            await anyio.sleep_forever()
        finally:
            order.append(f"end {ctx.attempt}")

    with pytest.raises(FlowError):
        await FlowBuilder("flow").then(careful, timeout=0.001, retries=1).run({}, world=FakeWorld())
    assert order == ["begin 1", "end 1", "begin 2", "end 2"]


async def test_delays_do_not_count_as_time_of_an_attempt() -> None:
    """The timeout is that of one attempt: the wait between two is outside of it."""

    async def sleep(seconds: float) -> None:
        assert anyio.current_effective_deadline() == math.inf

    with pytest.raises(FlowError):
        await failing(retries=2, delay=5, timeout=1).run({}, deps=[], world=World(sleep=sleep))


# What is never retried ------------------------------------------------------------------------------------------------


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
