"""Child runs: a step that calls another flow, and waits for its end without taking a slot."""

from collections.abc import Awaitable, Callable
from hashlib import blake2b

from flowneer_async.context import Context
from flowneer_async.engine.job import Job
from flowneer_async.errors import ChildFailed, UnknownRun
from flowneer_async.flow import FlowBuilder
from flowneer_async.steps import S
from flowneer_async.store import VersionStore
from flowneer_async.versions import OPEN, Run, version_id

LOOK_AGAIN = 60_000
"""The ms after which a parent looks by itself, should nobody have been left to tell it that its child is over."""

_LONGEST = 100  # characters of the parent's id within that of its child


def child_id(ctx: Context, name: str) -> str:
    """The id of the run that this step of this run calls, by `name` where it calls several."""
    key = blake2b(f"{ctx.idempotency_key}\0{name}".encode(), digest_size=12).hexdigest()
    return f"{ctx.run_id[:_LONGEST]}.{key}"


async def called(
    store: VersionStore,
    flow: FlowBuilder[S],
    ctx: Context,
    run_id: str,
    job: Job | None,
    now: int,
    start: Callable[[Run], Awaitable[object]],
) -> S:
    """The state that child run `run_id` of `flow` has ended with; `start` is called where there is no such run yet.

    Until then the step, which `job` belongs to, is put down. Raises ChildFailed.
    """
    while True:
        run = await _read(store, run_id)
        if run is None:
            await start(await store.read(ctx.run_id))
        elif run.status == "completed":
            return (await flow.resolve(version_id(run_id, run.head))).state
        elif run.status not in OPEN:
            raise ChildFailed(run_id, run.status, run.error)
        else:
            if job is not None:
                job.control.latest = min(now + LOOK_AGAIN, job.control.latest or now + LOOK_AGAIN)
            await ctx.interrupt({"child": run_id})


async def _read(store: VersionStore, run_id: str) -> Run | None:
    try:
        return await store.read(run_id)
    except UnknownRun:
        return None
