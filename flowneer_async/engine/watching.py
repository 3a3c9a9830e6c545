"""Waiting for what becomes of a run, in whichever process it goes on."""

from collections.abc import Mapping

import anyio

from flowneer_async.engine.job import Job
from flowneer_async.engine.racing import first_of
from flowneer_async.errors import EngineStopped, NotCompleted
from flowneer_async.flow import FlowBuilder
from flowneer_async.runner import Result
from flowneer_async.steps import S
from flowneer_async.store import VersionStore
from flowneer_async.versions import OPEN, Run


async def over(
    store: VersionStore, run_id: str, jobs: Mapping[str, Job], stopping: anyio.Event
) -> tuple[Run, Job | None]:
    """A run that is over, and the job that it was, if that was in this process; raises EngineStopped, UnknownRun."""
    while True:
        job = jobs.get(run_id)
        if job is not None:
            await job.over.wait()
        run = await store.read(run_id)
        if run.status not in OPEN:
            return run, job
        async with store.changes(run_id) as changed:
            run = await store.read(run_id)  # it may have changed before it was watched
            if run.status not in OPEN:
                return run, None
            if stopping.is_set():
                raise EngineStopped(f"wait for run {run_id!r}")
            if run_id not in jobs:
                await first_of(changed, stopping.wait)


async def result_of(flow: FlowBuilder[S], run: Run, job: Job | None) -> Result[S]:
    """The result of a run that is over; raises NotCompleted."""
    if run.status != "completed":
        raise NotCompleted(run.run_id, run.status, run.error) from (None if job is None else job.error)
    return await flow.run(run_id=run.run_id)
