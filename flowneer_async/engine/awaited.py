"""Runs whose end somebody of this process awaits: what they have failed with is kept for them."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager


class Awaited:
    """By the ids of the runs. An error holds all that the step had, so it is kept only while somebody waits."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._errors: dict[str, Exception] = {}

    @contextmanager
    def waiting(self, run_id: str) -> Generator[None]:
        """Somebody waits, for as long as the block."""
        self._waiting[run_id] += 1
        try:
            yield
        finally:
            self._waiting[run_id] -= 1
            if not self._waiting[run_id]:
                del self._waiting[run_id]
                self._errors.pop(run_id, None)

    def put_down(self, run_id: str, error: Exception | None) -> None:
        """This process no longer works on a run, which has raised this."""
        if error is None:
            self._errors.pop(run_id, None)
        elif run_id in self._waiting:
            self._errors[run_id] = error

    def error(self, run_id: str) -> Exception | None:
        """What a run has raised when it was put down last, if that was in this process."""
        return self._errors.get(run_id)
