"""The events of a run, as a stream that a client can leave and come back to: it misses none, and reads none twice."""

import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Header, Query
from fastapi.sse import ServerSentEvent
from starlette.responses import Response

from flowneer_async import EngineStopped, FlowneerError, Run
from flowneer_async.engine import Handle, RunEvent
from flowneer_async.fastapi.asking import AskedRun
from flowneer_async.fastapi.problems import Answered
from flowneer_async.fastapi.request import Asked
from flowneer_async.fastapi.writing import written
from flowneer_async.shield import complete

_log = logging.getLogger(__name__)

_OVER = ("completed", "failed", "cancelled")
_SAID: Mapping[str, tuple[str, ...]] = {
    "step": ("step", "version", "changed"),
    "waiting": ("waits",),
    "completed": (),
    "failed": ("error",),
    "cancelled": (),
    "chunk": ("step", "value"),
}
_ID = r"^([0-9]{1,18}(\.(waiting|completed|failed|cancelled))?)?$"


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """Whoever reads the events of a run, those after the one that they saw last."""

    handle: Handle[Any]
    after: str | None
    live: bool
    left: Callable[[], Awaitable[object]]
    """To be called where they leave before the end."""


async def reader(
    request: Asked,
    run: AskedRun,
    after: Annotated[str, Query(pattern=_ID, description="The id of the event before.")] = "",
    live: Annotated[bool, Query(description="Also what steps emit, which is not stored: event chunk, no id.")] = False,
    cancel_on_disconnect: Annotated[bool, Query(description="Who leaves before the end cancels the run.")] = False,
    last_event_id: Annotated[str, Header(pattern=_ID)] = "",
) -> Reader:
    """Who reads, and from where on; raises Answered where they have seen the end, EngineStopped.

    A browser that connects again sends the id of the last event, and the same query as at first.
    """
    seen = last_event_id or after or None
    if seen is not None and _has_ended(run, seen):
        raise Answered(Response(status_code=204))  # which tells a browser not to connect again
    if request.engine.is_stopping:
        raise EngineStopped("tell what happens in a run")
    handle = await request.engine.handle(run.run_id)

    async def left() -> None:
        if cancel_on_disconnect and not request.engine.is_stopping:
            await handle.cancel()

    return Reader(handle, seen, live, left)


AskedReader: TypeAlias = Annotated[Reader, Depends(reader)]


async def stream_events(reader: AskedReader) -> AsyncIterator[ServerSentEvent]:
    """The events of a run, from the first one or that after `Last-Event-ID`, to its end.

    204 means that there will be no more.
    """
    try:
        async with aclosing(reader.handle.events(reader.after, live=reader.live)) as events:
            async for event in events:
                yield told(event)
    except FlowneerError as error:  # the client connects again, and is told then
        _log.warning("events of run %s end early: %s", reader.handle.run_id, type(error).__name__)
    except BaseException:  # the client has left, or its server lets nobody stay
        await complete(_leave(reader))
        raise


async def _leave(reader: Reader) -> None:
    await reader.left()


def told(event: RunEvent) -> ServerSentEvent:
    """An event as it is sent: its kind, its id, and what events of this kind say, as JSON."""
    said = {name: getattr(event, name) for name in _SAID[event.kind]}
    return ServerSentEvent(event=event.kind, id=event.id or None, raw_data=written(said).decode())


def _has_ended(run: Run, seen: str) -> bool:
    """Was this event the last of a run that is over?"""
    seq, _, kind = seen.partition(".")
    return run.status in _OVER and (int(seq) > run.head or (int(seq) == run.head and kind == run.status))
