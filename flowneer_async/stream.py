"""Watching a run while it goes on."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from flowneer_async.errors import BadOption, NotFinished
from flowneer_async.events import Event
from flowneer_async.runner import Result
from flowneer_async.shield import on_asyncio

S = TypeVar("S")

Start = Callable[[Callable[[Event], Awaitable[None]]], Coroutine[Any, Any, Result[S]]]

_DETACHED: set["asyncio.Task[None]"] = set()


class Events(Generic[S]):
    """The events of one run, in their order: `async for event in events`."""

    def __init__(self, received: MemoryObjectReceiveStream[Event]) -> None:
        self._received = received
        self._result: Result[S] | None = None
        self._error: BaseException | None = None

    def __aiter__(self) -> "Events[S]":
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._received.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            pass
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    @property
    def result(self) -> Result[S]:
        """How the run ended, once all events were read; raises the error that it failed with."""
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise NotFinished
        return self._result

    def raise_if_ended(self) -> None:
        """What ends a process is raised, whether or not somebody reads on."""
        if self._error is not None and not isinstance(self._error, Exception):
            raise self._error

    async def follow(self, start: Start[S], send: MemoryObjectSendStream[Event]) -> None:
        """Run, and send what happens."""

        async def watch(event: Event) -> None:
            try:
                await send.send(event)
            except anyio.BrokenResourceError:  # nobody reads any more
                await anyio.lowlevel.checkpoint()

        try:
            self._result = await start(watch)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            self._error = error
        finally:
            send.close()


@asynccontextmanager
async def streamed(start: Start[S], buffer: int, detach: bool) -> AsyncGenerator[Events[S], None]:
    """The events of a run that goes on as long as the block, or, detached, longer."""
    if detach and not on_asyncio():
        raise BadOption("detach", detach, "only asyncio lets a task outlive its block")
    send, receive = anyio.create_memory_object_stream[Event](buffer)
    events: Events[S] = Events(receive)
    with receive:
        if detach:
            task = asyncio.create_task(events.follow(start, send))
            _DETACHED.add(task)
            task.add_done_callback(_DETACHED.discard)
            yield events
            return
        failure: BaseException | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(events.follow, start, send)
                try:
                    yield events
                except BaseException as error:
                    failure = error  # raised as it is, in no group
                group.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            if failure is None:
                raise
        if failure is not None:
            raise failure
        events.raise_if_ended()
