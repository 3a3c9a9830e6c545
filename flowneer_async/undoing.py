"""When a step fails for good: what was done is undone in reverse, and `on_error` bodies take over.

This is the saga of https://www.cs.cornell.edu/andru/cs711/2002fa/reading/sagas.pdf (Garcia-Molina and Salem, 1987).
"""

from typing import Any, TypedDict, cast

from flowneer_async.cursor import ERROR
from flowneer_async.errors import FailedBefore, FlowError, Undone
from flowneer_async.events import Failure
from flowneer_async.finding import node_at
from flowneer_async.line import Line, Place, Trail
from flowneer_async.steps import Body, Task


class _Undo(TypedDict):
    """A step that was done and can be undone, and what it was told."""

    step: str
    item: object
    index: int | None


def done_for_undo(line: Line, place: Place, path: str) -> None:
    """Remember that a step was done."""
    _push(line, {"step": path, "item": place.item, "index": place.index})


def hand_over(line: Line, lane: str) -> None:
    """The steps of a lane that was merged are now those of its line."""
    for _, entry in entries(line, lane):
        _push(line, entry)


async def guarded(line: Line, body: Body[Any], place: Place, trail: Trail) -> None:
    """Walk a body whose failure leads on: to its `on_error`, or, for that of the flow, to undoing what was done."""
    where = place.where
    failure = stored_failure(line, where)
    cause: FlowError | None = None
    if failure is None:
        try:
            return await line.core.walk(line, body, place, trail)
        except FlowError as error:
            if body.on_error is None and not _undoable(line, where):
                raise
            cause, trail = error, ()
            failure = await _failed(line, place, error)
    await undo(line, where, place)
    if body.on_error is None:
        raise cause or Undone(line.core.run_id, failure.step, failure.error)
    inner = place.inside(body.on_error, f"{place.prefix}@error/")
    inner.failure = failure
    await enter(line, body.on_error, inner, trail[1:] if trail and trail[0] == ERROR else ())
    line.core.memory.drop(where, "error")
    return None


def enter(line: Line, body: Body[Any], place: Place, trail: Trail) -> Any:
    """Walk a body as it has to be."""
    walk = line.core.walk if body.on_error is None else guarded
    return walk(line, body, place, trail)


async def undo(line: Line, where: str, place: Place) -> None:
    """Undo the steps that a line has done in the body at `where`, the last one first."""
    for kind, entry in reversed(_undoable(line, where)):
        path = entry["step"]
        node = node_at(line.core.plan.body, path)
        if isinstance(node, Task) and node.compensate is not None:
            told = Place(place, place.body, "", place.done, entry["item"], entry["index"], place.failure)
            await line.ask(node.compensate, told, f"{path}/@undo")
            line.core.memory.drop(line.path, kind)
            await line.mark(node, told, f"{path}/@undo")


async def fail(line: Line, place: Place, where: str, error: FlowError) -> Failure:
    """Store that the body or step at `where` has failed, so that a crash does not let it go on."""
    failure = Failure(error.step, error_type(error))
    line.core.memory.put(where, "error", {"step": failure.step, "error": failure.error})
    await line.note(place, f"{where}/@failed" if where else "@failed")
    return failure


def stored_failure(line: Line, where: str) -> Failure | None:
    """The failure that the body or step at `where` had before."""
    stored = cast(dict[str, str] | None, line.core.memory.get(where, "error"))
    return None if stored is None else Failure(stored["step"], stored["error"])


def failed_before(line: Line, failure: Failure) -> FlowError:
    """A stored failure as an error again."""
    return FlowError(failure.step, line.core.run_id, FailedBefore(failure.step, failure.error), 1)


def error_type(error: FlowError) -> str:
    """The type of what a step raised."""
    cause = error.cause
    return cause.error if isinstance(cause, FailedBefore) else type(cause).__qualname__


def entries(line: Line, lane: str) -> list[tuple[str, _Undo]]:
    """The steps of a line that can be undone, in the order they were done, and the kinds of their facts."""
    facts = line.core.memory.of(lane)
    kinds = sorted((kind for kind in facts if kind.startswith("undo:")), key=lambda kind: int(kind[5:]))
    return [(kind, cast(_Undo, line.core.memory.get(lane, kind))) for kind in kinds]


async def _failed(line: Line, place: Place, error: FlowError) -> Failure:
    line.restore()
    return await fail(line, place, place.where, error)


def _undoable(line: Line, where: str) -> list[tuple[str, _Undo]]:
    prefix = f"{where}/" if where else ""
    return [(kind, entry) for kind, entry in entries(line, line.path) if entry["step"].startswith(prefix)]


def _push(line: Line, entry: _Undo) -> None:
    memory = line.core.memory
    number = memory.get(line.path, "undone") or 0
    memory.put(line.path, f"undo:{number}", entry)
    memory.put(line.path, "undone", cast(int, number) + 1)
