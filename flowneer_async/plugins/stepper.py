"""Manual stepping: a run that stops before each step until it is told to go on."""

from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import anyio

from flowneer_async.context import Context
from flowneer_async.defining import check_choice
from flowneer_async.hooks import Filter, Hooks, Proceed
from flowneer_async.plugins.builder import F
from flowneer_async.versions import Status

T = TypeVar("T")
Leave: TypeAlias = Literal["continue", "cancel"]


@dataclass(frozen=True, slots=True)
class Paused:
    """A step, at path `step`, that stands before its attempt number `attempt`."""

    run_id: str
    step: str
    attempt: int


class Stepped(Generic[T]):
    """The run of an `over` block: `result` is what it gave, once it has come to its end."""

    def __init__(self) -> None:
        self.result: T | None = None


class Stepper:
    """Lets steps go one at a time: of one run or several, with any number of lanes.

        stepper = Stepper()
        flow = report.add_hooks(manual_stepping(stepper), ["send*"])
        async with stepper.over(flow.run(state)):
            while paused := await stepper.step():
                print(paused.step)

    It has nothing of a run but what stands before a step at this moment.
    """

    def __init__(self) -> None:
        self._gates: list[_Gate] = []
        self._watchers: list[anyio.Event] = []
        self._free = False
        self._going_on: set[object] = set()
        self._has_begun = False

    @property
    def paused(self) -> tuple[Paused, ...]:
        """What stands before a step now, in the order it came."""
        return tuple(gate.paused for gate in self._gates)

    async def next(self, step: str | None = None) -> Paused | None:
        """Wait until something stands before a step, or before the one at path `step`; None: all runs have ended."""
        gate = await self._next(step)
        return None if gate is None else gate.paused

    async def step(self, step: str | None = None) -> Paused | None:
        """Wait as `next` does, let it go, and wait until that attempt has ended; the others stay where they are."""
        gate = await self._next(step)
        if gate is None:
            return None
        self._let_go(gate)
        await gate.ended.wait()
        return gate.paused

    def continue_(self) -> None:
        """Let everything go on, and stop nothing any more."""
        self._free = True
        for gate in list(self._gates):
            self._let_go(gate)

    @asynccontextmanager
    async def over(self, run: Coroutine[Any, Any, T], *, leave: Leave = "continue") -> AsyncGenerator["Stepped[T]"]:
        """Do `run`, a `flow.run(…)`, beside the block; `as stepped` has its result when the block has been left.

        Leaving the block lets the run go on, and waits for it; or, with `leave="cancel"`, or where the block raises,
        cancels it. What the run raises is raised when the block has been left.
        """
        stepped, failed = Stepped[T](), list[Exception]()
        self._begin(stepped)
        try:
            check_choice("leave", leave, Leave)
            async with anyio.create_task_group() as group:
                group.start_soon(self._do, run, stepped, failed)
                try:
                    yield stepped
                except Exception as error:  # raised outside of the task group, which would make a group of it
                    failed.insert(0, error)
                if leave == "cancel" or failed:
                    group.cancel_scope.cancel()
                else:
                    self.continue_()
        finally:
            run.close()  # where it was cancelled before it began
            self._end(stepped)
            self._free = False
        if failed:
            raise failed[0]

    async def around(self, proceed: Proceed, state: object, ctx: Context) -> None:
        """The middleware: stand before the step until it is let go."""
        gate = _Gate(Paused(ctx.run_id, ctx.step, ctx.attempt))
        try:
            if not self._free:
                self._gates.append(gate)
                self._changed()
                await gate.opened.wait()
            await proceed()
        finally:
            gate.ended.set()
            if gate in self._gates:  # cancelled
                self._gates.remove(gate)

    def begun(self, state: object, ctx: Context) -> None:
        """Told that a run begins."""
        self._begin(ctx.run_id)

    def ended(self, state: object, ctx: Context, status: Status) -> None:
        """Told that a run has ended."""
        self._end(ctx.run_id)

    async def _do(self, run: Coroutine[Any, Any, T], stepped: "Stepped[T]", failed: list[Exception]) -> None:
        try:
            stepped.result = await run
        except Exception as error:
            failed.append(error)
        finally:
            self._end(stepped)

    async def _next(self, step: str | None) -> "_Gate | None":
        while True:
            for gate in self._gates:
                if step is None or gate.paused.step == step:
                    return gate
            if self._has_begun and not self._going_on:
                return None
            watcher = anyio.Event()
            self._watchers.append(watcher)
            await watcher.wait()

    def _let_go(self, gate: "_Gate") -> None:
        self._gates.remove(gate)
        gate.opened.set()

    def _begin(self, run: object) -> None:
        self._going_on.add(run)
        self._has_begun = True

    def _end(self, run: object) -> None:
        self._going_on.discard(run)
        self._changed()

    def _changed(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.set()


class _Gate:
    def __init__(self, paused: Paused) -> None:
        self.paused, self.opened, self.ended = paused, anyio.Event(), anyio.Event()


def manual_stepping(stepper: Stepper) -> Hooks[object]:
    """Hooks that stop a run before every attempt of a step until `stepper` lets it go."""
    return Hooks(before_flow=stepper.begun, wrap_step=stepper.around, after_flow=stepper.ended)


class ManualStepping:
    """`flow.with_manual_stepping(stepper, filter)`, for `FlowBuilder.extend([ManualStepping])`."""

    def with_manual_stepping(self: F, stepper: Stepper, filter: Filter | None = None) -> F:
        """A run stops before the steps that `filter` names until `stepper` lets it go."""
        return self.add_hooks(manual_stepping(stepper), filter)
