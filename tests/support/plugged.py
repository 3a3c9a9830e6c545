"""Flows and contexts for the tests of plugins."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowneer_async import Context, FlowBuilder
from flowneer_async.testing import FakeWorld

State = dict[str, Any]
Main = Callable[[], Awaitable[None]]

each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def in_backend(backend: str, main: Main) -> None:
    anyio.run(main, backend=backend)


def context(step: str = "send", *, run_id: str = "r", attempt: int = 1) -> Context[Any]:
    return Context(run_id, step, attempt, None)


def seconds_of(world: FakeWorld) -> Callable[[], float]:
    """A clock in seconds that stands at 0 now."""
    start = world.now()
    return lambda: (world.now() - start) / 1000


def flow() -> FlowBuilder[State]:
    return FlowBuilder[State]("flow")


async def nothing(state: State) -> None: ...


async def turns(number: int = 20) -> None:
    """Let all other tasks go as far as they can."""
    for _ in range(number):
        await anyio.lowlevel.checkpoint()
