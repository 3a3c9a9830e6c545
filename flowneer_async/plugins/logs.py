"""Logging: what happens in a run, in lines of the standard library's logging that hold no value of the state."""

import logging

from flowneer_async.context import Context
from flowneer_async.hooks import Filter, Hooks, Proceed
from flowneer_async.plugins.builder import F
from flowneer_async.plugins.outcome import type_name
from flowneer_async.plugins.runs import PerRun
from flowneer_async.versions import Status

_LEVELS: dict[Status, int] = {"failed": logging.ERROR, "cancelled": logging.WARNING}


def log_lines(logger: logging.Logger | None = None) -> Hooks[object]:
    """Hooks that write to `logger`, by default the one named "flowneer_async".

    INFO: a run begins, or ends. WARNING: a step is tried again, or a run was cancelled. ERROR: a step or a run failed.
    DEBUG: a step is done. Lines hold ids, paths and the types of errors, and have them as attributes too: `flow_run`,
    `flow_step`, `flow_attempt`, `flow_error`, `flow_status`, for whoever writes structured logs.
    """
    lines = _Lines(logging.getLogger("flowneer_async") if logger is None else logger)
    return Hooks(
        before_flow=lines.begun,
        after_flow=lines.ended,
        wrap_step=lines.around,
        after_step=lines.done,
        on_error=lines.failed,
    )


class _Lines:
    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._failed: PerRun[dict[str, str]] = PerRun(dict)
        """The error of the last attempt, by step: whether there is another attempt is known when it begins."""

    def begun(self, state: object, ctx: Context) -> None:
        self._write(logging.INFO, "run %s begins", run=ctx.run_id)

    def ended(self, state: object, ctx: Context, status: Status) -> None:
        self._failed.drop(state, ctx, status)
        self._write(_LEVELS.get(status, logging.INFO), "run %s is %s", run=ctx.run_id, status=status)

    async def around(self, proceed: Proceed, state: object, ctx: Context) -> None:
        before = self._failed.of(ctx).pop(ctx.step, None)
        if before is not None:
            line = "run %s: step %s is tried again, attempt %d, after %s"
            self._write(logging.WARNING, line, run=ctx.run_id, step=ctx.step, attempt=ctx.attempt, error=before)
        try:
            await proceed()
        except Exception as error:
            self._failed.of(ctx)[ctx.step] = type_name(error)
            raise

    def done(self, state: object, ctx: Context) -> None:
        self._failed.of(ctx).pop(ctx.step, None)
        self._write(logging.DEBUG, "run %s: step %s is done", run=ctx.run_id, step=ctx.step)

    def failed(self, state: object, ctx: Context, error: BaseException) -> None:
        self._failed.of(ctx).pop(ctx.step, None)
        line = "run %s: step %s failed with %s"
        self._write(logging.ERROR, line, run=ctx.run_id, step=ctx.step, error=type_name(error))

    def _write(self, level: int, line: str, **facts: str | int) -> None:
        # Logging refuses an `extra` that a record has already, so no name of the application's own must be met.
        extra = {f"flow_{name}": fact for name, fact in facts.items()}
        self._logger.log(level, line, *facts.values(), extra=extra)


class Logging:
    """`flow.with_log_lines()`, for `FlowBuilder.extend([Logging])`."""

    def with_log_lines(self: F, logger: logging.Logger | None = None, filter: Filter | None = None) -> F:
        """What happens in a run, and in the steps that `filter` names, is written to `logger`."""
        return self.add_hooks(log_lines(logger), filter)
