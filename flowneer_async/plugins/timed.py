"""Timing: how long each step took, and each of its attempts."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from flowneer_async.context import Context
from flowneer_async.hooks import Filter, Hooks, Proceed
from flowneer_async.plugins.builder import F
from flowneer_async.plugins.runs import PerRun


@dataclass(frozen=True, slots=True)
class Timed:
    """The step at path `step`, or its attempt number `attempt` (from 1), took so many `seconds`.

    Where `attempt` is None it is the step as a whole, with all its attempts and the waits between them; one that was
    cancelled has none. `ok`: it came to its end, and was neither failed, cancelled nor interrupted.
    """

    run_id: str
    step: str
    attempt: int | None
    seconds: float
    ok: bool


def timing(sink: Callable[[Timed], object], *, clock: Callable[[], float] = time.perf_counter) -> Hooks[object]:
    """Hooks that give `sink` the time of each step and of each attempt; `clock` gives seconds.

    The sink is called in between two steps, so it should be quick; what it raises makes the step fail.
    """
    begun: PerRun[dict[str, float]] = PerRun(dict)

    def tell(ctx: Context, attempt: int | None, since: float, ok: bool) -> None:
        sink(Timed(ctx.run_id, ctx.step, attempt, clock() - since, ok))

    def tell_whole(ctx: Context, ok: bool) -> None:
        since = begun.of(ctx).pop(ctx.step, None)
        if since is not None:
            tell(ctx, None, since, ok)

    async def around(proceed: Proceed, state: object, ctx: Context) -> None:
        since, ok = clock(), False
        try:
            await proceed()
            ok = True
        finally:
            tell(ctx, ctx.attempt, since, ok)

    return Hooks(
        before_step=lambda state, ctx: begun.of(ctx).__setitem__(ctx.step, clock()),
        wrap_step=around,
        after_step=lambda state, ctx: tell_whole(ctx, True),
        on_error=lambda state, ctx, error: tell_whole(ctx, False),
        after_flow=begun.drop,
    )


class Timing:
    """`flow.with_timing(sink)`, for `FlowBuilder.extend([Timing])`."""

    def with_timing(self: F, sink: Callable[[Timed], object], filter: Filter | None = None) -> F:
        """The time of each step that `filter` names, and of its attempts, goes to `sink`."""
        return self.add_hooks(timing(sink), filter)
