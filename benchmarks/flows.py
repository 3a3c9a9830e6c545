"""The flows that are measured: many small steps in a row."""

from collections.abc import Awaitable, Callable

from benchmarks.data import State
from flowneer_async import Context, FlowBuilder

Change = Callable[[State], None]


async def count(state: State) -> None:
    state["counter"] += 1


async def change(state: State, ctx: Context[Change]) -> None:
    """Do what the run was given as `deps`."""
    ctx.deps(state)


def small_state() -> State:
    return {"counter": 0, "name": "a small state"}


def row_of(step: Callable[..., Awaitable[None]], steps: int) -> FlowBuilder[State]:
    """A flow of one step, many times over."""
    flow: FlowBuilder[State] = FlowBuilder("bench")
    for number in range(steps):
        flow = flow.then(step, name=f"step-{number}")
    return flow
