"""Work that a cancellation may not interrupt."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def complete(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end whatever cancels us meanwhile, and re-raise that cancellation afterwards.

    Neither half is enough alone: an anyio shield stops cancel scopes but not `task.cancel()`, and `asyncio.shield`
    lets the caller go on before the work is done.
    """
    if on_asyncio():
        return await _complete_task(asyncio.ensure_future(work))
    return await _shielded(work)


def on_asyncio() -> bool:
    """Is it asyncio that runs us?"""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _shielded(work: Coroutine[Any, Any, T]) -> T:
    """Under trio, scopes are all there is."""
    with anyio.CancelScope(shield=True):
        return await work
    raise AssertionError("a shield lets nothing through")


async def _complete_task(task: "asyncio.Task[T]") -> T:
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as cancellation:
        with anyio.CancelScope(shield=True):
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
        raise cancellation from None if task.cancelled() else task.exception()
