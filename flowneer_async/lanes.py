"""Lanes: bodies that run side by side, each on a draft of the state, and are merged in the end."""

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import anyio

from flowneer_async.behind import beside
from flowneer_async.errors import FlowError, FlowneerError
from flowneer_async.events import Waiting
from flowneer_async.lane import open_lane
from flowneer_async.line import Line
from flowneer_async.merge import Changes, Merge, changes_of, merged
from flowneer_async.place import Place, Suspended, Trail
from flowneer_async.steps import Batch, Body, Parallel, Task
from flowneer_async.undoing import enter, error_type, fail, failed_before, hand_over, has_to_undo, undo_all


async def parallel(line: Line, node: Parallel[Any], place: Place, path: str, trail: Trail) -> None:
    """Bodies side by side, one lane each."""
    memory = line.core.memory
    if len(trail) > 1:
        has_begun = any(each.startswith(f"{path}[") for each in memory.paths) and not memory.has(path, "items")
        line.check_fits(path, has_begun)
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
    begin = (trail[0].index or 0) + (trail[1].name == "@joined") if len(trail) > 1 else 0
    bodies = [(node.body, item) for item in items]
    for number in range(begin, len(items)):
        lanes = Lanes(line, node, place, path, bodies, node.max_failures)
        await lanes.run([number], 1)
        await line.mark(node, place, f"{path}[{number}]/@joined")


