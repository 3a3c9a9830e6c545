"""The journals of what no store keeps by itself: a run without a store, and a lane, whose steps its run keeps."""

from typing import Any

from flowneer_async.behind import Behind
from flowneer_async.control import End
from flowneer_async.differ import Diff, Mirror
from flowneer_async.errors import NoTransactions
from flowneer_async.journal import Journal, advance
from flowneer_async.memory import GONE, Memory, written
from flowneer_async.plan import Plan
from flowneer_async.state import Shape
from flowneer_async.transacted import StepTransaction


class NothingBetween:
    """What a journal does in the middle of a step that keeps nothing there: nothing."""

    behind = None

    async def note(self, step_index: int, path: str, transaction: StepTransaction | None = None) -> str | None:
        return None

    async def settle(self) -> None:
        pass

    def gather(self) -> Behind | None:
        return None

    def scatter(self) -> None:
        pass

    async def begin_transaction(self) -> StepTransaction:
        raise NoTransactions("a run that no full store keeps")


class MirrorJournal(NothingBetween):
    """Knows the state after the last step, and keeps nothing."""

    version = None
    whole_steps = False

    def __init__(self, mirror: Mirror, shape: Shape, memory: Memory) -> None:
        self.before, self._shape, self._memory = mirror, shape, memory
        self.diff: Diff | None = None

    def keeps(self, name: str) -> bool:
        return True

    async def record(
        self, step_index: int, path: str, state: object, transaction: StepTransaction | None = None
    ) -> str | None:
        self.follow(step_index, path, state)
        return None

    def follow(self, step_index: int, path: str, state: object) -> None:
        self.diff = advance(self.before, self._shape, state, path)
        self._memory.take()

    async def close(self, end: End, state: object) -> None:
        pass


class LaneJournal:
    """The steps of one lane: what they change of its draft is kept in the run's memory."""

    whole_steps = False
    behind = None

    def __init__(
        self,
        plan: Plan[Any],
        run: Journal | None,
        lane: str,
        mirror: Mirror,
        memory: Memory,
        shape: Shape,
    ) -> None:
        self._plan, self._run, self._lane = plan, run, lane
        self._memory, self._shape, self.before = memory, shape, mirror
        self.diff: Diff | None = None

    @property
    def version(self) -> str | None:
        return None if self._run is None else self._run.version

    def keeps(self, name: str) -> bool:
        return self._run is None or self._run.keeps(name)

    async def record(
        self, step_index: int, path: str, state: object, transaction: StepTransaction | None = None
    ) -> str | None:
        self.follow(step_index, path, state)
        if self._run is None or (self.diff is None and self._plan.skip_unchanged and transaction is None):
            return None
        return await self._run.note(step_index, path, transaction)

    def follow(self, step_index: int, path: str, state: object) -> None:
        diff = self.diff = advance(self.before, self._shape, state, path)
        self._memory.put_text(self._lane, "at", written(path))
        if diff is None:
            return
        for key, change in diff.changes.items():
            self._memory.put_text(self._lane, f"={key}", change.text, change.cut)
        for key in diff.removed:
            self._memory.put_text(self._lane, f"={key}", GONE)

    async def note(self, step_index: int, path: str, transaction: StepTransaction | None = None) -> str | None:
        self._memory.put_text(self._lane, "at", written(path))
        return None if self._run is None else await self._run.note(step_index, path, transaction)

    async def settle(self) -> None:
        if self._run is not None:
            await self._run.settle()
