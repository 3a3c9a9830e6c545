"""What a plugin remembers of each run, for as long as the run goes on."""

from collections.abc import Callable
from typing import Generic, TypeVar

from flowneer_async.context import Context
from flowneer_async.versions import Status

T = TypeVar("T")


class PerRun(Generic[T]):
    """One value for each run, made by `make` when it is first asked for; `drop` is to be the hook `after_flow`."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[str, T] = {}

    def of(self, ctx: Context) -> T:
        """The value of this run."""
        value = self._values.get(ctx.run_id)
        if value is None:
            value = self._values[ctx.run_id] = self._make()
        return value

    def drop(self, state: object, ctx: Context, status: Status) -> None:
        """Forget this run: it has ended, in whatever way."""
        self._values.pop(ctx.run_id, None)

    def __len__(self) -> int:
        return len(self._values)
