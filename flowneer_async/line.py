"""One line of execution of a run: its main line, or a lane."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
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
from flowneer_async.journal import Journal, Kept, LaneJournal
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


class Suspended(BaseException):
    """The run cannot go on before something has happened outside; no step can catch it by mistake."""

    def __init__(self, waits: tuple[Waiting, ...]) -> None:
        super().__init__(waits)
        self.waits = waits


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

    __slots__ = ("at", "body", "failure", "index", "item", "outer", "prefix", "round", "top")

    def __init__(
        self,
        outer: "Place | None",
        body: Body[Any],
        prefix: str = "",
        top: int | None = None,
        item: object = None,
        index: int | None = None,
        failure: Failure | None = None,
    ) -> None:
        self.outer, self.body, self.prefix, self.top = outer, body, prefix, top
        """`top` is the number of the last step of the outermost body that is done; None if this is that body."""
        self.item, self.index, self.failure = item, index, failure
        self.at = self.round = 0

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

    __slots__ = ("_place", "asked", "core", "is_clean", "journal", "path", "shape", "state")

    def __init__(self, core: Core, path: str, state: Any, shape: Shape, journal: Journal | None) -> None:
        self.core, self.path, self.state, self.shape, self.journal = core, path, state, shape, journal
        self._place: Place | None = None
        self.asked = 0
        """How many questions the step has asked so far."""
        self.is_clean = True
        """The state is, for all that can be known, the one that the journal has."""

    def context(self, place: Place, path: str, attempt: int = 1) -> Context[Any]:
        """What the step at `path` is told."""
        core = self.core
        return Context(core.run_id, path, attempt, core.deps, place.item, place.index, place.failure, self)

    async def call(self, call: Call, place: Place, path: str, attempt: int = 1) -> object:
        """What a function of the user's gives for the state as it is."""
        self.is_clean = False
        self.asked, self._place = 0, place
        context = self.context(place, path, attempt) if call.wants_context else None
        returned = call.fn(self.state) if context is None else call.fn(self.state, context)
        return await cast(Awaitable[object], returned) if isawaitable(returned) else returned

    async def ask(self, call: Call, place: Place, path: str) -> object:
        """The same; raises FlowError, as the failure of the step at `path`."""
        try:
            return await self.call(call, place, path)
        except Exception as cause:
            raise FlowError(path, self.core.run_id, cause, 1) from cause

    async def tell(self, kind: str, node: Node[Any], place: Place, path: str, *more: object) -> None:
        """Tell the hooks of one kind."""
        if self.core.around is not None:
            self.is_clean = False
            await self.core.around.tell(kind, node.name, self.state, self.context(place, path), *more)

    async def record(self, node: Node[Any], place: Place, path: str, landing: tuple[int, str] | None = None) -> None:
        """Keep the state after the step at `path`, and, after a jump, the anchor where it has landed."""
        journal = self.journal
        if journal is None or (journal.whole_steps and place.top is not None):
            return
        self._turn(landing)
        done = place.at if place.top is None else place.top
        version = await journal.record(done if landing is None else landing[0], node.name, path, self.state)
        self.is_clean = True
        if self.core.watch is not None:
            diff = journal.diff
            changed = () if diff is None else (*diff.changes, *diff.removed)
            await self.core.watch(StepDone(path, version, changed))

    async def mark(self, node: Node[Any], place: Place, path: str) -> None:
        """Keep the state in the middle of a step."""
        journal = self.journal
        if journal is None or journal.whole_steps:
            return
        self._turn(None)
        await journal.record(place.done, node.name, path, self.state)
        self.is_clean = True

    async def note(self, place: Place, path: str) -> None:
        """Keep what is new in the memory, in the middle of a step: the state may be half-changed."""
        journal = self.journal
        if journal is None or journal.whole_steps:
            return
        if journal.before is not None:
            self._turn(None)
        await journal.note(place.done, path)

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

    def finished(self) -> Mapping[str, bytes]:
        """The texts of the state of a lane that has come to its end."""
        assert isinstance(self.journal, LaneJournal)
        return self.journal.finish(self.path, self.state)

    def restore(self) -> None:
        """Make the state what it was before the step, where that is known."""
        before = None if self.journal is None else self.journal.before
        if before is not None:
            before.restore(self.shape, self.state)

    def before(self) -> Mirror:
        """The state as it is now, to go back to."""
        before = None if self.journal is None or not self.is_clean else self.journal.before
        return self.mirror() if before is None else before

    def mirror(self) -> Mirror:
        """A mirror of its own, of the state as it is now."""
        before = None if self.journal is None else self.journal.before
        if before is None:
            mirror = Mirror(self.core.codec)
        elif self.is_clean:
            return before.fork()
        else:
            mirror = before.fork()
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
        core, number = self.core, self.asked
        self.asked += 1
        if core.memory.has(step, f"answer{number}"):
            return core.memory.get(step, f"answer{number}")
        if core.store is None:
            raise StoreNeeded(step, core.run_id)
        core.memory.put(step, f"ask{number}", question)
        raise Suspended((Waiting("answer", step, question=question),))

    async def once(self, step: str, name: str, call: Callable[[], Awaitable[object]]) -> object:
        """What a call gave, now or before a crash."""
        memory, kind = self.core.memory, f"once:{name}"
        if not memory.has(step, kind):
            memory.put(step, kind, await call())
            if self._place is not None:
                await self.note(self._place, f"{step}/@once")
        return memory.get(step, kind)
