"""Steps that wait: for a time to pass, or for a signal."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from flowneer_async.defining import check_option
from flowneer_async.errors import BadSignal, FlowError, SignalTimeout, StoreNeeded
from flowneer_async.events import Waiting
from flowneer_async.line import Line
from flowneer_async.payload import received
from flowneer_async.place import Place, Suspended, Trail
from flowneer_async.steps import Sleep, Wait
from flowneer_async.store import VersionStore
from flowneer_async.versions import Signal


async def sleep(line: Line, node: Sleep[Any], place: Place, path: str, trail: Trail) -> None:
    """Let time pass; raises Suspended until it has."""
    core = line.core
    if not core.memory.has(path, "until"):
        until = _moment(line, path, "until", node.until)
        assert until is not None
        if core.store is None:
            left = until - core.world.now()
            if left > 0:
                await core.world.sleep(left / 1000)
            return
        core.memory.put(path, "until", until)
        await line.note(place, f"{path}/@wait")
    until = cast(int, core.memory.get(path, "until"))
    if core.world.now() < until:
        raise Suspended((Waiting("sleep", path, until),))
    core.memory.forget(path)


async def wait_for(line: Line, node: Wait[Any], place: Place, path: str, trail: Trail) -> object:
    """Take a signal; raises Suspended until there is one."""
    core = line.core
    if core.store is None:
        raise StoreNeeded(path, core.run_id)
    if not core.memory.has(path, "until"):
        until = _moment(line, path, "timeout", node.timeout)
        core.memory.put(path, "until", until)
        core.memory.put(path, "limit", None if until is None else (until - core.world.now()) / 1000)
        await line.note(place, f"{path}/@wait")
    returned: object = None
    try:
        await _take(line, core.store, node, place, path)
    except FlowError:
        if node.fallback is None:
            raise
        returned = await line.ask(node.fallback, place, path, "@fallback")
    core.memory.forget(path)
    return returned


async def _take(line: Line, store: VersionStore, node: Wait[Any], place: Place, path: str) -> None:
    core, until = line.core, cast(int | None, line.core.memory.get(path, "until"))
    signals = await store.signals(core.run_id)
    used = f"used:{node.signal}"
    is_late = until is not None and core.world.now() >= until
    signal = _first(signals, node.signal, cast(int, core.memory.get("", used) or 0), until if is_late else None)
    if signal is None:
        if not is_late:
            raise Suspended((Waiting("signal", path, until, node.signal),))
        seconds = cast(float, core.memory.get(path, "limit"))
        late = SignalTimeout(path, core.run_id, node.signal, seconds)
        raise FlowError(path, core.run_id, late, 1) from late
    core.memory.put("", used, signal.number)
    try:
        value = received(core.codec, node.schema, signal)
    except BadSignal as bad:
        await line.note(place, f"{path}/@wait")  # running again takes the next one
        raise FlowError(path, core.run_id, bad, 1) from bad
    if node.into is not None:
        line.shape.write(line.state, node.into, value)


def _first(signals: Sequence[Signal], name: str, used: int, until: int | None) -> Signal | None:
    """The first signal of this name that was not used yet, and came in time."""
    for signal in signals:
        if signal.name == name and signal.number > used and (until is None or signal.sent <= until):
            return signal
    return None


def _moment(line: Line, path: str, name: str, option: Any) -> int | None:
    """The time, in Unix ms, that an option stands for."""
    try:
        value: Any = option(line.state) if callable(option) else option
        check_option(name, value, f"a {type(value).__qualname__}")
    except Exception as cause:
        raise FlowError(path, line.core.run_id, cause, 1) from cause
    if value is None:
        return None
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return line.core.world.now() + round(seconds * 1000)
