"""The one loop: take the step, do it as its kind is done, keep what it changed, move on."""

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from types import CoroutineType
from typing import Any, cast

from flowneer_async.attempts import task
from flowneer_async.cursor import encode, quoted, written_in
from flowneer_async.errors import FlowChanged, FlowError, StepReturned, TooManyVisits, UnknownAnchor, UnknownCase
from flowneer_async.events import StepStarted
from flowneer_async.lanes import concurrent, each_alone, items_of, parallel
from flowneer_async.line import Line
from flowneer_async.place import Jumped, Place, Suspended, Trail
from flowneer_async.steps import (
    RECORDED,
    Anchor,
    Batch,
    Body,
    Branch,
    Goto,
    Loop,
    Node,
    Parallel,
    Sleep,
    Sub,
    Task,
    Wait,
)
from flowneer_async.undoing import enter
from flowneer_async.waiting import sleep, wait_for


async def walk(line: Line, body: Body[Any], place: Place, trail: Trail) -> None:
    """Do the steps of a body one after the other, from where `trail` leads to."""
    core, journal, order = line.core, line.journal, body.order
    control = core.control
    watch, is_quick = core.watch, core.around is None
    number, trail = _begin(line, body, place, trail) if trail else (0, ())
    while number < len(order):
        if control.halted is not None:
            raise Suspended(())
        node = order[number]
        place.at = number
        is_told = type(node) in RECORDED
        try:
            if is_told and watch is not None:
                await watch(StepStarted(place.path_of(node)))
            if is_quick and type(node) is Task and node.is_plain:
                returned = await _called(line, node, place)
            else:
                path = place.path_of(node)
                returned = await _KINDS[type(node)](line, node, place, path, trail)
            if returned is not None:
                await _jump(line, node, place, place.path_of(node), returned)
            elif journal is not None and (is_told or journal.whole_steps):
                await line.record(node, place, place.path_of(node))
        except Jumped as jump:
            if jump.place is not place:
                raise
            number = jump.number
        except BaseException as error:
            if line.transaction is not None and not isinstance(error, GeneratorExit):
                await line.roll_back()
            raise
        number += 1
        trail = ()
    if place.round:
        _forget_visits(line, place)


def _begin(line: Line, body: Body[Any], place: Place, trail: Trail) -> tuple[int, Trail]:
    """The number of the step to go on with, and the frames that lead on inside of it."""
    if trail[0].is_own:
        return 0, ()
    number = body.position.get(trail[0].name)
    if number is None:  # the steps of a lane, or behind a jump, are not those of the last version
        raise FlowChanged(line.core.run_id, [encode(trail)], line.core.plan.paths)
    place.round = trail[0].round
    return (number, trail) if len(trail) > 1 else (number + 1, ())


async def _called(line: Line, node: Task[Any], place: Place) -> object:
    """Call a step without options, in the quickest way."""
    try:
        returned = node.call(line.state)
        if returned is None:
            return None
        kind: type = type(returned)  # asked first, for isawaitable takes as long as all the rest
        return await cast(Awaitable[object], returned) if kind is CoroutineType or isawaitable(returned) else returned
    except Exception as cause:
        raise FlowError(place.path_of(node), line.core.run_id, cause, 1) from cause


# Jumps ----------------------------------------------------------------------------------------------------------------


async def _jump(line: Line, node: Node[Any], place: Place, path: str, returned: object) -> None:
    """Keep the step that jumps together with where it lands; always raises Jumped, or why it cannot be done."""
    name = _target(line, path, returned)
    landing: Place | None = place
    while landing is not None and name not in landing.body.anchors:
        landing = landing.outer
    if landing is None:
        raise UnknownAnchor(path, line.core.run_id, name)
    number = landing.body.anchors[name]
    anchor = cast(Anchor, landing.body.order[number])
    _visit(line, anchor, landing)
    _leave(line, place, landing)
    landing.round += 1
    if line.journal is not None or line.core.around is not None:
        at = f"{landing.prefix}{written_in(landing.round, name)}"
        await line.record(node, place, path, (number if landing.top is None else landing.top, at))
        await line.tell("on_anchor_hit", anchor, landing, at)
    raise Jumped(landing, number)


def _leave(line: Line, place: Place, landing: Place) -> None:
    """Forget what belongs to the bodies that a jump leaves."""
    memory = line.core.memory
    while place is not landing:
        assert place.outer is not None
        if place.is_rescue:
            memory.drop(place.outer.where, "error")
        place = place.outer
        left = f"{place.prefix}{written_in(place.round, place.body.order[place.at].name)}"
        memory.forget(left)
        memory.forget_beneath(left)