async def items_of(line: Line, node: Batch[Any], place: Place, path: str, trail: Trail) -> list[object]:
    """The items of a batch, as they were when it began; so is the way in which it goes through them."""
    memory = line.core.memory
    line.check_fits(path, memory.has(path, "items") or len(trail) < 2 or trail[1].name == "@items")
    if not memory.has(path, "items"):
        found = await line.ask(node.items, place, path, "@items", path)
        try:
            memory.put(path, "items", list(cast(Any, found)), f"the items of {path!r}")
        except TypeError as cause:
            raise FlowError(path, line.core.run_id, cause, 1) from cause
        memory.put(path, "mode", node.mode)
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
        self._base = line.mirror(path)
        self._done: dict[int, Changes] = {}
        self._waits: dict[int, tuple[Waiting, ...]] = {}
        self._error: BaseException | None = None
        self._cut: BaseException | None = None
        self._giving_up = 0

    async def run(self, numbers: Sequence[int], concurrency: int) -> None:
        """Run these lanes, so many at a time, and merge them."""
        journal = self._line.core.journal
        # A lane that is alone waits for the store itself.
        behind = None if journal is None or min(concurrency, len(numbers)) == 1 else journal.gather()
        if journal is None or behind is None:
            await self._work(numbers, concurrency)
        else:
            await beside(behind, lambda: self._work(numbers, concurrency))
            journal.scatter()
        if self._error is not None:
            raise self._error
        if self._cut is not None:  # a step was cancelled by itself, and nothing else was
            raise self._cut
        if self._waits:
            raise Suspended(tuple(wait for number in sorted(self._waits) for wait in self._waits[number]))
        self._join(numbers)

    async def _work(self, numbers: Sequence[int], concurrency: int) -> None:
        left, workers = iter(numbers), min(concurrency, len(numbers))
        if workers == 1:
            await self._worker(left, anyio.CancelScope())
            return
        async with anyio.create_task_group() as group:
            for _ in range(workers):
                group.start_soon(self._worker, left, group.cancel_scope)

    async def _worker(self, left: Iterator[int], others: anyio.CancelScope) -> None:
        """One lane after the other, until there is none left."""
        for number in left:
            try:
                await self._finish(number)
            except Suspended as suspended:
                self._waits[number] = suspended.waits
            except anyio.get_cancelled_exc_class() as cut:
                self._cut = self._cut or cut
                raise
            except BaseException as error:
                self._error = self._error or error
                if self._node.on_error == "cancel" or not isinstance(error, FlowError):
                    others.cancel()
                    return

    async def _finish(self, number: int) -> None:
        """Run a lane to its end, or give it up where that is allowed."""
        lane = open_lane(self._line.core, self._base, self._path_of(number))
        if lane.core.memory.has(lane.path, "failed"):
            return
        inner = self._inner(number, lane)
        try:
            await self._run(number, lane, inner)
        except FlowError as error:
            if not self._may_fail():
                raise
            self._giving_up += 1
            await self._give_up(lane, inner, error)

    async def _run(self, number: int, lane: Line, inner: Place) -> None:
        facts = lane.core.memory.of(lane.path)
        if "error" in facts and inner.body.on_error is None:
            raise failed_before(lane)
        if self._node.timeout is None:
            await self._wrapped(lane, inner)
        else:
            await self._limited(lane, inner, self._node.timeout)
        self._done[number] = changes_of(self._base.texts, lane.before(lane.path).texts)

    async def _limited(self, lane: Line, inner: Place, seconds: float) -> None:
        with anyio.move_on_after(seconds) as limit:
            await self._wrapped(lane, inner)
        if limit.cancelled_caught:
            late = TimeoutError()
            raise FlowError(lane.path, lane.core.run_id, late, 1) from late

    def _wrapped(self, lane: Line, inner: Place) -> Coroutine[Any, Any, None]:
        return _walk(lane, inner) if lane.core.around is None else self._told(lane, inner)

    async def _told(self, lane: Line, inner: Place) -> None:
        if isinstance(self._node, Batch):
            await lane.tell("on_loop_iteration", self._node, inner, lane.path)
        await lane.wrap(self._node, inner, partial(_walk, lane, inner))

    def _inner(self, number: int, lane: Line) -> Place:
        body, item = self._lanes[number]
        place, is_item = self._place, isinstance(self._node, Batch)
        told = (item, number) if is_item else (place.item, place.index)
        return Place(None, body, f"{lane.path}/", place.done, *told, place.failure)

    # In the end -------------------------------------------------------------------------------------------------------

    def _may_fail(self) -> bool:
        failures = cast(int, self._line.core.memory.get(self._path, "failures") or 0)
        return failures + self._giving_up < self._max_failures

    async def _give_up(self, lane: Line, inner: Place, error: FlowError) -> None:
        """Undo what an item has done, and leave it out."""
        memory = lane.core.memory
        if has_to_undo(lane, inner):
            if not memory.has(lane.path, "error"):
                await fail(lane, inner, error)
            await undo_all(lane, inner)
        elif all(isinstance(node, Task) for node in inner.body.order):
            memory.forget(error.step)  # nothing else can be left; to look through all facts would take too long
        else:
            memory.forget_beneath(lane.path)
        memory.forget(lane.path)
        memory.put(lane.path, "failed", True)
        memory.put(self._path, "failures", cast(int, memory.get(self._path, "failures") or 0) + 1)
        self._giving_up -= 1
        memory.put("", f"failure:{lane.path}", {"step": error.step, "error": error_type(error)})
        await self._line.note(self._place, f"{lane.path}/@given_up")

    def _join(self, numbers: Sequence[int]) -> None:
        """Bring what the lanes have changed into the state of the line."""
        line = self._line
        lanes = {self._path_of(number): self._done[number] for number in numbers if number in self._done}
        outcome = self._merged(lanes)
        for key, value in outcome.changed(line.core.codec).items():
            line.shape.write(line.state, key, value)
        for key in outcome.removed:
            line.shape.remove(line.state, key)
        for path in map(self._path_of, numbers):
            hand_over(line, path)
            line.core.memory.forget(path)
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


async def _walk(lane: Line, inner: Place) -> None:
    """Do what is left of a lane."""
    facts = lane.core.memory.of(lane.path)
    trail = lane.trail(cast(str | None, lane.core.memory.get(lane.path, "at"))) if facts else ()
    try:
        await enter(lane, inner.body, inner, trail)
    except FlowError:
        lane.restore()  # for a middleware that catches it, or proceeds again: then the lane goes on from there
        raise
