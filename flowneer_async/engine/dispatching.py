"""Finding the runs that somebody should go on with, and taking them."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import anyio
from anyio.abc import TaskGroup

from flowneer_async.control import CANCELLED, End
from flowneer_async.engine.admission import Admission, Look
from flowneer_async.engine.job import Job
from flowneer_async.engine.settling import Settling
from flowneer_async.engine.tags import deadline_of
from flowneer_async.engine.telemetry import Telemetry
from flowneer_async.engine.wording import shown
from flowneer_async.engine.workshop import Workshop, late
from flowneer_async.errors import Parked, RunBusy, UnknownRun
from flowneer_async.keeping import every_run
from flowneer_async.policy import Backoff, World
from flowneer_async.runner import Execution
from flowneer_async.store import RunFilter, VersionStore
from flowneer_async.versions import RUNNING, Run

Resume: TypeAlias = Callable[[str, Job], Execution[Any]]
"""What would go on with the run of a flow of this name."""

_LOG = logging.getLogger("flowneer_async.engine")
_PAGE = 100
_SPREAD = 500  # ms: two that gave back the last slot do not come back together
_AGAIN = Backoff(1.0, 2.0, 300.0, 0.5)


class Dispatcher:
    """Takes runs that are due, as long as there are slots; looks when it is poked, and every `poll` seconds."""

    def __init__(
        self,
        group: TaskGroup,
        store: VersionStore,
        admission: Admission,
        workshop: Workshop,
        settling: Settling,
        telemetry: Telemetry,
        world: World,
        resume: Resume,
        max_recoveries: int,
        poll: float,
    ) -> None:
        self._group, self._store, self._admission, self._workshop = group, store, admission, workshop
        self._settling, self._telemetry, self._world, self._resume = settling, telemetry, world, resume
        self._max_recoveries, self._poll = max_recoveries, poll
        self._poked = anyio.Event()
        self._later: dict[str, tuple[int, int]] = {}
        """Runs that could not be gone on with: how often in a row, and when to try again, in Unix ms."""
        self._taking: Counter[str] = Counter()
        """How many runs of each flow are being taken."""
        self._is_stopped = False
        self.has_backlog = True
        """Are there, for all that is known, runs that wait for a slot?"""

    def poke(self) -> None:
        """Look at once."""
        self._poked.set()

    def freed(self, job: Job) -> None:
        """A slot is free: look who is next, unless nobody waits for it."""
        if self.has_backlog or not job.is_over or job.has_caller or self._admission.is_limited(job.flow):
            self.poke()
        if job.error is not None and job.is_left:
            self._put_off(job.run_id, job.error)
            return
        self._later.pop(job.run_id, None)
        end = job.control.end
        if end is None or end.wake is None:
            return
        if end.wake == job.woken:
            # By our clock its time has not come, though by that of the store it has: do not ask it over and over.
            self._later[job.run_id] = 0, self._world.now() + round(self._poll * 1000)
        else:
            self.expect(end.wake)

    def expect(self, wake: int) -> None:
        """A run is to be woken at this time, in Unix ms: look then, unless there is a look before that anyway."""
        seconds = (wake - self._world.now()) / 1000
        if self._is_stopped:
            return
        if seconds <= 0:
            self.has_backlog = True
            self.poke()
        elif seconds <= self._poll:
            self._group.start_soon(self._poke_in, seconds)

    def stop(self) -> None:
        """Look no more: whatever is accepted from now on waits for somebody else."""
        self._is_stopped = self.has_backlog = True

    async def _poke_in(self, seconds: float) -> None:
        await self._world.sleep(seconds)
        self.poke()

    async def work(self) -> None:
        """Look whenever it is poked, until cancelled."""
        while True:
            self._poked = anyio.Event()
            try:
                await self.look()
            except Exception as error:  # whatever a store raises, the engine works on
                _LOG.warning("the store could not be asked which runs are due: %s", shown(error))
            await self._poked.wait()

    async def look_around(self) -> None:
        """See what other processes have done, and want done here."""
        self._admission.look_again()
        self.poke()
        async for run in every_run(self._store, RunFilter(RUNNING, cancelling=True)):
            job = self._workshop.jobs.get(run.run_id)
            if job is not None:
                job.cut()

    async def look(self) -> None:
        """Take runs that are due, as many as there are slots for."""
        now = self._world.now()
        self._later = {run_id: each for run_id, each in self._later.items() if each[1] > now - 60_000}
        free = self._admission.free
        if free <= 0:
            self.has_backlog = True
            return
        limit = min(free, _PAGE) + len(self._later) + self._taking.total()
        due = await self._store.due(self._admission.wanted(), limit)
        if self._is_stopped:
            return
        look = Look(flow for flow, number in self._taking.items() if number)
        taken = [run for run in due if self._admit(run, look, now)]
        # Where it was poked meanwhile, one may have come to wait after the store was asked.
        self.has_backlog = len(due) >= limit or self._admission.free <= 0 or self._poked.is_set()
        if self.has_backlog and taken:
            self.poke()

    def _admit(self, run: Run, look: Look, now: int) -> bool:
        """Begin to take a run, where there is a slot for it."""
        _, later = self._later.get(run.run_id, (0, 0))
        if later > now or run.run_id in self._workshop.jobs or self._admission.free <= 0:
            return False
        if run.flow in look.taking and self._admission.is_limited(run.flow):
            return False
        job = self._workshop.admit(run.run_id, run.flow, run.key)
        job.woken = run.wake
        self._taking[run.flow] += 1
        self._group.start_soon(self._take, run, look, job, name=f"run {run.run_id}")
        return True

    async def _take(self, run: Run, look: Look, job: Job) -> None:
        """Take a run and work on it, or leave its slot to another one."""
        execution: Execution[Any] | None = None
        try:
            async with self._admission.turn(run.flow):
                execution = await self._taken(run, look, job)
        except (RunBusy, UnknownRun):  # somebody else was quicker
            pass
        except Exception as error:  # also of what the user gave to migrate it, or to restore its state
            job.error = error
        finally:
            self._taking[run.flow] -= 1
            if not self._taking[run.flow] and self._admission.is_limited(run.flow):
                self.poke()  # those that came meanwhile were left for now
            if execution is None:
                self._workshop.leave(job)
        if execution is not None:
            await self._workshop.work(job, execution)

    async def _taken(self, run: Run, look: Look, job: Job) -> Execution[Any] | None:
        now = self._world.now()
        end = _instead(run, now)
        if end is not None:
            await self._settling.finish(run, end)
            return None
        if not await self._admission.may_begin(run, look, now):
            return None
        execution = self._resume(run.flow, job)
        await execution.open()
        found = execution.run
        if found.epoch != run.epoch:  # somebody was quicker, and has left it as it is to stay
            if not execution.is_over:
                await execution.abandon(End(found.status, found.error, found.wake))
            return None
        try:
            end = await self._refused(run, now)
        except BaseException:
            await execution.abandon(End("running"))
            raise
        if end is None:
            return execution
        await execution.abandon(end)
        await self._settling.told(run, end)
        return None

    async def _refused(self, run: Run, now: int) -> End | None:
        """How a run that was just taken is to be given back; None where it may go on."""
        if not await self._admission.may_stay(run):
            return End("waiting", wake=now + round(_SPREAD * self._world.draw()))
        if run.status != "running":
            return None
        found = await self._store.read(run.run_id)  # its process has died
        if found.recoveries > self._max_recoveries:
            self._telemetry.parked(found)
            return End("failed", str(Parked(run.run_id, found.recoveries)))
        self._telemetry.recovered(found)
        return None

    def _put_off(self, run_id: str, error: Exception) -> None:
        times = self._later.get(run_id, (0, 0))[0] + 1
        wait = _AGAIN.wait(times, self._world.draw)
        self._later[run_id] = times, self._world.now() + round(wait * 1000)
        _LOG.warning("run %s cannot be gone on with, and is tried again in %.0f s: %s", run_id, wait, shown(error))


def _instead(run: Run, now: int) -> End | None:
    """How a run ends that is not to go on, for somebody wants that or its time is over; None where it is."""
    deadline = deadline_of(run.tags)
    if run.cancelling:
        return CANCELLED
    return late(run, deadline) if deadline is not None and deadline <= now else None
