"""The engine: it owns the runs that go on in the background of a process, and takes over those of dead processes."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from types import TracebackType
from typing import Any, Protocol, Self, Unpack, overload

import anyio

from flowneer_async.answers import NO_ANSWER
from flowneer_async.context import Context
from flowneer_async.engine.accepting import Wish
from flowneer_async.engine.at_work import AtWork, at_work
from flowneer_async.engine.calling import called, child_id
from flowneer_async.engine.handle import Handle
from flowneer_async.engine.health import Health, Probe
from flowneer_async.engine.hearing import SIGNALS, hearing
from flowneer_async.engine.limits import Limits
from flowneer_async.engine.options import StartOptions, wished
from flowneer_async.engine.run_events import RunEvent, run_events
from flowneer_async.engine.schedule import Missed, Times
from flowneer_async.engine.scheduling import Schedule
from flowneer_async.engine.settings import Settings, bound
from flowneer_async.engine.tags import PARENT, check_user_tags, inherited
from flowneer_async.engine.telemetry import Telemetry
from flowneer_async.engine.watching import result_of
from flowneer_async.errors import BadOption, EngineStopped, UnknownFlow
from flowneer_async.flow import FlowBuilder
from flowneer_async.keeping import NO_TAGS, every_run
from flowneer_async.policy import World
from flowneer_async.runner import Result
from flowneer_async.shield import complete
from flowneer_async.steps import S
from flowneer_async.store import RunFilter, VersionStore
from flowneer_async.versions import OPEN, Run, parse_version_id

_WORLD = World()
_NO_LIMITS: Mapping[str, Limits] = {}


class App(Protocol):
    """An application of FastAPI or Starlette, as far as its `lifespan` needs it."""

    @property
    def state(self) -> Any:
        """What its handlers share."""
        ...


class Engine:
    """Runs `flows` in the background, and keeps them in `store`: `async with Engine(store, [report]) as engine: …`.

    What it has accepted is stored, and goes on after a crash: in this process when it is started again, or in another
    one on the same store. At most `concurrency` runs are at work in this process; `limits`, by the names of flows, hold
    over all processes. Every `poll` seconds it looks for runs that are due, and for those whose process is gone; a run
    whose process has died more than `max_recoveries` times in a row without storing a version is parked: it fails with
    Parked. Left, it lets steps that have begun go on for `grace` seconds, cancels the others, and puts all runs
    down, for the next engine to go on with at once.

    `deps` are for `ctx.deps`; `telemetry` is told of everything. Raises BadOption.
    """

    def __init__(
        self,
        store: VersionStore,
        flows: Sequence[FlowBuilder[Any]] = (),
        *,
        deps: object = None,
        concurrency: int = 100,
        limits: Mapping[str, Limits] = _NO_LIMITS,
        max_recoveries: int = 5,
        grace: float = 10.0,
        poll: float = 1.0,
        telemetry: Telemetry | None = None,
        world: World = _WORLD,
    ) -> None:
        telemetry = Telemetry() if telemetry is None else telemetry
        ours = bound(flows, store, telemetry)
        self._settings = Settings(store, ours, deps, concurrency, limits, max_recoveries, grace, poll, telemetry, world)
        self._schedules: list[Schedule] = []
        self._work: AtWork | None = None
        self._entered = AsyncExitStack()
        self._probe = Probe(store, world)

    # Its life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._work is not None:
            raise BadOption("engine", "…", "it is at work already")
        self._work = await self._entered.enter_async_context(at_work(self._settings, self._schedules))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._entered.__aexit__(kind, error, traceback)
        finally:
            self._work = None

    @asynccontextmanager
    async def lifespan(self, app: App) -> AsyncGenerator[None, None]:
        """For `FastAPI(lifespan=engine.lifespan)`, and Starlette: the engine is at work as long as the application.

        Opens the store as well, and is `app.state.engine`. Within another lifespan: `async with engine.lifespan(app)`.
        Streams of events end, and no new step begins, as soon as the process gets SIGTERM or SIGINT.
        """
        app.state.engine = self
        async with self._opened():
            loop = asyncio.get_running_loop()

            def heard() -> None:
                loop.call_soon_threadsafe(self.stop)

            with hearing(heard):
                yield

    async def serve(self) -> None:
        """Work, with the store opened, until the process gets SIGTERM or SIGINT: for a process that only works."""
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            async with self._opened():
                async for _ in signals:
                    return

    def stop(self) -> None:
        """Let no step begin from now on; what is started is stored for the next engine. Then leave this one."""
        if self._work is not None:
            self._work.halt()

    @property
    def is_stopping(self) -> bool:
        """Does it begin nothing any more, or has it not begun to work?"""
        return self._work is None or self._work.stopping.is_set()

    @property
    def store(self) -> VersionStore:
        """Where its runs are kept."""
        return self._settings.store

    @property
    def flows(self) -> Mapping[str, FlowBuilder[Any]]:
        """Its flows by name, each with its store."""
        return self._settings.flows

    # Runs ------------------------------------------------------------------------------------------------------------

    @overload
    async def start(self, flow: FlowBuilder[S], state: S, **options: Unpack[StartOptions]) -> Handle[S]: ...
    @overload
    async def start(self, flow: str, state: object, **options: Unpack[StartOptions]) -> Handle[object]: ...
    async def start(self, flow: FlowBuilder[Any] | str, state: object, **options: Unpack[StartOptions]) -> Handle[Any]:
        """Accept a run of `flow` on `state`: it is stored when this returns, and works on a state of its own.

        It begins when there is a slot for it. A `run_id` that is taken gives the run that has it, as it is; the other
        options, tags, key, priority, deadline, delay, at and debounce, are said in `StartOptions`.

        Raises EngineStopped, UnknownFlow, BadState, StateNotSerializable, BadName, BadOption, ForeignRun, and what the
        store raises.
        """
        work, bound = self._at_work("start a run"), self._flow(flow)
        wish = wished(bound.name, state, options, self._settings.world.now())
        debounce = options.get("debounce")
        if debounce is None:
            run_id = await complete(work.accepting.accept(bound, wish))
        else:
            run_id = await complete(work.accepting.debounce(bound, wish, debounce))
        return Handle(self, bound, run_id)

    async def handle(self, run_id: str) -> Handle[object]:
        """A run that was accepted before; raises UnknownRun, UnknownFlow."""
        run = await self.store.read(run_id)
        return Handle(self, self._flow(run.flow), run_id)

    async def resume(self, run_id: str, answer: object = NO_ANSWER, at: str | None = None) -> Handle[object]:
        """Go on with a run that has failed, was cancelled or parked, or asks for an `answer`: at step `at`, if several.

        Raises EngineStopped, UnknownRun, UnknownFlow, RunBusy, NotWaiting, FlowChanged, StateNotSerializable.
        """
        work, handle = self._at_work("resume a run"), await self.handle(run_id)
        await complete(work.accepting.take(handle.flow, run_id, answer, at))
        return handle

    async def fork(
        self, version: str, *, run_id: str | None = None, tags: Mapping[str, str] = NO_TAGS
    ) -> Handle[object]:
        """Accept a run that goes on from a version of another one, and has its tags, too.

        Raises as `start` does, and UnknownRun, UnknownVersion.
        """
        work = self._at_work("fork a run")
        check_user_tags(tags)
        origin = await self.store.read(parse_version_id(version)[0])
        flow = self._flow(origin.flow)
        wish = Wish(None, run_id, {**inherited(origin.tags), **tags})
        new_id = await complete(work.accepting.accept(flow.resume_from(version, self.store), wish))
        return Handle(self, flow, new_id)

    async def signal(self, run_id: str, name: str, payload: object = None) -> None:
        """Send a run a signal, which it takes when it comes to `wait_for(name)`, and wake it up.

        Raises BadSignal, StateNotSerializable, UnknownRun, UnknownFlow.
        """
        handle = await self.handle(run_id)
        await handle.flow.signal(run_id, name, payload)
        self._poke()

    async def cancel(self, run_id: str) -> bool:
        """Cancel a run, and those that its steps have called, in whichever process; False for one that was over.

        It is accepted when this returns; the run is cancelled in the middle of its step, or before the next engine goes
        on with it. Raises UnknownRun.
        """
        is_open = await self.store.ask_cancel(run_id)
        if is_open and self._work is not None:
            job = self._work.workshop.jobs.get(run_id)
            if job is not None:
                job.cut()
        self._poke()
        async for child in every_run(self.store, RunFilter(OPEN, tags={PARENT: run_id})):
            await self.cancel(child.run_id)
        return is_open

    async def call(self, ctx: Context[Any], flow: FlowBuilder[S], state: S, name: str = "") -> S:
        """In a step: run another flow as a run of its own, and give the state that it ends with.

        The run is a child of this one, and has its tags. Meanwhile this one waits, and takes no slot; when the child
        is over, the step begins anew, and comes here again: so what it does before has to bear that (`ctx.once`). A
        step that calls several gives each a `name`. Raises ChildFailed where the child failed or was cancelled.
        """
        work, bound = self._at_work("call a flow"), self._flow(flow)
        run_id = child_id(ctx, name)

        async def start(parent: Run) -> None:
            wish = Wish(state, run_id, {**inherited(parent.tags), PARENT: ctx.run_id})
            await complete(self._start_child(work, bound, wish, parent.run_id))

        job, now = work.workshop.jobs.get(ctx.run_id), self._settings.world.now()
        return await called(self.store, bound, ctx, run_id, job, now, start)

    def schedule(
        self,
        name: str,
        flow: FlowBuilder[S] | str,
        state: object,
        times: Times,
        *,
        missed: Missed = "skip",
        tags: Mapping[str, str] = NO_TAGS,
    ) -> None:
        """Start a run of `flow` at each of `times`, `Cron(…)` or `Every(…)`, once over all processes that do.

        `state` is what each begins with, or a function of the time that gives it. Of times that came while no engine
        was at work none is started, only the "last", or "all" of them. To be said before the engine is entered. Raises
        BadName, BadOption, UnknownFlow.
        """
        if self._work is not None:
            raise BadOption("schedule", name, "schedules are made before the engine is entered")
        check_user_tags(tags)
        self._schedules.append(Schedule(name, self._flow(flow).name, state, times, missed, tags))

    async def health(self) -> Health:
        """Can it accept runs: is it at work, and can its store be written? Asks the store at most once a second."""
        running = 0 if self._work is None else len(self._work.workshop.jobs)
        reason = "the engine is not at work" if self.is_stopping else await self._probe.reason()
        return Health(reason is None, reason, running)

    # What handles ask ------------------------------------------------------------------------------------------------

    async def result_of(self, flow: FlowBuilder[S], run_id: str) -> Result[S]:
        """See `Handle.result`."""
        work = self._at_work("wait for a run")
        return await result_of(flow, self.store, run_id, work.workshop, work.stopping)

    async def events_of(
        self, flow: FlowBuilder[S], run_id: str, after: str | None, live: bool
    ) -> AsyncGenerator[RunEvent, None]:
        """See `Handle.events`."""
        work = self._at_work("tell what happens in a run")
        with work.workshop.listeners.to(run_id) if live else nullcontext() as listener:
            events = run_events(flow, self.store, run_id, after, work.stopping, listener)
            async with aclosing(events) as told:
                async for event in told:
                    yield event

    # -----------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            if isinstance(self.store, AbstractAsyncContextManager):
                await stack.enter_async_context(self.store)
            await stack.enter_async_context(self)
            yield

    async def _start_child(self, work: AtWork, flow: FlowBuilder[Any], wish: Wish, parent_id: str) -> None:
        run_id = await work.accepting.accept(flow, wish)
        parent = await self.store.read(parent_id)
        if parent.cancelling or parent.status not in OPEN:  # whoever cancelled it did not find this child
            await self.cancel(run_id)

    def _at_work(self, what: str) -> AtWork:
        if self._work is None:
            raise EngineStopped(what)
        return self._work

    def _poke(self) -> None:
        if self._work is not None:
            self._work.dispatcher.poke()

    def _flow(self, flow: FlowBuilder[Any] | str) -> FlowBuilder[Any]:
        name = flow if isinstance(flow, str) else flow.name
        try:
            return self._settings.flows[name]
        except KeyError:
            raise UnknownFlow(name, tuple(self._settings.flows)) from None
