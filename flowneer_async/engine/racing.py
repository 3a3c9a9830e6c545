"""Waiting for whichever comes first."""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

Wait = Callable[[], Awaitable[object]]


async def first_of(*waits: Wait) -> None:
    """Wait until one of them has come, and cancel the others; raises what the first one to fail raised."""
    failures: list[Exception] = []
    async with anyio.create_task_group() as group:
        for wait in waits:
            group.start_soon(partial(_run, wait, group.cancel_scope, failures))
    if failures:
        raise failures[0]


async def _run(wait: Wait, others: anyio.CancelScope, failures: list[Exception]) -> None:
    try:
        await wait()
    except Exception as error:
        failures.append(error)
    others.cancel()
