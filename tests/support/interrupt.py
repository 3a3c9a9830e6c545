"""Stepping a coroutine by hand, to do something to it at the n-th point where it waits."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from types import coroutine
from typing import Any, cast

import anyio


@dataclass
class Stepped:
    """Await `work`, and call `interrupt` with what it waits for at each of its suspension points in `points`."""

    work: Coroutine[Any, Any, object]
    points: range
    interrupt: Callable[[object], None]
    suspensions: int = 0
    """How often the work has waited so far."""

    async def run(self) -> None:
        await self._run()

    @coroutine
    def _run(self) -> Generator[Any, Any, None]:
        step: Callable[[Any], Any] = self.work.send
        value: Any = None
        while True:
            try:
                waited_for = step(value)
            except StopIteration:
                return
            if self.suspensions in self.points:
                self.interrupt(waited_for)
            self.suspensions += 1
            try:
                step, value = self.work.send, (yield waited_for)
            except BaseException as error:
                step, value = cast(Any, self.work.throw), error


def at_once(cancel: Callable[[], object], waited_for: object) -> None:
    """Cancel as the work begins to wait."""
    cancel()


def a_turn_later(cancel: Callable[[], object], waited_for: object) -> None:
    """Cancel when all other tasks had one turn."""
    asyncio.get_running_loop().call_soon(cancel)


def some_turns_later(cancel: Callable[[], object], waited_for: object) -> None:
    """Cancel when all other tasks had four turns: in the middle of what another task or thread does for the work."""
    loop = asyncio.get_running_loop()

    def wait(turns: int) -> None:
        loop.call_soon(wait, turns - 1) if turns else cancel()

    wait(4)


def as_it_ends(cancel: Callable[[], object], waited_for: object) -> None:
    """Cancel when what is waited for is there, before the work knows."""
    if isinstance(waited_for, asyncio.Future):
        waited_for.add_done_callback(lambda _: cancel())
    else:
        a_turn_later(cancel, waited_for)


Moment = Callable[[Callable[[], object], object], None]
MOMENTS: tuple[Moment, ...] = (at_once, a_turn_later, some_turns_later, as_it_ends)


async def cancelled_as_task(work: Coroutine[Any, Any, object], points: range, moment: Moment) -> bool:
    """Cancel a task at these points of its work; whether it came so far. Its cancellation has to come out."""
    told: list[bool] = []
    stepped = Stepped(work, points, lambda waited_for: moment(lambda: told.append(task.cancel()), waited_for))
    task = asyncio.create_task(stepped.run())
    await asyncio.wait({task})
    assert task.cancelled() == any(told), "a cancellation in time comes out, and nothing else does"
    if not task.cancelled():
        task.result()
    return stepped.suspensions > points.start


async def cancelled_as_scope(work: Coroutine[Any, Any, object], points: range, moment: Moment) -> bool:
    """The same with the scope around the work; nothing of it may come out of the scope."""
    scope = anyio.CancelScope()
    stepped = Stepped(work, points, lambda waited_for: moment(scope.cancel, waited_for))
    with scope:
        await stepped.run()
    return stepped.suspensions > points.start


Cancel = Callable[[Coroutine[Any, Any, object], range, Moment], Coroutine[Any, Any, bool]]
WAYS: tuple[Cancel, ...] = (cancelled_as_task, cancelled_as_scope)
