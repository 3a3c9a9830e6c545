"""Accepting runs: what is stored when a start returns, and what begins at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import NoneType
from typing import Any

from flowneer_async.answers import NO_ANSWER
from flowneer_async.control import End
from flowneer_async.engine.admission import Admission
from flowneer_async.engine.dispatching import Dispatcher
from flowneer_async.engine.job import Job
from flowneer_async.engine.settling import Settling
from flowneer_async.engine.tags import DEADLINE, DEBOUNCE, check_text
from flowneer_async.engine.telemetry import Telemetry
from flowneer_async.engine.workshop import Workshop
from flowneer_async.errors import BadOption, BadState, ForeignRun
from flowneer_async.flow import FlowBuilder
from flowneer_async.keeping import NO_TAGS
from flowneer_async.opening import Order
from flowneer_async.policy import World
from flowneer_async.runner import Execution
from flowneer_async.store import RunFilter, VersionStore
from flowneer_async.versions import Run, check_run_id

_HIGHEST = 2**31
"""Of priorities: what every store can keep, and more than anybody needs."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A run that somebody wants: `wake` and `deadline` are Unix time in ms, `key` is as it is stored.

    Raises BadName, BadOption.
    """

    state: object = field(default=None, repr=False)
    run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=lambda: NO_TAGS)
    key: str = ""
    priority: int = 0
    wake: int | None = None
    deadline: int | None = None

    def __post_init__(self) -> None:
        if self.run_id is not None:
            check_run_id(self.run_id)
        if type(self.priority) is not int or not -_HIGHEST <= self.priority < _HIGHEST:
            raise BadOption("priority", self.priority, f"it is a whole number from {-_HIGHEST} to {_HIGHEST - 1}")


class Accepting:
    """Makes runs: stored when that is acknowledged, and begun at once where there is a slot."""

    def __init__(
        self,
        store: VersionStore,
        admission: Admission,
        workshop: Workshop,
        dispatcher: Dispatcher,
        settling: Settling,
        telemetry: Telemetry,
        world: World,
        deps: object,
    ) -> None:
        self._store, self._admission, self._workshop, self._dispatcher = store, admission, workshop, dispatcher
        self._settling, self._telemetry, self._world, self._deps = settling, telemetry, world, deps

    async def accept(self, flow: FlowBuilder[Any], wish: Wish) -> str:
        """Make a run, unless its id is taken; gives the id. Raises ForeignRun where another flow has it."""
        run_id = self._world.new_run_id() if wish.run_id is None else wish.run_id
        begins = wish.wake is None and self._has_slot(flow, run_id)
        made = await (self._begin if begins else self._put)(flow, run_id, wish)
        if not made:
            run = await self._store.read(run_id)
            if run.flow != flow.name:
                raise ForeignRun(run_id, run.flow, flow.name)
        return run_id

    async def debounce(self, flow: FlowBuilder[Any], wish: Wish, key: str) -> str:
        """Make a run, and take back the one that was to begin later under the same key, if it has not begun."""
        check_text("debounce", key)
        last: Run | None = None
        run_id, made = "", False
        while not made:
            page = await self._store.find(RunFilter(flow=flow.name, tags={DEBOUNCE: key}), 1)
            last = page.runs[0] if page.runs else None
            run_id = _following(flow.name, key, last)
            made = await self._put(flow, run_id, replace(wish, tags={**wish.tags, DEBOUNCE: key}))
        if last is not None and last.status == "waiting" and last.begun is None:
            await self._settling.finish(last, End("cancelled", f"run {run_id!r} was started in its place"))
        return run_id

    async def take(self, flow: FlowBuilder[Any], run_id: str, answer: object, at: str | None) -> None:
        """Go on with a run, at once where there is a slot, with an answer that is stored. Raises as `resume` does."""
        run = await self._store.read(run_id)
        begins = self._has_slot(flow, run_id)
        job = self._workshop.admit(run_id, flow.name, run.key) if begins else Job(run_id, flow.name, run.key)
        try:
            execution = self._opening(flow, job, None, answer, at)
            await execution.open()
            if not begins and not execution.is_over:
                await execution.abandon(End("waiting", wake=self._world.now()))
        except BaseException:
            if begins:
                self._workshop.leave(job)
            raise
        if begins:
            await self._work(job, execution)
        self._dispatcher.poke()

    def resume(self, flow: FlowBuilder[Any], job: Job) -> Execution[Any]:
        """What would go on with a run as it is."""
        return self._opening(flow, job)

    async def _begin(self, flow: FlowBuilder[Any], run_id: str, wish: Wish) -> bool:
        """Make a run that begins at once; False where its id is taken."""
        job = self._workshop.admit(run_id, flow.name, wish.key)
        made = False
        try:
            execution = self._making(flow, job, wish)
            made = await execution.begin(Order(wish.priority, wish.key))
        finally:
            if not made:
                self._workshop.leave(job)
        if made:
            self._telemetry.accepted(execution.run)
            await self._work(job, execution)
        return made

    async def _work(self, job: Job, execution: Execution[Any]) -> None:
        """Work on a run that has a slot in the background."""
        try:
            self._workshop.begin(job, execution)
        except RuntimeError:  # the engine was cancelled meanwhile, and has no tasks any more: it is for the next one
            self._workshop.leave(job)
            await execution.abandon(End("waiting", wake=self._world.now()))

    async def _put(self, flow: FlowBuilder[Any], run_id: str, wish: Wish) -> bool:
        """Make a run that begins when its time has come, and there is a slot; False where its id is taken."""
        now = self._world.now()
        wake = now if wish.wake is None else wish.wake
        if wish.deadline is not None:
            wake = min(wake, wish.deadline)
        execution = self._making(flow, Job(run_id, flow.name, wish.key), wish)
        made = await execution.begin(Order(wish.priority, wish.key, wake))
        if made:
            self._telemetry.accepted(execution.run)
            self._dispatcher.expect(wake)
        return made

    def _has_slot(self, flow: FlowBuilder[Any], run_id: str) -> bool:
        """May a run of this id begin before those that wait for a slot? Only where there is none of them."""
        is_free = self._admission.free > 0 and not self._dispatcher.has_backlog
        return is_free and not self._admission.is_limited(flow.name) and run_id not in self._workshop.jobs

    def _making(self, flow: FlowBuilder[Any], job: Job, wish: Wish) -> Execution[Any]:
        kind = type(wish.state)
        if flow.state_type is None and not issubclass(kind, dict | NoneType):
            # Whoever goes on with the run could not tell what to make of it.
            raise BadState(kind, f"FlowBuilder({flow.name!r}, …) needs it as its second argument")
        tags = {**self._telemetry.tags(), **wish.tags}
        if wish.deadline is not None:
            tags[DEADLINE] = str(wish.deadline)
        return self._opening(flow, job, wish.state, tags=tags)

    def _opening(
        self,
        flow: FlowBuilder[Any],
        job: Job,
        state: object = None,
        answer: object = NO_ANSWER,
        at: str | None = None,
        tags: Mapping[str, str] = NO_TAGS,
    ) -> Execution[Any]:
        return flow.execution(
            state,
            run_id=job.run_id,
            answer=answer,
            at=at,
            tags=tags,
            deps=self._deps,
            world=self._world,
            watch=job.watch,
            control=job.control,
        )


def _following(flow: str, key: str, last: Run | None) -> str:
    """The id of the next run under a key: of two who would make it, one is told that it is taken."""
    number = 0 if last is None else int(last.run_id.rpartition(".")[2]) + 1
    name = blake2b(f"{flow}\0{key}".encode(), digest_size=12).hexdigest()
    return f"debounce.{name}.{number}"
