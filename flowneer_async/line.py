"""One line of execution of a run: its main line, or a lane."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import Any, TypeAlias, cast

from flowneer_async.asking import Asking, Watch
from flowneer_async.context import Context, Port
from flowneer_async.control import Control
from flowneer_async.cursor import decode
from flowneer_async.differ import Mirror
from flowneer_async.encoding import Codec
from flowneer_async.errors import FlowChanged, FlowError
from flowneer_async.events import Chunk, StepDone
from flowneer_async.hooks import Around
from flowneer_async.journal import Journal, Kept, advance
from flowneer_async.look import SCALARS
from flowneer_async.memory import Memory, written
from flowneer_async.place import Place, Suspended, Trail, suspended_in
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.state import Shape
from flowneer_async.steps import RECORDED, Body, Call, Node
from flowneer_async.store import VersionStore
from flowneer_async.transacted import StepTransaction

Walk: TypeAlias = Callable[["Line", Body[Any], "Place", Trail], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Core:
    """What all lines of one run share."""

    run_id: str
    plan: Plan[Any]
    deps: object
    world: World
    codec: Codec
    shape: Shape
    memory: Memory
    journal: Kept | None
    walk: Walk
    around: Around | None
    watch: Watch | None
    control: Control

    @property
    def store(self) -> VersionStore | None:
        """The store that keeps the run while it waits."""
        return self.plan.store


class Line:
    """A state, and what is done to it step by step; `path` is that of the lane, empty for the main line."""

    __slots__ = ("core", "is_clean", "journal", "path", "shape", "state", "transaction")

    def __init__(self, core: Core, path: str, state: Any, shape: Shape, journal: Journal | None) -> None:
        self.core, self.path, self.state, self.shape, self.journal = core, path, state, shape, journal
        self.is_clean = True
        """The state is, for all that can be known, the one that the journal has."""
        self.transaction: StepTransaction | None = None
        """What the step has left open, to be committed with its version."""

    def context(self, place: Place, path: str, attempt: int = 1, port: Port | None = None) -> Context[Any]:
        """What the step at `path` is told, and by which port it asks."""
        core, item = self.core, place.item
        if type(item) not in SCALARS:
            # Each step is told what was stored: what it does to its item, no other step sees.
            item = core.codec.load(core.codec.tagged_json(item, "$"))
        told = (core.run_id, path, attempt, core.deps, item, place.index, place.failure)
        return Context(*told) if port is None else Context(*told, port)

    async def call(self, call: Call, place: Place, path: str, attempt: int = 1, shown: str | None = None) -> object:
        """What a function of the user's gives for the state as it is; its facts are kept under `path`."""
        self.is_clean = False
        if not call.wants_context:
            returned = call.fn(self.state)
            return returned if type(returned) in SCALARS else await self._awaited(returned, path)
        core, note = self.core, partial(self.note, place)
        port = Asking(core.run_id, path, core.memory, core.watch, note, core.store is not None, core.journal)
        try:
            context = self.context(place, shown or path, attempt, port)
            returned = await self._awaited(call.fn(self.state, context), path)
            if port.opened is not None:
                self.transaction = port.left(path)
        except BaseException as error:
            await port.give_up(error)
            if isinstance(error, BaseExceptionGroup):
                # A step may have asked in a task of its own.
                for suspended in suspended_in(cast(BaseExceptionGroup[BaseException], error)):
                    raise suspended from None
            raise
        finally:
            port.end()
        return returned

    async def _awaited(self, returned: object, path: str) -> object:
        if isawaitable(returned):
            return await cast(Awaitable[object], returned)
        if not isinstance(returned, AsyncGenerator):
            return returned
        watch = self.core.watch
        async with aclosing(cast(AsyncGenerator[object, None], returned)) as values:
            async for value in values:
                if watch is not None:
                    await watch(Chunk(path, value))
        return None

    async def ask(self, call: Call, place: Place, path: str, mark: str, shown: str | None = None) -> object:
        """The same, for a function that is no step but belongs to the one at `path`, as what `mark` says.

        It is told the path `shown`. Raises FlowError, as the failure of that step.
        """
        try:
            if not call.wants_context:
                self.is_clean = False
                answer = call.fn(self.state)
                return answer if type(answer) in SCALARS else await self._awaited(answer, path)
            answer = await self.call(call, place, f"{path}/{mark}", 1, shown)
        except Suspended as suspended:
            await self.put_down(place, suspended)
            raise
        except Exception as cause:
            # An undoing is a step of its own.
            failed = f"{path}/{mark}" if mark == "@undo" else shown or path
            raise FlowError(failed, self.core.run_id, cause, 1) from cause
        self.core.memory.forget(f"{path}/{mark}")
        return answer

    async def put_down(self, place: Place, suspended: Suspended) -> None:
        """The step begins anew when the run goes on: its changes are taken back, its question is kept."""
        self.restore()
        for wait in suspended.waits:
            if wait.kind == "answer" and not suspended.is_stored:
                # Whoever asks was not interrupted by a crash, and is in no doubt.
                self.core.memory.drop(wait.step, "begun")
                await self.note(place, f"{wait.step}/@ask")
                suspended.is_stored = True

    async def tell(self, kind: str, node: Node[Any], place: Place, path: str, *more: object) -> None:
        """Tell the hooks of one kind."""
        if self.core.around is None:
            return
        self.is_clean = False
        try:
            await self.core.around.tell(kind, node.name, self.state, self.context(place, path), *more)
        except Exception as cause:
            raise FlowError(path, self.core.run_id, cause, 1) from cause

    async def record(self, node: Node[Any], place: Place, path: str, landing: tuple[int, str] | None = None) -> None:
        """Keep the state after the step at `path`, and, after a jump, the anchor where it has landed."""
        journal = self.journal
        if journal is None:
            return
        self._turn(landing)
        done = landing[0] if landing is not None else place.at if place.top is None else place.top
        is_kept = journal.keeps(node.name) and not (journal.whole_steps and place.top is not None)
        version = await self._keep(journal, is_kept, done, path)
        if self.core.watch is not None and type(node) in RECORDED:
            diff = journal.diff
            changed = () if diff is None else (*diff.changes, *diff.removed)
            await self.core.watch(StepDone(path, version, changed))

    async def mark(self, node: Node[Any] | None, place: Place, path: str) -> None:
        """Keep the state in the middle of a step, or, where there is no step, whatever the filter says."""
        journal = self.journal
        if journal is not None:
            self._turn(None)
            is_kept = not journal.whole_steps and (node is None or journal.keeps(node.name))
            await self._keep(journal, is_kept, place.done, path)

    async def note(self, place: Place, path: str) -> None:
        """Keep what is new in the memory, in the middle of a step: the state may be half-changed."""
        if self.journal is not None:
            self._turn(None)
            await self.journal.note(place.done, path)

    async def _keep(self, journal: Journal, is_kept: bool, step_index: int, path: str) -> str | None:
        self.is_clean = True
        if self.transaction is not None:
            return await self._commit(journal, step_index, path)
        if is_kept:
            return await journal.record(step_index, path, self.state)
        journal.follow(step_index, path, self.state)
        return None

    async def _commit(self, journal: Journal, step_index: int, path: str) -> str | None:
        """Keep the state together with what the step did in its transaction, whatever the filter says."""
        try:
            return await journal.record(step_index, path, self.state, self.transaction)
        finally:
            await self.roll_back()  # where there was nothing to commit it with

    async def roll_back(self) -> None:
        """Undo what the step did in its transaction, if it has left one open."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            await transaction.roll_back()

    async def wrap(self, node: Node[Any], place: Place, proceed: Callable[[], Awaitable[None]]) -> None:
        """Proceed with a lane, through the middleware for lanes."""
        around = self.core.around
        assert around is not None
        context = self.context(place, self.path)
        failed: list[Exception] = []

        async def heard() -> None:
            try:
                await proceed()
            except Exception as error:
                failed.append(error)
                raise

        try:
            await around.wrap("wrap_parallel_fn", node.name, heard, self.state, context)
            self.is_clean = False
        except Exception as cause:
            if cause in failed:  # it is the lane that has failed, and not the middleware
                raise
            raise FlowError(self.path, self.core.run_id, cause, 1) from cause

    def check_fits(self, path: str, fits: bool) -> None:
        """Raises FlowChanged where the step at `path` is of another kind now than it was when the run came to it."""
        if not fits:
            raise FlowChanged(self.core.run_id, [path], self.core.plan.paths)

    def restore(self) -> None:
        """Make the state what it was before the step, where that is known."""
        if self.journal is not None:
            self.journal.before.restore(self.shape, self.state)

    def before(self, path: str) -> Mirror:
        """The state as it is now, to go back to; raises StateNotSerializable, which names the step at `path`."""
        return self.mirror(path) if self.journal is None or not self.is_clean else self.journal.before

    def mirror(self, path: str) -> Mirror:
        """A mirror of its own, of the state as it is now; raises as `before` does."""
        mirror = Mirror(self.core.codec) if self.journal is None else self.journal.before.fork()
        if self.journal is None or not self.is_clean:
            advance(mirror, self.shape, self.state, path)
        return mirror

    def trail(self, at: str | None) -> Trail:
        """The frames that lead to where this line was: after a jump, to the anchor where it landed."""
        goto = cast(str | None, self.core.memory.get(self.path, "goto"))
        frames = decode(goto or at or "")
        return frames[len(decode(self.path)) :]

    def _turn(self, landing: tuple[int, str] | None) -> None:
        """The last jump is over; remember where the next one has landed."""
        memory = self.core.memory
        memory.drop(self.path, "goto")
        if landing is not None:
            memory.put_text(self.path, "goto", written(landing[1]))
