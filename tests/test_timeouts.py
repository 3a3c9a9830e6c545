"""Steps that take too long."""

import asyncio
import math
from typing import Any

import anyio
import pytest

from flowneer_async import (
    Context,
    FlowBuilder,
    FlowError,
    World,
)
from flowneer_async.testing import FakeWorld

State = dict[str, Any]


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

    async def fail(state: State) -> None:
        raise OSError

    with pytest.raises(FlowError):
        await FlowBuilder("flow").then(fail, retries=2, delay=5, timeout=1).run({}, world=World(sleep=sleep))
