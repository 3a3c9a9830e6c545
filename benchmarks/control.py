"""What control flow costs without a store: each kind beside the plain steps that stand inside of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.data import State
from benchmarks.figure import Figure, Pairs, times
from benchmarks.flows import count, look, row_of, small_state
from benchmarks.measure import Scale, awaited, by_turns
from flowneer_async import Context, FlowBuilder, Hooks, fragment
from flowneer_async.hooks import Proceed
from flowneer_async.steps import Next

Flow: TypeAlias = FlowBuilder[State]

MOST = 2
LANES = 4


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of step: a flow with so many uses of it, and the plain step that stands in each, if any does."""

    flow: Callable[[int], Flow]
    inner: Callable[[State], Awaitable[None]] | None = None


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    for name, kind in KINDS.items():
        pairs = await _measured(kind, scale)
        yield times(name, pairs.each(scale.steps), MOST)


async def _measured(kind: Kind, scale: Scale) -> Pairs:
    """One more use of the kind, beside one plain step: what stands in it is taken off."""
    flow, plain = kind.flow(scale.steps), row_of(kind.inner or count, scale.steps)
    pairs = await by_turns(lambda: awaited(flow.run(small_state())), lambda: awaited(plain.run(small_state())), scale)
    return pairs if kind.inner is None else pairs.beyond()


# The kinds ------------------------------------------------------------------------------------------------------------


def _subs(uses: int) -> Flow:
    inner = _new().then(count)
    return _row(lambda flow, name: flow.then(inner, name=name), uses)


def _branches(uses: int) -> Flow:
    return _row(lambda flow, name: flow.branch(_left, {"left": count, "right": look}, name=name), uses)


def _loop(uses: int) -> Flow:
    return _new().loop(lambda state: state["counter"] < uses, count, name="loop")


def _batch(uses: int, concurrency: int = 1, max_failures: int = 0) -> Flow:
    inner = count if concurrency == 1 and not max_failures else look
    return _new().batch(lambda _: range(uses), inner, name="batch", concurrency=concurrency, max_failures=max_failures)


def _parallels(uses: int) -> Flow:
    """As many lanes as uses, some more where they do not come out even."""
    lanes = [fragment(State).then(look, name=f"lane-{number}") for number in range(LANES)]
    return _row(lambda flow, name: flow.parallel(lanes, name=name), -(-uses // LANES))


def _jumps(uses: int) -> Flow:
    async def jump(state: State) -> str | None:
        state["counter"] += 1
        return "#again" if state["counter"] < uses else None

    return _new().anchor("again").then(jump)


def _anchors(uses: int) -> Flow:
    return _row(lambda flow, name: flow.anchor(name), uses)


def _sleeps(uses: int) -> Flow:
    return _row(lambda flow, name: flow.sleep(0, name=name), uses)


def _hooked(hooks: Hooks[State]) -> Callable[[int], Flow]:
    return lambda uses: row_of(count, uses).add_hooks(hooks)


def _row(add: Callable[[Flow, str], Flow], uses: int) -> Flow:
    flow = _new()
    for number in range(uses):
        flow = add(flow, f"step-{number}")
    return flow


def _new() -> Flow:
    return FlowBuilder("bench")


def _left(_state: State) -> str:
    return "left"


async def _count_with(state: State, _ctx: Context) -> None:
    state["counter"] += 1


async def _count_once(state: State, ctx: Context) -> None:
    state["counter"] = await ctx.once("next", _next, state["counter"])


async def _next(number: int) -> int:
    return number + 1


async def _proceed(proceed: Proceed, _state: State, _ctx: Context) -> Next:
    return await proceed()


KINDS = {
    "a flow as a step": Kind(_subs, count),
    "a branch": Kind(_branches, count),
    "an iteration of a loop": Kind(_loop, count),
    "an item of a batch": Kind(_batch, count),
    "an item of a batch that may fail": Kind(lambda uses: _batch(uses, max_failures=1), look),
    "an item of a batch, 100 at a time": Kind(lambda uses: _batch(uses, concurrency=100), look),
    f"a lane of {LANES}": Kind(_parallels, look),
    "a jump": Kind(_jumps, count),
    "an anchor that is passed": Kind(_anchors),
    "a sleep of 0 s": Kind(_sleeps),
    "a step that takes ctx": Kind(lambda uses: row_of(_count_with, uses)),
    "a step with retries": Kind(lambda uses: row_of(count, uses, retries=1)),
    "a step with a timeout": Kind(lambda uses: row_of(count, uses, timeout=60)),
    "a step with a fallback": Kind(lambda uses: row_of(count, uses, fallback=look)),
    "a step with a compensation": Kind(lambda uses: row_of(count, uses, compensate=look)),
    "a step that is done at most once": Kind(lambda uses: row_of(count, uses, delivery="at_most_once")),
    "a step that calls ctx.once": Kind(lambda uses: row_of(_count_once, uses)),
    "a step that a hook is told of": Kind(_hooked(Hooks(before_step=lambda _state, _ctx: None))),
    "a step in a middleware": Kind(_hooked(Hooks(wrap_step=_proceed))),
}
