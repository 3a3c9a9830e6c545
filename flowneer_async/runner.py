"""One execution of a flow: open the run, walk its steps, store how that ended."""

from collections.abc import Awaitable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

import anyio

from flowneer_async.answers import Answer
from flowneer_async.asking import Watch
from flowneer_async.behind import beside
from flowneer_async.control import Control, End
from flowneer_async.errors import Fenced, FlowError, NotFinished, RunBusy, RunError, StateError
from flowneer_async.events import Event, Failure, RunDone, RunFailed, RunStarted, RunWaiting, Waiting
from flowneer_async.journal import Unsaved
from flowneer_async.keeping import NO_TAGS
from flowneer_async.lane import numbered
from flowneer_async.line import Core, Line
from flowneer_async.memory import Memory
from flowneer_async.opening import Opened, Opening, Order
from flowneer_async.place import Place, Suspended
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.shield import complete
from flowneer_async.steps import S
from flowneer_async.undoing import guarded
from flowneer_async.versions import Run, Status
from flowneer_async.walk import walk

T = TypeVar("T")

_COMPLETED = End("completed")
_LEFT = End("running")


@dataclass(frozen=True, slots=True)
class Result(Generic[S]):
    """How a run ended. `state` is the very object that was passed, or, after a resume, a new one.

    `version` is the last version stored; None without a store. A run with status "waiting" says in `waits` for what;
    `failures` are the items of batches that were given up.
    """

    state: S
    version: str | None
    status: Status
    run_id: str
    waits: tuple[Waiting, ...] = ()
    failures: tuple[Failure, ...] = ()


class Execution(Generic[S]):
    """One time that a process works on a run: take it or make it, then do its steps, until it ends or waits."""

    def __init__(
        self,
        plan: Plan[S],
        state: S | None,
        run_id: str | None,
        deps: object,
        world: World,
        watch: Watch | None = None,
        answer: Answer | None = None,
        tags: Mapping[str, str] = NO_TAGS,
        control: Control | None = None,
    ) -> None:
        self._plan, self._deps, self._world, self._watch = plan.checked, deps, world, watch
        self._opening = Opening(self._plan, state, run_id, world, mirrors=watch is not None, answer=answer, tags=tags)
        self._opened: Opened | None = None
        self.control = Control() if control is None else control

    @property
    def run_id(self) -> str:
        """The id of the run, once it is known; raises NotFinished."""
        return self._found.run_id

    @property
    def run(self) -> Run:
        """The run as it was found, or made; raises NotFinished."""
        assert self._found.run is not None
        return self._found.run

    @property
    def is_over(self) -> bool:
        """Was the run complete already?"""
        return self._found.finished_at is not None

    async def open(self) -> None:
        """Take the run, or make a new one; it is stored when this returns."""
        self._opened = await self._done(self._opening.open())

    async def begin(self, order: Order) -> bool:
        """Make a new run, and take it unless it is to begin later; False where its id is taken."""
        self._opened = await self._done(self._opening.begin(order))
        return self._opened is not None

    async def abandon(self, end: End) -> None:
        """Give back a run that was taken, without a step."""
        await complete(self._abandon(end))

    async def _abandon(self, end: End) -> None:
        await self._opening.abandon(end)
        self.control.end = end

    async def work(self) -> Result[S]:
        """Walk the steps of the run that was taken, store how that ended, and tell."""
        opened = self._found
        end, waits = await _Run(self._plan, opened, self._deps, self._world, self._watch, self.control).work()
        version = opened.finished_at or (opened.journal.version if opened.journal is not None else None)
        return Result(opened.state, version, end.status, opened.run_id, waits, failures_in(opened.memory))

    async def came_meanwhile(self, result: Result[S]) -> bool:
        """Did a signal come between the moment the run looked for it, and that in which it was put down?

        Whoever sent it after that can resume the run; whoever sent it before found the run busy.
        """
        store, names = self._plan.store, {wait.name for wait in result.waits if wait.kind == "signal"}
        if not names or store is None:
            return False
        used = {name: cast(int, self._found.memory.get("", f"used:{name}") or 0) for name in names}
        signals = await store.signals(result.run_id)
        came = any(each.name in names and each.number > used[each.name] for each in signals)
        return came and (await store.read(result.run_id)).status == "waiting"

    @property
    def _found(self) -> Opened:
        if self._opened is None:
            raise NotFinished
        return self._opened

    async def _done(self, opening: Coroutine[Any, Any, T]) -> T:
        """Open, as a whole or not at all."""
        if self._plan.store is None and self._plan.entries is None:
            return await opening  # which waits for nothing
        try:
            return await complete(opening)
        except BaseException as error:
            is_cancelled = isinstance(error, anyio.get_cancelled_exc_class())
            with suppress(Exception):
                await self.abandon(self.control.when_cut if is_cancelled else _LEFT)
            if isinstance(error, Unsaved):
                raise error.error from None
            raise