def _target(line: Line, path: str, returned: object) -> str:
    if isinstance(returned, Goto):
        return str.__str__(returned.anchor)
    if isinstance(returned, str) and returned[:1] == "#":
        return str.__str__(returned)[1:]
    raise StepReturned(path, line.core.run_id, type(returned))


def _visit(line: Line, anchor: Anchor, landing: Place) -> None:
    """Count a jump to an anchor; raises the FlowError that one too many is."""
    if anchor.max_visits is None:
        return
    path, memory, run_id = landing.prefix + anchor.quoted, line.core.memory, line.core.run_id
    visits = cast(int, memory.get(path, "visits") or 0) + 1
    if visits > anchor.max_visits:
        cause = TooManyVisits(path, run_id, anchor.max_visits)
        raise FlowError(path, run_id, cause, 1) from cause
    memory.put(path, "visits", visits)


def _forget_visits(line: Line, place: Place) -> None:
    for name in place.body.anchors:
        line.core.memory.forget(place.prefix + quoted(name))


# Kinds ----------------------------------------------------------------------------------------------------------------


def _sub(line: Line, node: Sub[Any], place: Place, path: str, trail: Trail) -> Awaitable[None]:
    if trail:
        line.check_fits(path, trail[0].index is None)
    return enter(line, node.body, place.inside(node.body, f"{path}/"), trail[1:])


async def _branch(line: Line, node: Branch[Any], place: Place, path: str, trail: Trail) -> None:
    if len(trail) > 1 and not trail[1].is_own:
        case = trail[1].name
        if case not in node.bodies:
            raise FlowChanged(line.core.run_id, [f"{path}/{quoted(case)}"], line.core.plan.paths)
    else:
        case = await _choice(line, node, place, path)
        if line.journal is not None:
            await line.mark(node, place, f"{path}/{quoted(case)}/@chosen")
    body = node.bodies[case]
    await enter(line, body, place.inside(body, f"{path}/{quoted(case)}/"), trail[2:])


async def _choice(line: Line, node: Branch[Any], place: Place, path: str) -> str:
    answer = await line.ask(node.router, place, path, "@router", path)
    if isinstance(answer, str) and answer in node.cases:
        return str.__str__(answer)
    if "default" in node.bodies:
        return "default"
    cause = UnknownCase(path, line.core.run_id, type(answer), tuple(node.cases))
    raise FlowError(path, line.core.run_id, cause, 1) from cause


async def _loop(line: Line, node: Loop[Any], place: Place, path: str, trail: Trail) -> None:
    number = (trail[0].index or 0) if trail else 0
    line.check_fits(path, not trail or trail[0].index is not None)
    line.check_fits(path, not (line.core.memory.has(path, "items") or line.core.memory.has(f"{path}[{number}]", "at")))
    inner, rest = place.inside(node.body, ""), trail[1:]
    if rest and rest[0].name == "@condition":
        rest = ()
    while True:
        at = f"{path}[{number}]"
        inner.prefix, inner.index, inner.round = f"{at}/", number, 0
        if not rest and not await line.ask(node.condition, inner, at, "@condition", path):
            return
        if line.core.around is not None:
            await line.tell("on_loop_iteration", node, inner, at)
        await enter(line, node.body, inner, rest)
        rest = ()
        number += 1


async def _batch(line: Line, node: Batch[Any], place: Place, path: str, trail: Trail) -> None:
    items = await items_of(line, node, place, path, trail)
    mode = line.core.memory.get(path, "mode")
    if mode == "lanes":
        await concurrent(line, node, items, place, path)
    elif mode == "drafts":
        await each_alone(line, node, items, place, path, trail)
    else:
        await _one_by_one(line, node, items, place, path, trail)
    line.core.memory.forget(path)


async def _one_by_one(line: Line, node: Batch[Any], items: list[object], place: Place, path: str, trail: Trail) -> None:
    begin = (trail[0].index or 0) if trail else 0
    inner, rest = place.inside(node.body, ""), trail[1:]
    for number in range(begin, len(items)):
        inner.prefix, inner.item, inner.index, inner.round = f"{path}[{number}]/", items[number], number, 0
        if line.core.around is not None:
            await line.tell("on_loop_iteration", node, inner, inner.where)
        await enter(line, node.body, inner, rest)
        rest = ()


async def _anchor(line: Line, node: Anchor, place: Place, path: str, trail: Trail) -> None:
    pass


_KINDS: Mapping[type, Callable[..., Awaitable[object]]] = {
    Task: task,
    Sub: _sub,
    Branch: _branch,
    Loop: _loop,
    Batch: _batch,
    Parallel: parallel,
    Anchor: _anchor,
    Sleep: sleep,
    Wait: wait_for,
}
