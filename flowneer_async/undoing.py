"""When a step fails for good: what was done is undone in reverse, and `on_error` bodies take over.

This is the saga of https://www.cs.cornell.edu/andru/cs711/2002fa/reading/sagas.pdf (Garcia-Molina and Salem, 1987).
"""

from collections.abc import Coroutine
from typing import Any, TypedDict, cast

from flowneer_async.cursor import ERROR, Frame, quoted, written_in
from flowneer_async.errors import FailedBefore, FlowChanged, FlowError, Undone
from flowneer_async.events import Failure
from flowneer_async.finding import node_at
from flowneer_async.lane import lane_inside, lanes_within
from flowneer_async.line import Line
from flowneer_async.memory import Memory
from flowneer_async.place import Jumped, Place, Trail
from flowneer_async.steps import Body, Task

_UNDO = "undo:"


class _Undo(TypedDict):
    """A step that was done and can be undone, and what it was told."""

    step: str
    item: object
    index: int


def done_for_undo(line: Line, place: Place, path: str) -> None:
    """Remember that a step was done."""
    _push(line, {"step": path, "item": place.item, "index": place.index})


def hand_over(line: Line, lane: str) -> None:
    """The steps of a lane that was merged are now those of its line."""
    if line.core.memory.has(lane, "undone"):
        for _, entry in entries(line, lane):
            _push(line, entry)


async def guarded(line: Line, body: Body[Any], place: Place, trail: Trail) -> None:
    """Walk a body whose failure leads on: to its `on_error`, or, for that of the flow, to undoing what was done."""
    while True:
        try:
            if stored_failure(line, place.where) is None:
                if trail and trail[0].name == ERROR:
                    return None  # its on_error is done, and so is the body
                return await line.core.walk(line, body, place, trail)
            return await _rescue(line, body, place, trail)
        except FlowError as error:
            is_over = stored_failure(line, place.where) is not None
            if is_over or (body.on_error is None and not has_to_undo(line, place)):
                raise
            trail = ()
            await fail(line, place, error)
            if body.on_error is None:
                await undo_all(line, place)
                raise
        except Jumped as jump:
            if jump.place is not place:
                raise
            # Out of the on_error: the body is tried again, from an anchor on.
            trail = (Frame(body.order[jump.number].name, None, place.round),)


async def _rescue(line: Line, body: Body[Any], place: Place, trail: Trail) -> None:
    """What comes after a failure that is stored."""
    failure = stored_failure(line, place.where)
    assert failure is not None
    place.round = cast(dict[str, int], line.core.memory.get(place.where, "error"))["round"]
    await undo_all(line, place)
    if body.on_error is None:
        raise Undone(line.core.run_id, failure.step, failure.error)
    inner = place.inside(body.on_error, f"{place.prefix}{written_in(place.round, ERROR)}/")
    inner.failure, inner.is_rescue = failure, True
    await enter(line, body.on_error, inner, trail[1:] if trail and trail[0].name == ERROR else ())
    line.core.memory.drop(place.where, "error")
    for anchor in body.anchors:
        line.core.memory.forget(f"{place.prefix}{quoted(anchor)}")


def enter(line: Line, body: Body[Any], place: Place, trail: Trail) -> Coroutine[Any, Any, None]:
    """Walk a body as it has to be."""
    walk = line.core.walk if body.on_error is None else guarded
    return walk(line, body, place, trail)


async def undo_all(line: Line, place: Place) -> None:
    """Undo what was done in the body at `place`, lanes that were not merged first; then forget what was left there."""
    memory = line.core.memory
    lanes = lanes_within(memory, place.where, _UNDO)
    for path in reversed([path for path in lanes if not path.startswith(f"{place.prefix}{ERROR}")]):
        await _undo(lane_inside(line, path), path, place)
    await _undo(line, place.where, place)
    _forget_beneath(memory, place)


def _forget_beneath(memory: Memory, place: Place) -> None:
    """What is left of a body that has failed, but for what its `on_error` has begun, and how often it was tried."""
    anchors = [f"{place.prefix}{quoted(name)}" for name in place.body.anchors]
    visits = {path: memory.get(path, "visits") for path in anchors if memory.has(path, "visits")}
    memory.forget_beneath(place.where, but=f"{place.prefix}{ERROR}")
    for path, number in visits.items():
        memory.put(path, "visits", number)


async def _undo(line: Line, where: str, place: Place) -> None:
    """Undo the steps that a line has done in the body at `where`, the last one first."""
    for kind, entry in reversed(_undoable(line, where)):
        path = entry["step"]
        node = node_at(line.core.plan.body, path)
        if not isinstance(node, Task) or node.compensate is None:
            raise FlowChanged(line.core.run_id, [path], line.core.plan.paths)
        failure = stored_failure(line, place.where) or place.failure
        told = Place(place, place.body, "", place.done, entry["item"], entry["index"], failure)
        await line.ask(node.compensate, told, path, "@undo")
        line.core.memory.drop(line.path, kind)
        await line.mark(None, told, f"{path}/@undo")


async def fail(line: Line, place: Place, error: FlowError) -> None:
    """Store that a body has failed, so that a crash does not let it go on."""
    line.restore()
    failed = {"step": error.step, "error": error_type(error), "round": place.round}
    line.core.memory.put(place.where, "error", failed)
    await line.note(place, f"{place.prefix}{written_in(place.round, '@failed')}")


def stored_failure(line: Line, where: str) -> Failure | None:
    """The failure that the body or step at `where` had before."""
    stored = cast(dict[str, Any] | None, line.core.memory.get(where, "error"))
    return None if stored is None else Failure(stored["step"], stored["error"])


def failed_before(line: Line) -> FlowError:
    """The stored failure of a lane as an error again."""
    failure = stored_failure(line, line.path)
    assert failure is not None
    return FlowError(failure.step, line.core.run_id, FailedBefore(failure.step, failure.error), 1)


def error_type(error: FlowError) -> str:
    """The type of what a step raised."""
    cause = error.cause
    return cause.error if isinstance(cause, FailedBefore) else type(cause).__qualname__


def entries(line: Line, lane: str) -> list[tuple[str, _Undo]]:
    """The steps of a line that can be undone, in the order they were done, and the kinds of their facts."""
    facts = line.core.memory.of(lane)
    kinds = sorted((kind for kind in facts if kind.startswith(_UNDO)), key=lambda kind: int(kind[5:]))
    return [(kind, cast(_Undo, line.core.memory.get(lane, kind))) for kind in kinds]


def has_to_undo(line: Line, place: Place) -> bool:
    """Was anything done in this body that can be undone?"""
    if not line.core.plan.compensates and not line.core.memory.has(line.path, "undone"):
        return False
    return bool(_undoable(line, place.where) or lanes_within(line.core.memory, place.where, _UNDO))


def _undoable(line: Line, where: str) -> list[tuple[str, _Undo]]:
    prefix = f"{where}/" if where else ""
    found = [(kind, entry) for kind, entry in entries(line, line.path) if entry["step"].startswith(prefix)]
    # What the on_error of the body has done stays done, unless a body further out fails.
    return [(kind, entry) for kind, entry in found if not entry["step"].startswith(f"{prefix}{ERROR}")]


def _push(line: Line, entry: _Undo) -> None:
    memory = line.core.memory
    number = memory.get(line.path, "undone") or 0
    memory.put(line.path, f"undo:{number}", entry)
    memory.put(line.path, "undone", cast(int, number) + 1)
