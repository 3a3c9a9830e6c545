"""Logging: what happens in a run, in lines of the standard library's logging that hold no value of the state."""

import logging
from dataclasses import replace
from typing import NamedTuple

from flowneer_async.context import Context
from flowneer_async.hooks import Filter, Hooks, Proceed
from flowneer_async.plugins.builder import F
from flowneer_async.plugins.outcome import type_name
from flowneer_async.plugins.runs import PerRun
from flowneer_async.versions import Status


class Line(NamedTuple):
    """A line, in which the facts stand by their names."""

    level: int
    text: str


BEGINS = Line(logging.INFO, "run %(run)s begins")
AGAIN = Line(logging.WARNING, "run %(run)s: step %(step)s is tried again, attempt %(attempt)d, after %(error)s")
DONE = Line(logging.DEBUG, "run %(run)s: step %(step)s is done")
FAILED = Line(logging.ERROR, "run %(run)s: step %(step)s failed with %(error)s")

_STANDS = "run %(run)s is %(status)s"
STANDS: dict[Status, Line] = {
    "running": Line(logging.INFO, "run %(run)s is put down"),
    "waiting": Line(logging.INFO, _STANDS),
    "completed": Line(logging.INFO, _STANDS),
    "failed": Line(logging.ERROR, _STANDS),
    "cancelled": Line(logging.WARNING, _STANDS),
}
"""How a run stands when a process is done with it: one that is still running is for somebody else to go on with."""


def write(logger: logging.Logger, line: Line, **facts: str | float) -> None:
    """Write a line; its record has each fact as an attribute, `flow_` and its name."""
    # Logging refuses an `extra` that a record has already, so no name of the application's own must be met.
    extra = {f"flow_{name}": fact for name, fact in facts.items()}
    logger.log(line.level, line.text, facts, extra=extra)


def default_logger() -> logging.Logger:
    """The logger named "flowneer_async"."""
    return logging.getLogger("flowneer_async")


def log_lines(logger: logging.Logger | None = None) -> Hooks[object]:
    """Hooks that write to `logger`, by default the one named "flowneer_async".

    INFO: a run begins, or ends. WARNING: a step is tried again, or a run was cancelled. ERROR: a step or a run failed.
    DEBUG: a step is done. Lines hold ids, paths and the types of errors, and have them as attributes too: `flow_run`,
    `flow_step`, `flow_attempt`, `flow_error`, `flow_status`, for whoever writes structured logs.
    """
    return _RunLines(default_logger() if logger is None else logger).hooks()


def step_lines(logger: logging.Logger, flow: str) -> Hooks[object]:
    """The lines on steps alone, which have the name of their flow, too: `flow_name`.

    For whoever writes what becomes of each run, as an engine's telemetry does.
    """
    return _Lines(logger, name=flow).hooks()


class _Lines:
    """Those on steps; each has the facts `common`."""

    def __init__(self, logger: logging.Logger, **common: str) -> None:
        self._logger, self._common = logger, common
        self._failed: PerRun[dict[str, str]] = PerRun(dict)
        """The error of the last attempt, by step: whether there is another attempt is known when it begins."""

    def hooks(self) -> Hooks[object]:
        return Hooks(after_flow=self.ended, wrap_step=self.around, after_step=self.done, on_error=self.failed)

    def ended(self, state: object, ctx: Context, status: Status) -> None:
        self._failed.drop(state, ctx, status)

    async def around(self, proceed: Proceed, state: object, ctx: Context) -> None:
        before = self._failed.of(ctx).pop(ctx.step, None)
        if before is not None:
            self._write(AGAIN, run=ctx.run_id, step=ctx.step, attempt=ctx.attempt, error=before)
        try:
            await proceed()
        except Exception as error:
            self._failed.of(ctx)[ctx.step] = type_name(error)
            raise

    def done(self, state: object, ctx: Context) -> None:
        self._failed.of(ctx).pop(ctx.step, None)
        self._write(DONE, run=ctx.run_id, step=ctx.step)

    def failed(self, state: object, ctx: Context, error: BaseException) -> None:
        self._failed.of(ctx).pop(ctx.step, None)
        self._write(FAILED, run=ctx.run_id, step=ctx.step, error=type_name(error))

    def _write(self, line: Line, **facts: str | int) -> None:
        write(self._logger, line, **facts, **self._common)


class _RunLines(_Lines):
    """Those on runs as well."""

    def hooks(self) -> Hooks[object]:
        return replace(super().hooks(), before_flow=self.begun)

    def begun(self, state: object, ctx: Context) -> None:
        self._write(BEGINS, run=ctx.run_id)

    def ended(self, state: object, ctx: Context, status: Status) -> None:
        super().ended(state, ctx, status)
        self._write(STANDS[status], run=ctx.run_id, status=status)


class Logging:
    """`flow.with_log_lines()`, for `FlowBuilder.extend([Logging])`."""

    def with_log_lines(self: F, logger: logging.Logger | None = None, filter: Filter | None = None) -> F:
        """What happens in a run, and in the steps that `filter` names, is written to `logger`."""
        return self.add_hooks(log_lines(logger), filter)
