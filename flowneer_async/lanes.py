"""Lanes: bodies that run side by side, each on a draft of the state, and are merged in the end."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

import anyio

from flowneer_async.behind import beside
from flowneer_async.differ import Mirror
from flowneer_async.draft import draft_of, shape_for
from flowneer_async.errors import FlowError, FlowneerError
from flowneer_async.events import Waiting
from flowneer_async.journal import LaneJournal
from flowneer_async.line import Line, Place, Suspended, Trail
from flowneer_async.memory import GONE
from flowneer_async.merge import Changes, Merge, changes_of, merged
from flowneer_async.steps import Batch, Body, Parallel
from flowneer_async.undoing import (
    enter,
    entries,
    error_type,
    fail,
    failed_before,
    hand_over,
    stored_failure,
    undo,
)


async def parallel(line: Line, node: Parallel[Any], place: Place, path: str, trail: Trail) -> None:
    """Bodies side by side, one lane each."""
    lanes = Lanes(line, node, place, path, [(body, None) for body in node.lanes])
    await lanes.run(range(len(node.lanes)), len(node.lanes))
    line.core.memory.forget(path)


async def concurrent(line: Line, node: Batch[Any], items: Sequence[object], place: Place, path: str) -> None:
    """The items of a batch, some at a time, one lane each."""
    lanes = Lanes(line, node, place, path, [(node.body, item) for item in items], node.max_failures)
    await lanes.run(range(len(items)), node.concurrency)


async def each_alone(
    line: Line, node: Batch[Any], items: Sequence[object], place: Place, path: str, trail: Trail
) -> None:
    """The items of a batch one after the other, in a lane each, which is merged before the next one begins."""
    begin = (trail[0].index or 0) + (trail[1].name in ("@joined", "@given_up")) if len(trail) > 1 else 0
    for number in range(begin, len(items)):
        lanes = Lanes(line, node, place, path, [(node.body, item) for item in items], node.max_failures)
        await lanes.run([number], 1)
        await line.mark(node, place, f"{path}[{number}]/@joined")


async def items_of(line: Line, node: Batch[Any], place: Place, path: str) -> list[object]:
    """The items of a batch, as they were when it began."""
    memory = line.core.memory
    if not memory.has(path, "items"):
        found = await line.ask(node.items, place, path)
        try:
            memory.put(path, "items", list(cast(Any, found)))
        except TypeError as cause:
            raise FlowError(path, line.core.run_id, cause, 1) from cause
        await line.mark(node, place, f"{path}/@items")
    return cast(list[object], memory.get(path, "items"))


class Lanes:
    """The lanes of one step."""

    def __init__(
        self,
        line: Line,
        node: Parallel[Any] | Batch[Any],
        place: Place,
        path: str,
        lanes: Sequence[tuple[Body[Any], object]],
        max_failures: int = 0,
    ) -> None:
        self._line, self._node, self._place, self._path = line, node, place, path
        self._lanes, self._max_failures = lanes, max_failures
        self._base = line.mirror()
        self._done: dict[int, Changes] = {}
        self._waits: list[Waiting] = []
        self._error: BaseException | None = None

    async def run(self, numbers: Sequence[int], concurrency: int) -> None:
        """Run these lanes, so many at a time, and merge them."""
        before = stored_failure(self._line, self._path)
        if before is not None:
            await self._undo(numbers)
            raise failed_before(self._line, before)
        journal = self._line.core.journal
        behind = None if journal is None else journal.gather()
        if journal is None or behind is None:
            await self._work(numbers, concurrency)
        else:
            await beside(behind, lambda: self._work(numbers, concurrency))
            journal.scatter()
        if self._error is not None:
            await self._fail(numbers, self._error)
        if self._waits:
            raise Suspended(tuple(self._waits))
        self._join(numbers)

    async def _work(self, numbers: Sequence[int], concurrency: int) -> None:
        left = iter(numbers)
        async with anyio.create_task_group() as group:
            for _ in range(min(concurrency, len(numbers))):
                group.start_soon(self._worker, left, group.cancel_scope)

    async def _worker(self, left: Iterator[int], others: anyio.CancelScope) -> None:
        """One lane after the other, until there is none left."""
        for number in left:
            try:
                await self._finish(number)
            except Suspended as suspended:
                self._waits += suspended.waits
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:
                self._error = self._error or error
                if self._node.on_error == "cancel" or not isinstance(error, FlowError):
                    others.cancel()
                    return

    async def _finish(self, number: int) -> None:
        """Run a lane to its end, or give it up where that is allowed."""
        lane = self._lane(number)
        if self._line.core.memory.has(lane.path, "failed"):
            return
        try:
            await self._run(number, lane)
        except FlowError as error:
            if not self._may_fail():
                raise
            await self._give_up(lane, number, error)

    async def _run(self, number: int, lane: Line) -> None:
        body, _ = self._lanes[number]
        inner, memory = self._inner(number, lane), self._line.core.memory
        before = None if body.on_error is not None else stored_failure(lane, lane.path)
        if before is not None:
            raise failed_before(lane, before)
        trail = lane.trail(cast(str | None, memory.get(lane.path, "at"))) if memory.of(lane.path) else ()
        try:
            with nullcontext() if self._node.timeout is None else anyio.fail_after(self._node.timeout):
                await self._wrapped(lane, body, inner, trail)
        except TimeoutError as cause:
            raise FlowError(lane.path, lane.core.run_id, cause, 1) from cause
        self._done[number] = changes_of(self._base.texts, lane.finished())

    async def _wrapped(self, lane: Line, body: Body[Any], inner: Place, trail: Trail) -> None:
        if isinstance(self._node, Batch):
            await lane.tell("on_loop_iteration", self._node, inner, lane.path)
        await lane.wrap(self._node, inner, lambda: enter(lane, body, inner, trail))

    def _lane(self, number: int) -> Line:
        """A line of its own, on a draft of the state, as far as it had come."""
        core, path = self._line.core, f"{self._path}[{number}]"
        facts = core.memory.of(path)
        mirror = self._base.fork() if not facts else Mirror(core.codec, _overlaid(self._base.texts, facts))
        draft, shape = draft_of(mirror, core.shape, core.codec), shape_for(core.shape)
        journal = LaneJournal(core.plan, core.journal, path, mirror, core.memory, shape)
        return Line(core, path, draft, shape, journal)

    def _inner(self, number: int, lane: Line) -> Place:
        body, item = self._lanes[number]
        place, is_item = self._place, isinstance(self._node, Batch)
        told = (item, number) if is_item else (place.item, place.index)
        return Place(None, body, f"{lane.path}/", place.done, *told, place.failure)

    # In the end -------------------------------------------------------------------------------------------------------

    def _may_fail(self) -> bool:
        return cast(int, self._line.core.memory.get(self._path, "failures") or 0) < self._max_failures

    async def _give_up(self, lane: Line, number: int, error: FlowError) -> None:
        """Undo what an item has done, and leave it out."""
        memory, inner = self._line.core.memory, self._inner(number, lane)
        lane.restore()
        if entries(lane, lane.path) and stored_failure(lane, lane.path) is None:
            await fail(lane, inner, lane.path, error)
        await undo(lane, lane.path, inner)
        memory.forget(lane.path)
        memory.put(lane.path, "failed", True)
        memory.put(self._path, "failures", cast(int, memory.get(self._path, "failures") or 0) + 1)
        memory.put("", f"failure:{lane.path}", {"step": error.step, "error": error_type(error)})
        await self._line.note(self._place, f"{lane.path}/@given_up")

    async def _fail(self, numbers: Sequence[int], error: BaseException) -> None:
        """Undo what the lanes have done, and raise why."""
        if isinstance(error, FlowError) and any(entries(self._line, self._path_of(number)) for number in numbers):
            await fail(self._line, self._place, self._path, error)
            await self._undo(numbers)
        raise error

    async def _undo(self, numbers: Sequence[int]) -> None:
        for number in reversed(numbers):
            if entries(self._line, self._path_of(number)):
                lane = self._lane(number)
                await undo(lane, lane.path, self._inner(number, lane))

    def _join(self, numbers: Sequence[int]) -> None:
        """Bring what the lanes have changed into the state of the line."""
        line = self._line
        lanes = {self._path_of(number): self._done[number] for number in numbers if number in self._done}
        outcome = self._merged(lanes)
        for key, value in outcome.changed(line.core.codec).items():
            line.shape.write(line.state, key, value)
        for key in outcome.removed:
            line.shape.remove(line.state, key)
        for number in numbers:
            hand_over(line, self._path_of(number))
            line.core.memory.forget(self._path_of(number))
        line.is_clean = False

    def _merged(self, lanes: Mapping[str, Changes]) -> Merge:
        core = self._line.core
        try:
            return merged(self._path, self._base.texts, lanes, self._node.reducer, core.codec)
        except FlowneerError:
            raise
        except Exception as cause:  # a reducer is the user's
            raise FlowError(self._path, core.run_id, cause, 1) from cause

    def _path_of(self, number: int) -> str:
        return f"{self._path}[{number}]"


def _overlaid(base: Mapping[str, bytes], facts: Mapping[str, bytes]) -> dict[str, bytes]:
    """The texts of a lane: those before it, and those that it has changed since."""
    changed = {kind[1:]: text for kind, text in facts.items() if kind[0] == "="}
    return {key: text for key, text in {**base, **changed}.items() if text != GONE}
