"""What happens in a run, as its store tells it: by whichever process, without a gap, from any event on."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import anyio

from flowneer_async.cursor import decode
from flowneer_async.differ import Patch
from flowneer_async.engine.listening import Listener
from flowneer_async.engine.racing import first_of
from flowneer_async.errors import BadOption, UnknownVersion
from flowneer_async.events import Chunk, Waiting
from flowneer_async.flow import FlowBuilder
from flowneer_async.memory import SIGN
from flowneer_async.paging import pages
from flowneer_async.store import VersionStore
from flowneer_async.versions import OPEN, Run, Version, resolved, version_id

Kind: TypeAlias = Literal["step", "waiting", "completed", "failed", "cancelled", "chunk"]


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that has happened in a run; whoever gives its `id` as `after` is told what came after it.

    "step": the step at path `step` is done, stored as `version`, in which the keys `changed` are new. "waiting": the
    run has been put down, and `waits`. "completed", "failed" with its `error`, "cancelled": it is over. "chunk": `step`
    has emitted `value`, which is not stored, so that this event has no id.
    """

    id: str
    kind: Kind
    step: str | None = None
    version: str | None = None
    changed: tuple[str, ...] = ()
    waits: tuple[Waiting, ...] = ()
    error: str | None = None
    value: object = field(default=None, repr=False)


def position_of(after: str | None) -> tuple[int, str]:
    """The number of the last version that somebody has seen, and the id of the last event; raises BadOption."""
    if after is None:
        return -1, ""
    number, point, kind = after.partition(".")
    if not (number.isascii() and number.isdecimal() and len(number) < 19) or (point and kind not in _ENDS):
        raise BadOption("after", after, "it is the id of an event of this run")
    return int(number), after


_ENDS = ("waiting", "completed", "failed", "cancelled")


async def run_events(
    flow: FlowBuilder[Any],
    store: VersionStore,
    run_id: str,
    after: str | None,
    stopping: anyio.Event,
    listener: Listener | None,
) -> AsyncGenerator[RunEvent, None]:
    """The events of a run after one of them, until it is over, or this process no longer wants to tell them."""
    seq, told = position_of(after)
    async with store.changes(run_id) as changed:
        while True:
            emitted = [] if listener is None else listener.take()
            run = await store.read(run_id)
            if listener is not None and run.status not in OPEN:
                emitted += listener.take()
            async with aclosing(pages(store, run_id, seq + 1, run.head)) as found:
                async for page in found:
                    for version in filter(_is_step, page):
                        for chunk in _taken(emitted, version.path):
                            yield _chunk(chunk)
                        yield await _step(store, version)
            for chunk in emitted:
                yield _chunk(chunk)
            seq = max(seq, run.head)
            end = await _standing(flow, run, f"{seq}.{run.status}", told)
            if end is not None:
                told = end.id
                yield end
            if run.status not in OPEN:
                return
            await first_of(changed, stopping.wait, *([] if listener is None else [listener.heard]))
            if stopping.is_set():
                return


def _is_step(version: Version) -> bool:
    frames = decode(version.path)
    return bool(version.seq and frames) and not frames[-1].is_own  # the root of a fork has the path of its origin


def _taken(emitted: list[Chunk], step: str) -> list[Chunk]:
    """What this step has emitted, taken out of the rest: it belongs before the end of the step, and after what came."""
    taken = [chunk for chunk in emitted if chunk.step == step]
    emitted[:] = [chunk for chunk in emitted if chunk.step != step]
    return taken


def _chunk(chunk: Chunk) -> RunEvent:
    return RunEvent("", "chunk", chunk.step, value=chunk.value)


async def _step(store: VersionStore, version: Version) -> RunEvent:
    changed = await _changed(store, version)
    return RunEvent(str(version.seq), "step", version.path, version.id, changed)


async def _changed(store: VersionStore, version: Version) -> tuple[str, ...]:
    """The keys of the state that are new in a version."""
    if version.is_marker:
        return ()
    if version.is_keyframe and version.seq:
        return await _differing(store, version)
    sets, removed, splices = Patch.decode(version.body)
    return _shown([*sets, *removed, *splices])


async def _differing(store: VersionStore, version: Version) -> tuple[str, ...]:
    """A keyframe holds all keys: those that differ from what they were before, unless that was pruned."""
    previous = version_id(version.run_id, version.seq - 1)
    before: dict[str, bytes] = {}
    with suppress(UnknownVersion):
        before = resolved(previous, await store.chain(previous))
    after = resolved(version.id, [version])
    return _shown([key for key in {**before, **after} if before.get(key) != after.get(key)])


def _shown(keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(key for key in keys if not key.startswith(SIGN))


async def _standing(flow: FlowBuilder[Any], run: Run, id: str, told: str) -> RunEvent | None:
    """How a run stands, if there is something to say of it that was not told already."""
    if id == told or run.status == "running":
        return None
    if run.status == "waiting":
        # One that has not begun, or was put down between two steps, waits for nothing but its turn.
        waits = () if run.begun is None else await flow.waiting_for(run.run_id)
        return RunEvent(id, "waiting", waits=waits) if waits else None
    return RunEvent(id, run.status, error=run.error)
