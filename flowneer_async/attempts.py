"""One step: called as often as its options allow, and taken for done, undone or in doubt."""

from typing import Any, cast

import anyio

from flowneer_async.defining import check_option
from flowneer_async.differ import Mirror
from flowneer_async.errors import FlowError
from flowneer_async.events import StepRetried, Waiting
from flowneer_async.line import Line
from flowneer_async.place import Place, Suspended, Trail
from flowneer_async.policy import wait_after
from flowneer_async.steps import Call, Next, Task
from flowneer_async.undoing import done_for_undo


async def task(line: Line, node: Task[Any], place: Place, path: str, trail: Trail) -> object:
    """Do a step, and give what it returned."""
    core = line.core
    is_observed = core.around is not None or node.fallback is not None
    try:
        returned = await (_observed if is_observed else _delivered)(line, node, place, path)
    except Suspended as suspended:
        await line.put_down(place, suspended)
        raise
    if node.compensate is not None:
        done_for_undo(line, place, path)
    core.memory.forget(path)
    return returned


async def _observed(line: Line, node: Task[Any], place: Place, path: str) -> object:
    """The step between those who are told of it; its fallback where it fails."""
    before = line.before(path) if node.fallback is not None else None
    try:
        await line.tell("before_step", node, place, path)
        returned = await _delivered(line, node, place, path)
        await line.tell("after_step", node, place, path)
    except FlowError as error:
        await line.roll_back()
        await line.tell("on_error", node, place, path, error.cause)
        if node.fallback is None or before is None:
            raise
        before.restore(line.shape, line.state)
        return await line.ask(node.fallback, place, path, "@fallback")
    else:
        return returned


async def _delivered(line: Line, node: Task[Any], place: Place, path: str) -> object:
    if node.delivery == "at_most_once" and line.core.store is not None:
        if line.core.memory.has(path, "begun"):
            if await _was_done(line, node, place, path):
                return None
        else:
            line.core.memory.put(path, "begun", True)
        await line.note(place, f"{path}/@begun")
        if line.journal is not None:
            await line.journal.settle()
    return await _attempts(line, node, place, path)


async def _was_done(line: Line, node: Task[Any], place: Place, path: str) -> bool:
    """Was a step that was interrupted done? Asks the flow, or else whoever resumes the run."""
    if node.verify is not None:
        return bool(await line.ask(node.verify, place, path, "@verify", path))
    memory = line.core.memory
    if not memory.has(path, "settled"):
        raise Suspended((Waiting("doubt", path),))
    answer = memory.get(path, "settled")
    memory.drop(path, "settled")  # should it be interrupted again, that is another doubt
    return bool(answer)


async def _attempts(line: Line, node: Task[Any], place: Place, path: str) -> object:
    """Call a step as often as its options allow; before each further attempt the state is what it was."""
    core = line.core
    retries, delay, timeout = _options(line, node, path)
    before = line.before(path) if retries else None
    attempt = 1
    while True:
        try:
            return await _wrapped(line, node, place, path, attempt, timeout)
        except Exception as cause:
            if before is None or attempt > retries:
                raise FlowError(path, core.run_id, cause, attempt) from cause
            failed = type(cause).__qualname__
        await line.roll_back()
        before.restore(line.shape, line.state)
        wait = wait_after(attempt, delay, core.world.draw)
        if core.watch is not None:
            await core.watch(StepRetried(path, attempt, failed, wait))
        await core.world.sleep(wait)
        attempt += 1


async def _wrapped(line: Line, node: Task[Any], place: Place, path: str, attempt: int, timeout: float | None) -> object:
    """One attempt, within the middleware; the limit of time is the step's alone."""
    around, call = line.core.around, Call(node.call, node.wants_context)
    if around is None or not around.has("wrap_step", node.name):
        return await _limited(line, call, place, path, attempt, timeout)
    before: Mirror | None = None

    async def proceed() -> Next:
        nonlocal before
        if before is not None:  # a middleware that proceeds again tries again, from the state that was before
            await line.roll_back()
            before.restore(line.shape, line.state)
        elif line.journal is not None:
            before = line.mirror(path)
        return cast(Next, await _limited(line, call, place, path, attempt, timeout))

    line.is_clean = False
    return await around.wrap("wrap_step", node.name, proceed, line.state, line.context(place, path, attempt))


async def _limited(line: Line, call: Call, place: Place, path: str, attempt: int, timeout: float | None) -> object:
    if timeout is None:
        return await line.call(call, place, path, attempt)
    with anyio.fail_after(timeout):
        return await line.call(call, place, path, attempt)


def _options(line: Line, node: Task[Any], path: str) -> tuple[Any, Any, Any]:
    """The step's options for the state as it is now."""
    try:
        return (
            _chosen("retries", node.retries, line.state),
            _chosen("delay", node.delay, line.state),
            _chosen("timeout", node.timeout, line.state),
        )
    except Exception as cause:
        raise FlowError(path, line.core.run_id, cause, 1) from cause


def _chosen(name: str, option: Any, state: object) -> Any:
    """The value of an option, which may be a function of the state."""
    if not callable(option):
        return option
    value = option(state)
    check_option(name, value, f"a {type(value).__qualname__}")  # the value may be one of the state
    return value