async def execute(
    plan: Plan[S],
    state: S | None,
    run_id: str | None,
    deps: object,
    world: World,
    watch: Watch | None = None,
    answer: Answer | None = None,
    tags: Mapping[str, str] = NO_TAGS,
) -> Result[S]:
    """Run a flow to its end, or until it waits, from its beginning or from where it was."""
    while True:
        execution = Execution(plan, state, run_id, deps, world, watch, answer, tags)
        await execution.open()
        result = await execution.work()
        if not await execution.came_meanwhile(result):
            return result
        plan, state, run_id, answer = replace(plan, resumes=None), None, result.run_id, None


def failures_in(memory: Memory) -> tuple[Failure, ...]:
    """The items that were given up."""
    kinds = sorted((kind for kind in memory.of("") if kind.startswith("failure:")), key=numbered)
    stored = [cast(dict[str, str], memory.get("", kind)) for kind in kinds]
    return tuple(Failure(each["step"], each["error"]) for each in stored)


class _Run:
    """One execution."""

    def __init__(
        self,
        plan: Plan[Any],
        opened: Opened,
        deps: object,
        world: World,
        watch: Watch | None,
        control: Control,
    ) -> None:
        self._plan, self._around, self._opened, self._journal = plan, plan.around, opened, opened.journal
        self._watch, self._control = watch, control
        core = Core(
            opened.run_id,
            plan,
            deps,
            world,
            opened.codec,
            opened.shape,
            opened.memory,
            opened.journal,
            walk,
            plan.around,
            watch,
            control,
        )
        self._line = Line(core, "", opened.state, opened.shape, opened.journal)

    async def work(self) -> tuple[End, tuple[Waiting, ...]]:
        """Walk the steps, store how that ended, and tell; gives that, and what the run waits for."""
        opened = self._opened
        if opened.finished_at is not None:
            await self._tell(RunStarted(opened.run_id, opened.finished_at))
        else:
            try:
                await self._ended(self._to_the_end())
            except Suspended as suspended:
                await self._tell(RunWaiting(suspended.waits))
                return self._control.end or self._put_down(suspended), suspended.waits
            except Exception as error:
                await self._tell(RunFailed(opened.run_id, error))
                raise
        version = opened.finished_at or (None if self._journal is None else self._journal.version)
        await self._tell(RunDone(opened.run_id, version))
        return _COMPLETED, ()

    def _put_down(self, suspended: Suspended) -> End:
        """How the run stands when it goes no further for now."""
        if self._control.halted is not None:
            return self._control.halted
        times = (self._control.latest, *(wait.until for wait in suspended.waits))
        return End("waiting", wake=min((time for time in times if time is not None), default=None))

    async def _ended(self, work: Awaitable[None]) -> None:
        """Do the work, and store how it ended."""
        try:
            await work
        except Suspended as suspended:
            await self._close(self._put_down(suspended))
            raise
        except (Fenced, RunBusy):
            await self._close_quietly(_LEFT)
            raise
        except (RunError, StateError) as error:
            await self._close_quietly(End("failed", str(error)))
            raise
        except GeneratorExit:  # thrown away in the middle: nothing can be awaited any more
            raise
        except anyio.get_cancelled_exc_class():
            await self._close_quietly(self._control.when_cut)
            raise
        except Unsaved as unsaved:
            await self._close_quietly(_LEFT)
            raise unsaved.error from None
        except BaseException:
            # The store failed, or the process is told to end: the run is not over.
            await self._close_quietly(_LEFT)
            raise
        await self._close(_COMPLETED)

    async def _to_the_end(self) -> None:
        await self._tell(RunStarted(self._opened.run_id, None if self._journal is None else self._journal.version))
        if self._journal is None or self._journal.behind is None:
            await self._walk()
        else:
            await beside(self._journal.behind, self._walk)

    async def _walk(self) -> None:
        body = self._plan.body
        place = Place(None, body)
        if self._around is not None:
            await self._begin(place)
        await guarded(self._line, body, place, self._line.trail(self._opened.at))

    async def _begin(self, place: Place) -> None:
        assert self._around is not None
        try:
            await self._around.tell("before_flow", "", self._line.state, self._line.context(place, ""))
        except Exception as cause:
            raise FlowError("@before_flow", self._opened.run_id, cause, 1) from cause
        self._line.is_clean = False

    async def _close(self, end: End) -> None:
        """Store how the run stands, and tell the hooks."""
        try:
            await complete(self._store(end))
        except Unsaved as unsaved:
            raise unsaved.error from None
        finally:
            if self._around is not None:
                context = self._line.context(Place(None, self._plan.body), "")
                await complete(self._around.tell("after_flow", "", self._line.state, context, end.status))

    async def _store(self, end: End) -> None:
        if self._journal is not None:
            await self._journal.close(end, self._opened.state)
        self._control.end = end

    async def _close_quietly(self, end: End) -> None:
        # What ended the run is told to the caller; that the store could not keep it too would only hide that.
        with suppress(Exception):
            await self._close(end)

    async def _tell(self, event: Event) -> None:
        if self._watch is not None:
            await self._watch(event)
