"""Step limit: a run that never comes to an end is stopped."""

from itertools import count

from flowneer_async.context import Context
from flowneer_async.defining import check_count
from flowneer_async.errors import StepLimitReached
from flowneer_async.hooks import Filter, Hooks
from flowneer_async.plugins.builder import F
from flowneer_async.plugins.runs import PerRun


def step_limit(steps: int) -> Hooks[object]:
    """Hooks that let a run do at most so many steps: the next one fails with StepLimitReached, and is not called.

    Every iteration, item and visit counts anew, another attempt of a step does not. It is no part of what is stored: a
    run that is resumed counts from 0.
    """
    check_count("steps", steps, 1)
    begun: PerRun[count[int]] = PerRun(lambda: count(1))

    def before(state: object, ctx: Context) -> None:
        if next(begun.of(ctx)) > steps:
            raise StepLimitReached(ctx.step, ctx.run_id, steps)

    return Hooks(before_step=before, after_flow=begun.drop)


class StepLimiting:
    """`flow.with_step_limit(steps)`, for `FlowBuilder.extend([StepLimiting])`."""

    def with_step_limit(self: F, steps: int, filter: Filter | None = None) -> F:
        """A run does at most so many of the steps that `filter` names."""
        return self.add_hooks(step_limit(steps), filter)
