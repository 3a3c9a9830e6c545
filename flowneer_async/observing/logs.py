"""Structured lines of the standard library's logging on what an engine does."""

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from flowneer_async.engine.telemetry import Telemetry, Tell
from flowneer_async.hooks import Hooks
from flowneer_async.observing.work import Work, Works, goes_on
from flowneer_async.plugins.logs import BEGINS, STANDS, Line, default_logger, step_lines, write
from flowneer_async.versions import Run, Status

_ACCEPTED = Line(logging.INFO, "run %(run)s is accepted")
_GOES_ON = Line(logging.INFO, "run %(run)s goes on")
_RECOVERED = Line(logging.WARNING, "run %(run)s is recovered, for its process is gone")
_PARKED = Line(logging.ERROR, "run %(run)s is given up, for its process has died %(recoveries)d times in a row")
_FAILED = Line(logging.ERROR, "run %(run)s is failed with %(error)s")
_LEFT = Line(logging.WARNING, "run %(run)s is put down after %(error)s")


class LogLines(Telemetry):
    """Writes to `logger`, by default the one named "flowneer_async".

    INFO: a run is accepted, begins, goes on, waits, is put down for somebody else to go on with, or is completed.
    WARNING: a step is tried again; a run is recovered, cancelled, or put down after an error, of the store for one.
    ERROR: a step or a run failed, or a run was given up. DEBUG: a step is done. Lines hold ids, paths and the types of
    errors, and have them as attributes too: `flow_run`, `flow_name`, `flow_step`, `flow_attempt`, `flow_error`,
    `flow_status`, `flow_seconds` (since the run was accepted), `flow_recoveries`.
    `JsonFormatter` writes these as JSON.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = default_logger() if logger is None else logger
        self._works = Works()

    def hooks(self, flow: str) -> Sequence[Hooks[object]]:
        """Those that write of steps."""
        return (step_lines(self._logger, flow),)

    def accepted(self, run: Run) -> None:
        """A line."""
        self._write(_ACCEPTED, run)

    @contextmanager
    def execution(self, run: Run) -> Generator[Tell]:
        """A line when it begins or goes on, and one when it is put down."""
        self._write(_GOES_ON if goes_on(run) else BEGINS, run)
        with self._works.on(run, lambda work: self._left(run, work)) as tell:
            yield tell

    def ended(self, run: Run, status: Status, seconds: float) -> None:
        """A line, which names the error where there is one."""
        error = self._works.ended(run, status).error
        facts: dict[str, str | float] = {"status": status, "seconds": seconds}
        if status == "failed" and error is not None:
            self._write(_FAILED, run, **facts, error=error)
        else:
            self._write(STANDS[status], run, **facts)

    def recovered(self, run: Run) -> None:
        """A line."""
        self._write(_RECOVERED, run, recoveries=run.recoveries)

    def parked(self, run: Run) -> None:
        """A line."""
        self._write(_PARKED, run, recoveries=run.recoveries)

    def _left(self, run: Run, work: Work) -> None:
        if work.status == "running" and work.error is not None:
            self._write(_LEFT, run, status=work.status, error=work.error)
        elif work.status in ("running", "waiting"):  # of what is over, `ended` has written
            self._write(STANDS[work.status], run, status=work.status)

    def _write(self, line: Line, run: Run, **facts: str | float) -> None:
        write(self._logger, line, run=run.run_id, name=run.flow, **facts)
