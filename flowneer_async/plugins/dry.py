"""Dry run: what would have been done, without doing it."""

from dataclasses import dataclass

from flowneer_async.context import Context
from flowneer_async.hooks import Filter, Hooks
from flowneer_async.plugins.builder import F


@dataclass(frozen=True, slots=True)
class WouldCall:
    """A step that was not called: its path, and the key that it would have given to the outside world."""

    run_id: str
    step: str
    idempotency_key: str


class DryRun:
    """Keeps what would have been called, in its order, in `calls`."""

    def __init__(self) -> None:
        self.calls: list[WouldCall] = []

    @property
    def steps(self) -> list[str]:
        """The paths of all that would have been called."""
        return [call.step for call in self.calls]

    async def around(self, proceed: object, state: object, ctx: Context) -> None:
        """The middleware: note the step, and do not proceed."""
        self.calls.append(WouldCall(ctx.run_id, ctx.step, ctx.idempotency_key))


def dry_run(record: DryRun) -> Hooks[object]:
    """Hooks that note each step in `record` in place of calling it.

    To the run the step is done, and changed nothing. A store keeps it as done: give a dry run no store, or one of its
    own, so that the real run does not find its work done.
    """
    return Hooks(wrap_step=record.around)


class DryRunning:
    """`flow.with_dry_run(record, filter)`, for `FlowBuilder.extend([DryRunning])`."""

    def with_dry_run(self: F, record: DryRun, filter: Filter | None = None) -> F:
        """The steps that `filter` names are noted in `record` in place of being called."""
        return self.add_hooks(dry_run(record), filter)
