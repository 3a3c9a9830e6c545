"""What the runner needs of whatever keeps the versions of a run."""

from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from flowneer_async.behind import Behind
from flowneer_async.control import End
from flowneer_async.differ import Diff, Mirror
from flowneer_async.errors import StateNotSerializable
from flowneer_async.state import Shape
from flowneer_async.transacted import StepTransaction


class Unsaved(BaseException):
    """The store failed under the run: no step, and nothing around one, can catch it by mistake, or fail with it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Journal(Protocol):
    """What the runner needs of any kind."""

    @property
    def version(self) -> str | None:
        """The last version of the run."""
        ...

    @property
    def whole_steps(self) -> bool:
        """Does it keep only steps of the outermost body, each as a whole?"""
        ...

    @property
    def before(self) -> Mirror:
        """The state before the step that comes next."""
        ...

    @property
    def diff(self) -> Diff | None:
        """What the last step changed."""
        ...

    def keeps(self, name: str) -> bool:
        """Does a step of this name make a version?"""
        ...

    def record(
        self, step_index: int, path: str, state: object, transaction: StepTransaction | None = None
    ) -> Coroutine[Any, Any, str | None]:
        """Keep the state after a step, and give the id of its version, if it made one.

        With a transaction of the step's it always makes one, which is committed in it.
        """
        ...

    def follow(self, step_index: int, path: str, state: object) -> None:
        """Take the state after a step that makes no version: the next version has its changes too."""
        ...

    def note(
        self, step_index: int, path: str, transaction: StepTransaction | None = None
    ) -> Coroutine[Any, Any, str | None]:
        """Keep what is new in the run's memory, and give the id of the version, if it made one."""
        ...

    async def settle(self) -> None:
        """Wait until all is stored."""
        ...


class Kept(Journal, Protocol):
    """The journal of a run as a whole."""

    @property
    def behind(self) -> Behind | None:
        """What saves beside the run, and wants a task for it."""
        ...

    def gather(self) -> Behind | None:
        """Lanes begin: what saves for all of them together, if a task for it is wanted."""
        ...

    def scatter(self) -> None:
        """They have ended."""
        ...

    async def begin_transaction(self) -> StepTransaction:
        """Begin a transaction for a step, when no other of the run is open; raises NoTransactions, StoreBusy."""
        ...

    async def close(self, end: End, state: object) -> None:
        """Keep what is left, and how the run stands."""
        ...


def advance(mirror: Mirror, shape: Shape, state: object, path: str) -> Diff | None:
    """What the step at `path` changed; raises StateNotSerializable, which names that step."""
    try:
        return mirror.advance(shape.items(state))
    except StateNotSerializable as error:
        raise StateNotSerializable(error.path, error.reason, step=path) from None


class Following:
    """A journal whose mirror follows every step, also those that make no version: the next one has their changes."""

    def __init__(self, mirror: Mirror, shape: Shape) -> None:
        self.before, self._shape = mirror, shape
        self.diff: Diff | None = None
        # The texts of the last version, and the last step, where steps were passed over since then.
        self._stored: Mapping[str, bytes] | None = None
        self._passed: tuple[int, str] | None = None

    def follow(self, step_index: int, path: str, state: object) -> None:
        """Take the state after a step that makes no version."""
        if self._stored is None:
            self._stored = dict(self.before.texts)
        self._passed = step_index, path
        self._advance(path, state)

    def _advance(self, path: str, state: object) -> Diff | None:
        self.diff = advance(self.before, self._shape, state, path)
        return self.diff

    def _since_version(self, diff: Diff | None) -> Diff | None:
        """What the next version has to say, given what the last step changed."""
        if self._stored is None:
            return diff
        stored, self._stored, self._passed = self._stored, None, None
        return self.before.since(stored)
