"""Runs that can be read: one that is damaged is in no other's way."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from flowneer_async.errors import CorruptRun, Forged
from flowneer_async.versions import Run

T = TypeVar("T")


async def readable(ask: Callable[[int], Awaitable[Sequence[T]]], read: Callable[[T], Run], limit: int) -> Sequence[Run]:
    """The first `limit` runs of those that `ask` gives, which is told how many; `read` finds out which are damaged."""
    asked = limit
    while True:
        given = await ask(asked)
        runs = [run for each in given if (run := _unless_damaged(read, each)) is not None]
        if len(runs) >= limit or len(given) < asked:
            return runs[:limit]
        asked *= 2


def _unless_damaged(read: Callable[[T], Run], given: T) -> Run | None:
    try:
        return read(given)
    except (CorruptRun, Forged):
        return None
