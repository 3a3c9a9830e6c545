"""Waiting for what becomes of a run, in whichever process it goes on."""

import anyio

from flowneer_async.engine.racing import first_of
from flowneer_async.engine.workshop import Workshop
from flowneer_async.errors import EngineStopped, NotCompleted
from flowneer_async.flow import FlowBuilder
from flowneer_async.runner import Result
from flowneer_async.steps import S
from flowneer_async.store import VersionStore
from flowneer_async.versions import OPEN, Run


async def result_of(
    flow: FlowBuilder[S], store: VersionStore, run_id: str, workshop: Workshop, stopping: anyio.Event
) -> Result[S]:
    """The result of a run, once it is over; raises NotCompleted, EngineStopped, UnknownRun."""
    with workshop.awaited.waiting(run_id):
        run = await _over(store, run_id, workshop, stopping)
        if run.status != "completed":
            raise NotCompleted(run.run_id, run.status, run.error) from workshop.awaited.error(run_id)
    return await flow.run(run_id=run_id)


async def _over(store: VersionStore, run_id: str, workshop: Workshop, stopping: anyio.Event) -> Run:
    while True:
        job = workshop.jobs.get(run_id)
        if job is not None:
            await job.over.wait()
        run = await store.read(run_id)
        if run.status not in OPEN:
            return run
        async with store.changes(run_id) as changed:
            run = await store.read(run_id)  # it may have changed before it was watched
            if run.status not in OPEN:
                return run
            if stopping.is_set():
                raise EngineStopped(f"wait for run {run_id!r}")
            if run_id not in workshop.jobs:
                await first_of(changed, stopping.wait)
