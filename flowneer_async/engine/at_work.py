"""An engine at work: what it consists of from when it is entered until it is left."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from flowneer_async.engine.accepting import Accepting, Wish
from flowneer_async.engine.admission import Admission
from flowneer_async.engine.dispatching import Dispatcher
from flowneer_async.engine.job import Job
from flowneer_async.engine.racing import first_of
from flowneer_async.engine.scheduling import Schedule, Scheduler
from flowneer_async.engine.settings import Settings
from flowneer_async.engine.settling import Settling
from flowneer_async.engine.tags import SCHEDULE, TIME
from flowneer_async.engine.wording import shown
from flowneer_async.engine.workshop import Workshop
from flowneer_async.errors import StoreError
from flowneer_async.runner import Execution
from flowneer_async.shield import complete
from flowneer_async.store import RunFilter, VersionStore

T = TypeVar("T")

_LOG = logging.getLogger("flowneer_async.engine")


class AtWork:
    """The parts, and the tasks that keep them going."""

    def __init__(self, group: TaskGroup, settings: Settings, schedules: Sequence[Schedule]) -> None:
        store, world, telemetry = settings.store, settings.world, settings.telemetry
        self._group, self._settings = group, settings
        self._admission = Admission(store, frozenset(settings.flows), settings.limits, settings.concurrency)
        self._settling = Settling(store, telemetry, world)
        self.workshop = Workshop(group, self._admission, self._settling, telemetry, world, self._freed)
        self.dispatcher = Dispatcher(
            group,
            store,
            self._admission,
            self.workshop,
            self._settling,
            telemetry,
            world,
            self._resume,
            settings.max_recoveries,
            settings.poll,
        )
        self.accepting = Accepting(
            store, self._admission, self.workshop, self.dispatcher, self._settling, telemetry, world, settings.deps
        )
        self._scheduler = Scheduler(schedules, last=self._last, start=self._start, began=world.now())
        self.stopping = anyio.Event()
        """No new step begins any more."""

    def halt(self) -> None:
        """Let no new run and no new step begin."""
        self.stopping.set()
        self.dispatcher.stop()
        self.workshop.halt()

    async def look_for_work(self) -> None:
        """Take what is due, and start what is scheduled, until no new step is to begin."""
        await first_of(self.stopping.wait, self.dispatcher.work, self._keep_time)

    async def _keep_time(self) -> None:
        """See every now and then what other processes have done, and which times have come."""
        world, poll = self._settings.world, self._settings.poll
        while True:
            await _tried("the store could not be asked what others have done", self.dispatcher.look_around())
            following = await _tried("what is scheduled could not be started", self._scheduler.look(world.now()))
            wait = poll if following is None else min(poll, max(0.0, (following - world.now()) / 1000))
            await world.sleep(wait)

    def _freed(self, job: Job) -> None:
        self.dispatcher.freed(job)

    def _resume(self, flow: str, job: Job) -> Execution[Any]:
        return self.accepting.resume(self._settings.flows[flow], job)

    async def _last(self, schedule: Schedule) -> datetime | None:
        page = await self._settings.store.find(RunFilter(tags={SCHEDULE: schedule.name}), 1)
        return datetime.fromisoformat(page.runs[0].tags[TIME]) if page.runs else None

    async def _start(self, schedule: Schedule, time: datetime) -> None:
        tags = {**schedule.tags, SCHEDULE: schedule.name, TIME: time.isoformat()}
        try:
            wish = Wish(schedule.state_at(time), schedule.run_id(time), tags)
            await complete(self.accepting.accept(self._settings.flows[schedule.flow], wish))
        except StoreError:
            raise  # it passes by, and then this time is started
        except Exception as error:  # the state is the user's: later times are not to wait for it
            _LOG.error("schedule %s was not started at %s: %s", schedule.name, tags[TIME], type(error).__qualname__)


async def _tried(otherwise: str, work: Awaitable[T]) -> T | None:
    """What it gives; where it fails, that is logged, for the engine works on."""
    try:
        return await work
    except Exception as error:
        _LOG.warning("%s: %s", otherwise, shown(error))
        return None


@asynccontextmanager
async def at_work(settings: Settings, schedules: Sequence[Schedule]) -> AsyncGenerator[AtWork, None]:
    """Work in the background of the block; when it is left, put down what goes on."""
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        work = AtWork(group, settings, schedules)
        with settings.telemetry.watch(_Measures(settings.store, work.workshop)):
            # First of all, so that those who start runs in a burst need not suppose that others wait for a slot.
            await _tried("the store could not be asked which runs are due", work.dispatcher.look())
            group.start_soon(work.look_for_work)
            try:
                yield work
            except Exception as error:
                failure = error  # raised as it is, in no group
            finally:
                work.halt()  # also where it all was cancelled: nobody waits in vain for what this one would do
            await work.workshop.put_down(settings.grace)
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Measures:
    """What an engine can be asked at any time."""

    def __init__(self, store: VersionStore, workshop: Workshop) -> None:
        self._store, self._workshop = store, workshop

    def running(self) -> int:
        """How many runs this process works on."""
        return len(self._workshop.jobs)

    def lag(self) -> float:
        """For how many seconds the oldest write has waited, where the store knows."""
        lag: object = getattr(self._store, "lag", 0.0)
        return lag if isinstance(lag, float) else 0.0
