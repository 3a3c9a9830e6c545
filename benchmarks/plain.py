"""A flow without a store."""

from collections.abc import AsyncIterator

from benchmarks.data import State
from benchmarks.figure import Figure, duration
from benchmarks.flows import count, row_of, small_state
from benchmarks.measure import Scale, awaited, by_turns, timed


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    yield await _run(scale)
    yield await _build(scale)


async def _run(scale: Scale) -> Figure:
    flow = row_of(count, scale.steps)
    pairs = await by_turns(
        lambda: awaited(flow.run(small_state())), lambda: awaited(_loop(small_state(), scale.steps)), scale
    )
    ours, bare = pairs.our_median / scale.steps, pairs.peer_median / scale.steps
    name = f"{scale.steps:,} small steps without a store"
    ours_shown, bare_shown = f"{duration(ours)} a step", f"{duration(bare)} a step"
    return Figure(name, ours_shown, bare_shown, pairs.ratio, "≤ 2 µs", ours <= 2e-6, pairs.spread)


async def _loop(state: State, steps: int) -> None:
    for step in [count] * steps:
        await step(state)


async def _build(scale: Scale) -> Figure:
    """Beside ten flows of a tenth: 1 where each step costs the same."""

    async def whole() -> float:
        return timed(lambda: row_of(count, scale.many))

    async def tenths() -> float:
        return timed(lambda: [row_of(count, scale.many // 10) for _ in range(10)])

    pairs = await by_turns(whole, tenths, scale)
    ours, peer = pairs.our_median, pairs.peer_median
    name = f"building a flow of {scale.many:,} steps"
    return Figure(name, duration(ours), f"{duration(peer)} in tenths", pairs.ratio, "≤ 1 s", ours <= 1, pairs.spread)
