"""The one loop: take the step, call it, hand the state to the journal."""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from inspect import isawaitable
from types import CoroutineType
from typing import Any, Generic, TypeAlias, cast

import anyio

from flowneer_async.context import Context
from flowneer_async.differ import Mirror
from flowneer_async.errors import FlowError, StateError, StepReturned
from flowneer_async.opening import Opened, Opening
from flowneer_async.plan import Plan
from flowneer_async.policy import Backoff, World, wait_after
from flowneer_async.shield import complete
from flowneer_async.steps import S, Task, check_option
from flowneer_async.versions import Status

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Result(Generic[S]):
    """How a run ended. `state` is the very object that was passed, or, after a resume, a new one.

    `version` is the last version stored; None without a store.
    """

    state: S
    version: str | None
    status: Status
    run_id: str


async def execute(plan: Plan[S], state: S | None, run_id: str | None, deps: object, world: World) -> Result[S]:
    """Run a flow to its end, from its beginning or from where it was."""
    opened = await _open(Opening(plan, state, run_id, world))
    run = _Run(plan, opened, deps, world)
    if opened.finished_at is None:
        await run.work()
    version = opened.finished_at or (opened.journal.version if opened.journal is not None else None)
    return Result(cast(S, opened.state), version, "completed", opened.run_id)


async def _open(opening: Opening) -> Opened:
    try:
        return await complete(opening.open())
    except BaseException:
        with suppress(Exception):
            await complete(opening.abandon())
        raise


class _Run:
    """One execution."""

    __slots__ = ("_deps", "_opened", "_plan", "_world")

    def __init__(self, plan: Plan[Any], opened: Opened, deps: object, world: World) -> None:
        self._plan, self._opened, self._deps, self._world = plan, opened, deps, world

    async def work(self) -> None:
        """Walk the steps, and store how that ended."""
        journal = self._opened.journal
        if journal is None:
            await self._walk()
            return
        try:
            await (self._walk() if journal.behind is None else _beside(journal.behind.work, self._walk))
        except (FlowError, StateError, StepReturned) as error:
            await self._close("failed", str(error))
            raise
        except GeneratorExit:  # thrown away in the middle: nothing can be awaited any more
            raise
        except anyio.get_cancelled_exc_class():
            await self._close("cancelled")
            raise
        except BaseException:
            # The store failed, the lease was lost, or the process is told to end: the run is not over.
            await self._close("running")
            raise
        await complete(journal.close("completed", self._opened.state))

    async def _close(self, status: Status, error: str | None = None) -> None:
        assert self._opened.journal is not None
        # What ended the run is told to the caller; that the store could not keep it too would only hide that.
        with suppress(Exception):
            await complete(self._opened.journal.close(status, self._opened.state, error))

    async def _walk(self) -> None:
        opened, order = self._opened, self._plan.order
        journal, state, run_id, deps = opened.journal, opened.state, opened.run_id, self._deps
        for index in range(opened.position, len(order)):
            task = order[index]
            if task.is_plain:
                try:
                    returned = await _called(task, state, run_id, 1, deps)
                except Exception as cause:
                    raise FlowError(task.path, run_id, cause, 1) from cause
            else:
                returned = await self._attempts(task)
            if returned is not None:
                raise StepReturned(task.path, run_id, type(returned))
            if journal is not None:
                await journal.record(index, task.path, state)

    async def _attempts(self, task: Task[Any]) -> object:
        """Call a step as often as its options allow; before each further attempt the state is what it was."""
        opened, world = self._opened, self._world
        retries, delay, timeout = self._options(task)
        before = self._before() if retries else None
        attempt = 1
        while True:
            try:
                with nullcontext() if timeout is None else anyio.fail_after(timeout):
                    return await _called(task, opened.state, opened.run_id, attempt, self._deps)
            except Exception as cause:
                if before is None or attempt > retries:
                    raise FlowError(task.path, opened.run_id, cause, attempt) from cause
            before.restore(opened.shape, opened.state)
            await world.sleep(wait_after(attempt, delay, world.draw))
            attempt += 1

    def _options(self, task: Task[Any]) -> tuple[int, float | Backoff, float | None]:
        """The step's options for the state as it is now."""
        state = self._opened.state
        try:
            return (
                _chosen("retries", task.retries, state),
                _chosen("delay", task.delay, state),
                _chosen("timeout", task.timeout, state),
            )
        except Exception as cause:
            raise FlowError(task.path, self._opened.run_id, cause, 1) from cause

    def _before(self) -> Mirror:
        """The state as it is now, to go back to."""
        journal = self._opened.journal
        if journal is not None and journal.before is not None:
            return journal.before
        mirror = Mirror(self._opened.codec)
        mirror.advance(self._opened.shape.items(self._opened.state))
        return mirror


async def _called(task: Task[Any], state: object, run_id: str, attempt: int, deps: object) -> object:
    returned = task.call(state, Context(run_id, task.path, attempt, deps)) if task.wants_context else task.call(state)
    if returned is None:
        return None
    kind: type = type(returned)  # asked first, for isawaitable takes as long as all the rest
    return await cast(Awaitable[object], returned) if kind is CoroutineType or isawaitable(returned) else returned


async def _beside(background: Work, work: Work) -> None:
    """Do `work` while `background` goes on, and raise what it raises as it is, in no group."""
    failure: BaseException | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(background)
        try:
            await work()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _chosen(name: str, option: Any, state: object) -> Any:
    """The value of an option, which may be a function of the state."""
    if not callable(option):
        return option
    value = option(state)
    check_option(name, value, f"a {type(value).__qualname__}")  # the value may be one of the state
    return value
