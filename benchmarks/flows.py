"""The flows that are measured: many small steps in a row."""

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.data import State
from flowneer_async import Context, FlowBuilder

Change = Callable[[State], None]


async def count(state: State) -> None:
    state["counter"] += 1


async def look(state: State) -> None:
    """What lanes do side by side, for they may not all change one key."""
    state["counter"]


async def change(state: State, ctx: Context[Change]) -> None:
    """Do what the run was given as `deps`."""
    ctx.deps(state)


def small_state() -> State:
    return {"counter": 0, "name": "a small state"}


def row_of(step: Callable[..., Awaitable[None]], steps: int, **options: Any) -> FlowBuilder[State]:
    """A flow of one step, many times over, with these options."""
    flow: FlowBuilder[State] = FlowBuilder("bench")
    for number in range(steps):
        flow = flow.then(step, name=f"step-{number}", **options)
    return flow
