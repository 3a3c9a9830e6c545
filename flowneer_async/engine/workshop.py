"""The runs that this process works on, each in a task of its own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from flowneer_async.control import End
from flowneer_async.engine.admission import Admission
from flowneer_async.engine.awaited import Awaited
from flowneer_async.engine.job import Job
from flowneer_async.engine.listening import Listeners
from flowneer_async.engine.racing import first_of
from flowneer_async.engine.settling import Settling
from flowneer_async.engine.tags import PARENT, deadline_of
from flowneer_async.engine.telemetry import Telemetry
from flowneer_async.errors import DeadlineExceeded
from flowneer_async.policy import World
from flowneer_async.runner import Execution
from flowneer_async.versions import Run


class Workshop:
    """Has a slot for each run that this process works on; `freed` is told when there is one again."""

    def __init__(
        self,
        group: TaskGroup,
        admission: Admission,
        settling: Settling,
        telemetry: Telemetry,
        world: World,
        freed: Callable[[Job], None],
    ) -> None:
        self._group, self._admission, self._settling = group, admission, settling
        self._telemetry, self._world, self._freed = telemetry, world, freed
        self.jobs: dict[str, Job] = {}
        """By the ids of their runs."""
        self.listeners = Listeners()
        self.awaited = Awaited()
        self._halted: End | None = None
        self._empty = anyio.Event()

    def admit(self, run_id: str, flow: str, key: str) -> Job:
        """Give a run a slot, which has to be left again."""
        job = self.jobs[run_id] = Job(run_id, flow, key, self.listeners)
        job.control.halted = self._halted
        self._admission.take()
        return job

    def leave(self, job: Job) -> None:
        """This process does not, or no longer, work on a run."""
        del self.jobs[job.run_id]
        self._admission.give_back()
        self.awaited.put_down(job.run_id, job.error)
        job.over.set()
        if not self.jobs:
            self._empty.set()
        self._freed(job)

    def begin(self, job: Job, execution: Execution[Any]) -> None:
        """Work on a run that was taken, in the background."""
        self._group.start_soon(self.work, job, execution, name=f"run {job.run_id}")

    async def work(self, job: Job, execution: Execution[Any]) -> None:
        """Work on a run that was taken until it is put down, and leave its slot."""
        try:
            with self._telemetry.execution(execution.run) as job.tell:
                await self._to_its_end(job, execution)
        finally:
            self._admission.ended(job.flow, job.key)
            self.leave(job)

    def halt(self) -> None:
        """Let no new step begin: the runs are put down before their next ones, for somebody to go on with at once."""
        self._halted = End("waiting", wake=self._world.now())
        for job in self.jobs.values():
            job.halt(self._halted)

    async def put_down(self, grace: float) -> None:
        """Let steps that have begun go on for `grace` seconds, cancel what is left, and wait until all is stored."""
        end = End("waiting", wake=self._world.now())
        await first_of(self._left, partial(self._world.sleep, grace))
        for job in list(self.jobs.values()):
            job.cut(end)
        await self._left()

    async def _left(self) -> None:
        while self.jobs:
            self._empty = anyio.Event()
            await self._empty.wait()

    async def _to_its_end(self, job: Job, execution: Execution[Any]) -> None:
        run, deadline = execution.run, deadline_of(execution.run.tags)
        job.has_caller = PARENT in run.tags
        if job.scope.cancel_called:  # before its first step
            await execution.abandon(job.control.when_cut)
        elif deadline is None:
            await self._until_it_stops(job, execution)
        elif deadline <= self._world.now():
            await execution.abandon(late(run, deadline))
        else:
            job.control.latest = deadline
            timer = anyio.CancelScope()
            self._group.start_soon(self._expire, job, timer, late(run, deadline), deadline)
            await self._until_it_stops(job, execution)
            timer.cancel()
        if job.control.end is not None:
            await self._settling.told(run, job.control.end)

    async def _until_it_stops(self, job: Job, execution: Execution[Any]) -> None:
        try:
            with job.scope:
                await execution.work()
        except Exception as error:
            job.error = error

    async def _expire(self, job: Job, timer: anyio.CancelScope, end: End, deadline: int) -> None:
        with timer:
            await self._world.sleep((deadline - self._world.now()) / 1000)
            job.cut(end)


def late(run: Run, deadline: int) -> End:
    """How a run ends that was not over at its deadline, in Unix ms."""
    return End("failed", str(DeadlineExceeded(run.run_id, deadline)))
