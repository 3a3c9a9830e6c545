"""One line of execution of a run: its main line, or a lane."""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, TypeAlias, cast

from flowneer_async.context import Context
from flowneer_async.cursor import Frame, decode
from flowneer_async.differ import Mirror
from flowneer_async.encoding import Codec
from flowneer_async.errors import FlowError, FlowneerError, StoreNeeded
from flowneer_async.events import Chunk, Event, Failure, StepDone, Waiting
from flowneer_async.hooks import Around
from flowneer_async.journal import Journal, Kept
from flowneer_async.look import SCALARS
from flowneer_async.memory import Memory, written
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.state import Shape
from flowneer_async.steps import Body, Call, Node
from flowneer_async.store import VersionStore

Trail: TypeAlias = tuple[Frame, ...]
"""The frames of a stored position that are still to be followed; empty where a body begins anew."""

Walk: TypeAlias = Callable[["Line", Body[Any], "Place", Trail], Coroutine[Any, Any, None]]
Watch: TypeAlias = Callable[[Event], Awaitable[None]]


class Jumped(BaseException):
    """A step has jumped to an anchor of a body around the one that it stands in."""

    def __init__(self, place: "Place", number: int) -> None:
        super().__init__()
        self.place, self.number = place, number


class Unsaved(BaseException):
    """The store failed in the middle of a step: no step can catch it, or fail with it, by mistake."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Suspended(BaseException):
    """The run cannot go on before something has happened outside; no step can catch it by mistake."""

    def __init__(self, waits: tuple[Waiting, ...]) -> None:
        super().__init__(waits)
        self.waits = waits
        self.is_stored = False
        """Its question is."""


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

    @property
    def store(self) -> VersionStore | None:
        """The store that keeps the run while it waits."""
        return self.plan.store


class Place:
    """A body that is being walked: where it stands, and how far the walk has come."""

    __slots__ = ("at", "body", "failure", "index", "is_rescue", "item", "outer", "prefix", "round", "top")

    def __init__(
        self,
        outer: "Place | None",
        body: Body[Any],
        prefix: str = "",
        top: int | None = None,
        item: object = None,
        index: int = 0,
        failure: Failure | None = None,
    ) -> None:
        self.outer, self.body, self.prefix, self.top = outer, body, prefix, top
        """`top` is the number of the last step of the outermost body that is done; None if this is that body."""
        self.item, self.index, self.failure = item, index, failure
        self.at = self.round = 0
        self.is_rescue = False
        """It is the `on_error` of the body around it."""

    def inside(self, body: Body[Any], prefix: str) -> "Place":
        """A body inside the step that this one has come to."""
        return Place(self, body, prefix, self.done, self.item, self.index, self.failure)

    @property
    def done(self) -> int:
        """The number of the last step of the outermost body that is done before the step that this one has come to."""
        return self.at - 1 if self.top is None else self.top

    @property
    def where(self) -> str:
        """The path of the body."""
        return self.prefix[:-1]


class Line:
    """A state, and what is done to it step by step; `path` is that of the lane, empty for the main line."""

    __slots__ = ("_asked", "_path", "_place", "core", "is_clean", "journal", "path", "shape", "state")

    def __init__(self, core: Core, path: str, state: Any, shape: Shape, journal: Journal | None) -> None:
        self.core, self.path, self.state, self.shape, self.journal = core, path, state, shape, journal
        # Where the last function called stands, the path of its facts, and how many questions it has asked so far.
        self._place: Place | None = None
        self._path = ""
        self._asked = 0
        self.is_clean = True
        """The state is, for all that can be known, the one that the journal has."""

    def context(self, place: Place, path: str, attempt: int = 1) -> Context[Any]:
        """What the step at `path` is told."""
        core, item = self.core, place.item
        if type(item) not in SCALARS:
            # Each step is told what was stored: what it does to its item, no other step sees.
            item = core.codec.load(core.codec.tagged_json(item, "$"))
        return Context(core.run_id, path, attempt, core.deps, item, place.index, place.failure, self)

    async def call(self, call: Call, place: Place, path: str, attempt: int = 1, shown: str | None = None) -> object:
        """What a function of the user's gives for the state as it is; its facts are kept under `path`."""
        self.is_clean = False
        self._asked, self._place, self._path = 0, place, path
        context = self.context(place, shown or path, attempt) if call.wants_context else None
        returned = call.fn(self.state) if context is None else call.fn(self.state, context)
        try:
            return await cast(Awaitable[object], returned) if isawaitable(returned) else returned
        except BaseExceptionGroup as group:
            # A step may have asked in a task of its own.
            for suspended in _suspended_in(group):
                raise suspended from None
            raise

    async def ask(self, call: Call, place: Place, path: str, shown: str | None = None) -> object:
        """The same, for a function that is no step but belongs to one: `path` ends with what it is to it.

        Raises FlowError, as the failure of that step.
        """
        try:
            answer = await self.call(call, place, path, 1, shown)
        except Suspended as suspended:
            await self.put_down(place, suspended)
            raise
        except Exception as cause:
            raise FlowError(shown or _step_of(path), self.core.run_id, cause, 1) from cause
        self.core.memory.forget(path)
        return answer

    async def _note_once(self, path: str) -> None:
        assert self._place is not None
        try:
            await self.note(self._place, path)
        except Exception as error:
            raise Unsaved(error) from error

    async def put_down(self, place: Place, suspended: Suspended) -> None:
        """The step begins anew when the run goes on: its changes are taken back, its question is kept."""
        self.restore()
        for wait in suspended.waits:
            if wait.kind == "answer" and not suspended.is_stored:
                # Whoever asks was not interrupted by a crash, and is in no doubt.
                self.core.memory.drop(self._path, "begun")
                await self.note(place, f"{wait.step}/@ask")
                suspended.is_stored = True

    async def tell(self, kind: str, node: Node[Any], place: Place, path: str, *more: object) -> None:
        """Tell the hooks of one kind."""
        if self.core.around is not None:
            self.is_clean = False
            await self.core.around.tell(kind, node.name, self.state, self.context(place, path), *more)

    async def record(self, node: Node[Any], place: Place, path: str, landing: tuple[int, str] | None = None) -> None:
        """Keep the state after the step at `path`, and, after a jump, the anchor where it has landed."""
        journal = self.journal
        if journal is None:
            return
        self._turn(landing)
        done = landing[0] if landing is not None else place.at if place.top is None else place.top
        is_kept = journal.keeps(node.name) and not (journal.whole_steps and place.top is not None)
        version = await self._keep(journal, is_kept, done, path)
        if self.core.watch is not None:
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
        if is_kept:
            return await journal.record(step_index, path, self.state)
        journal.follow(step_index, path, self.state)
        return None

    async def wrap(self, node: Node[Any], place: Place, proceed: Callable[[], Awaitable[None]]) -> None:
        """Proceed with a lane, through the middleware for lanes."""
        around = self.core.around
        if around is None:
            await proceed()
            return
        context = self.context(place, self.path)
        try:
            await around.wrap("wrap_parallel_fn", node.name, proceed, self.state, context)
        except (FlowneerError, TimeoutError):
            raise
        except Exception as cause:
            raise FlowError(self.path, self.core.run_id, cause, 1) from cause

    def restore(self) -> None:
        """Make the state what it was before the step, where that is known."""
        if self.journal is not None:
            self.journal.before.restore(self.shape, self.state)

    def before(self) -> Mirror:
        """The state as it is now, to go back to."""
        return self.mirror() if self.journal is None or not self.is_clean else self.journal.before

    def mirror(self) -> Mirror:
        """A mirror of its own, of the state as it is now."""
        mirror = Mirror(self.core.codec) if self.journal is None else self.journal.before.fork()
        if self.journal is None or not self.is_clean:
            mirror.advance(self.shape.items(self.state))
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

    # What a step asks through its context -----------------------------------------------------------------------------

    async def emit(self, step: str, value: object) -> None:
        """Tell whoever watches the run."""
        if self.core.watch is not None:
            await self.core.watch(Chunk(step, value))

    async def interrupt(self, step: str, question: object) -> object:
        """The answer to a question; raises Suspended where there is none yet."""
        core, number, step = self.core, self._asked, self._path
        self._asked += 1
        if core.memory.has(step, f"answer{number}"):
            return core.memory.get(step, f"answer{number}")
        if core.store is None:
            raise StoreNeeded(step, core.run_id)
        suspended = Suspended((Waiting("answer", step, question=question),))
        before = core.memory.of(step).get(f"ask{number}")
        core.memory.put(step, f"ask{number}", question, f"the question of {step!r}")
        suspended.is_stored = before == core.memory.of(step)[f"ask{number}"]
        raise suspended

    async def once(self, step: str, name: str, call: Callable[[], Awaitable[object]]) -> object:
        """What a call gave, now or before a crash."""
        memory, kind, step = self.core.memory, f"once:{name}", self._path
        if not memory.has(step, kind):
            memory.put(step, kind, await call(), f"the result {name!r} of {step!r}")
            await self._note_once(f"{step}/@once")
        return memory.get(step, kind)


def _suspended_in(group: BaseExceptionGroup[BaseException]) -> Iterator[Suspended]:
    for each in group.exceptions:
        if isinstance(each, Suspended):
            yield each
        elif isinstance(each, BaseExceptionGroup):
            yield from _suspended_in(cast(BaseExceptionGroup[BaseException], each))


def _step_of(path: str) -> str:
    """The step that a function belongs to; an undoing is a step of its own."""
    step, _, mark = path.rpartition("/")
    return path if mark == "@undo" else step
