"""One execution of a flow: open the run, walk its steps, store how that ended."""

from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, cast

import anyio

from flowneer_async.answers import Answer
from flowneer_async.asking import Watch
from flowneer_async.behind import beside
from flowneer_async.errors import Fenced, FlowError, RunBusy, RunError, StateError
from flowneer_async.events import Event, Failure, RunDone, RunFailed, RunStarted, RunWaiting, Waiting
from flowneer_async.journal import Unsaved
from flowneer_async.keeping import NO_TAGS
from flowneer_async.lane import numbered
from flowneer_async.line import Core, Line
from flowneer_async.memory import Memory
from flowneer_async.opening import Opened, Opening
from flowneer_async.place import Place, Suspended
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.shield import complete
from flowneer_async.steps import S
from flowneer_async.undoing import guarded
from flowneer_async.versions import Status
from flowneer_async.walk import walk


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
    plan = plan.checked
    while True:
        opening = Opening(plan, state, run_id, world, mirrors=watch is not None, answer=answer, tags=tags)
        opened = await _open(plan, opening)
        waits = await _Run(plan, opened, deps, world, watch).work()
        if not await _came_meanwhile(plan, opened, waits):
            return _result(opened, waits)
        plan, state, run_id, answer = replace(plan, resumes=None), None, opened.run_id, None


def _result(opened: Opened, waits: tuple[Waiting, ...]) -> Result[Any]:
    version = opened.finished_at or (opened.journal.version if opened.journal is not None else None)
    failures = failures_in(opened.memory)
    return Result(opened.state, version, "waiting" if waits else "completed", opened.run_id, waits, failures)


def failures_in(memory: Memory) -> tuple[Failure, ...]:
    """The items that were given up."""
    kinds = sorted((kind for kind in memory.of("") if kind.startswith("failure:")), key=numbered)
    stored = [cast(dict[str, str], memory.get("", kind)) for kind in kinds]
    return tuple(Failure(each["step"], each["error"]) for each in stored)


async def _came_meanwhile(plan: Plan[Any], opened: Opened, waits: tuple[Waiting, ...]) -> bool:
    """Did a signal come between the moment the run looked for it, and that in which it was put down?

    Whoever sent it after that can resume the run; whoever sent it before found the run busy.
    """
    names = {wait.name for wait in waits if wait.kind == "signal"}
    if not names or plan.store is None:
        return False
    used = {name: cast(int, opened.memory.get("", f"used:{name}") or 0) for name in names}
    signals = await plan.store.signals(opened.run_id)
    came = any(each.name in names and each.number > used[each.name] for each in signals)
    return came and (await plan.store.read(opened.run_id)).status == "waiting"


async def _open(plan: Plan[Any], opening: Opening) -> Opened:
    if plan.store is None and plan.entries is None:
        return await opening.open()  # which waits for nothing
    try:
        return await complete(opening.open())
    except BaseException as error:
        is_cancelled = isinstance(error, anyio.get_cancelled_exc_class())
        with suppress(Exception):
            await complete(opening.abandon("cancelled" if is_cancelled else "running"))
        if isinstance(error, Unsaved):
            raise error.error from None
        raise


class _Run:
    """One execution."""

    def __init__(
        self,
        plan: Plan[Any],
        opened: Opened,
        deps: object,
        world: World,
        watch: Watch | None,
    ) -> None:
        self._plan, self._around, self._opened, self._journal = plan, plan.around, opened, opened.journal
        self._watch = watch
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
        )
        self._line = Line(core, "", opened.state, opened.shape, opened.journal)

    async def work(self) -> tuple[Waiting, ...]:
        """Walk the steps, store how that ended, and tell; gives what the run waits for."""
        opened = self._opened
        waits: tuple[Waiting, ...] = ()
        if opened.finished_at is not None:
            await self._tell(RunStarted(opened.run_id, opened.finished_at))
        else:
            try:
                await self._ended(self._to_the_end())
            except Suspended as suspended:
                waits = suspended.waits
                await self._tell(RunWaiting(waits))
                return waits
            except Exception as error:
                await self._tell(RunFailed(opened.run_id, error))
                raise
        version = opened.finished_at or (None if self._journal is None else self._journal.version)
        await self._tell(RunDone(opened.run_id, version))
        return waits

    async def _ended(self, work: Awaitable[None]) -> None:
        """Do the work, and store how it ended."""
        try:
            await work
        except Suspended:
            await self._close("waiting")
            raise
        except (Fenced, RunBusy):
            await self._close_quietly("running")
            raise
        except (RunError, StateError) as error:
            await self._close_quietly("failed", str(error))
            raise
        except GeneratorExit:  # thrown away in the middle: nothing can be awaited any more
            raise
        except anyio.get_cancelled_exc_class():
            await self._close_quietly("cancelled")
            raise
        except Unsaved as unsaved:
            await self._close_quietly("running")
            raise unsaved.error from None
        except BaseException:
            # The store failed, or the process is told to end: the run is not over.
            await self._close_quietly("running")
            raise
        await self._close("completed")

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

    async def _close(self, status: Status, error: str | None = None) -> None:
        """Store how the run stands, and tell the hooks."""
        try:
            if self._journal is not None:
                await complete(self._journal.close(status, self._opened.state, error))
        except Unsaved as unsaved:
            raise unsaved.error from None
        finally:
            if self._around is not None:
                context = self._line.context(Place(None, self._plan.body), "")
                await complete(self._around.tell("after_flow", "", self._line.state, context, status))

    async def _close_quietly(self, status: Status, error: str | None = None) -> None:
        # What ended the run is told to the caller; that the store could not keep it too would only hide that.
        with suppress(Exception):
            await self._close(status, error)

    async def _tell(self, event: Event) -> None:
        if self._watch is not None:
            await self._watch(event)
