"""What a telemetry knows of the executions that go on in this process: how each has come out so far."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from flowneer_async.engine.telemetry import Tell
from flowneer_async.errors import FlowError
from flowneer_async.events import Event, RunFailed, RunStarted, RunWaiting
from flowneer_async.plugins.outcome import type_name
from flowneer_async.undoing import error_type
from flowneer_async.versions import Run, Status


@dataclass(slots=True)
class Work:
    """One execution. Until something else is told, its run is for somebody else to go on with: "running"."""

    status: Status = "running"
    error: str | None = None
    """The type of the error that has ended it."""

    def tell(self, event: Event) -> None:
        """Heed an event of it."""
        if isinstance(event, RunStarted):  # maybe again: what it waited for had come
            self.status = "running"
        elif isinstance(event, RunWaiting):
            self.status = "waiting"
        elif isinstance(event, RunFailed):
            self.fail(event.error)

    def fail(self, error: Exception) -> None:
        """Keep the type of an error; that of a step's failure is what the step raised."""
        self.error = error_type(error) if isinstance(error, FlowError) else type_name(error)


def goes_on(run: Run) -> bool:
    """Was this run, as it was found or made, worked on before?"""
    return run.begun is not None and run.head >= 0


class Works:
    """All of them, by the ids of their runs."""

    def __init__(self) -> None:
        self._now: dict[str, Work] = {}

    @contextmanager
    def on(self, run: Run, left: Callable[[Work], None]) -> Generator[Tell]:
        """An execution of this run, as long as the block goes on; `left` is told how it has come out."""
        work = self._now[run.run_id] = Work()
        try:
            yield work.tell
        except Exception as error:
            work.fail(error)
            raise
        finally:
            self._now.pop(run.run_id, None)
            left(work)

    def ended(self, run: Run, status: Status) -> Work:
        """The run is over; gives its execution, a new one where it was over without one."""
        work = self._now.get(run.run_id) or Work()
        work.status = status
        return work
