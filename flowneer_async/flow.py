"""The flow: what is built, how its versions are kept, and its runs."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

import types
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

from flowneer_async.answers import NO_ANSWER, Answer
from flowneer_async.asking import Watch
from flowneer_async.authoring import Authoring
from flowneer_async.control import Control
from flowneer_async.defining import check_choice, check_count, check_name
from flowneer_async.errors import BadOption, PluginCollision, RunOver, StoreNeeded, UnknownVersion
from flowneer_async.events import Waiting
from flowneer_async.hooks import Filter, Filtered, Hooks, matcher
from flowneer_async.keeping import NO_TAGS
from flowneer_async.payload import sent
from flowneer_async.picture import Described, Progress, describe, to_mermaid
from flowneer_async.plan import Durability, Migrate, Plan
from flowneer_async.policy import World
from flowneer_async.reading import Reading
from flowneer_async.resuming import ResumePlan
from flowneer_async.runner import Execution, Result, execute
from flowneer_async.state import shape_of
from flowneer_async.steps import S, Schema, Task, Wait
from flowneer_async.store import VersionedCheckpointStore, VersionStore
from flowneer_async.stream import Events, streamed
from flowneer_async.versions import Snapshot

_WORLD = World()


class FlowBuilder(Authoring[S]):
    """A flow: a chain of awaited steps over one state.

    `name` is stored with each run. `state` is the type of the state (a TypedDict, dataclass, pydantic model or msgspec
    Struct; by default a plain dict), which restores objects of that type, and of the types that it names, on a resume.

    A flow never changes: every method returns a new one, so that one flow may be shared by any number of runs.
    Raises DefinitionError of the kind that fits, and BadState.
    """

    def __init__(self, name: str, state: type[S] | None = None) -> None:
        check_name("flow", name)
        if state is not None:
            shape_of(state)
        self._plan: Plan[S] = Plan(name, state)

    @property
    def name(self) -> str:
        """What it is called, and stored under."""
        return self._plan.name

    @property
    def state_type(self) -> type[S] | None:
        """The type of its state; None for a plain dict."""
        return self._plan.state_type

    @property
    def store(self) -> VersionStore | None:
        """The store, of the full kind, that keeps its runs."""
        return self._plan.store

    @property
    def signals(self) -> Mapping[str, tuple[Schema[object] | None, ...]]:
        """The signals that it waits for, by name, and what their payloads are checked by, at each step that does."""
        found: dict[str, tuple[Schema[object] | None, ...]] = {}
        for node in self._plan.nodes:
            if isinstance(node, Wait):
                found[node.signal] = (*found.get(node.signal, ()), node.schema)
        return found

    @classmethod
    def extend(cls, plugins: Sequence[type]) -> type[Self]:
        """A builder with the methods of `plugins`, plain classes, as its own; raises PluginCollision."""
        ours = dict(_own(cls))
        owners = dict.fromkeys(ours, cls.__name__)
        for plugin in plugins:
            for name, value in _own(plugin):
                if name in owners and not (name in ours and ours[name] == value):
                    raise PluginCollision(plugin.__name__, name, owners[name])
                owners.setdefault(name, f"plugin {plugin.__name__}")
        extended: type[Self] = types.new_class(cls.__name__, (cls, *plugins))
        return extended

    def with_versioned_checkpoint(
        self,
        store: VersionStore | VersionedCheckpointStore,
        filter: Filter | None = None,
        *,
        durability: Durability = "sync",
        skip_unchanged: bool = False,
        migrate: Migrate[S] | None = None,
    ) -> Self:
        """Keep a version of the state in `store` after each step, or after those that `filter` names.

        `filter` is a list of globs on the names of steps, or a function of the name. `durability`: with "sync" the next
        step waits for the commit; with "async" the store may be 64 versions or 50 ms behind; with "exit" one version is
        kept when the run ends, however it ends. A step that left the state as it was makes a marker, or, with
        `skip_unchanged`, nothing: then it is done again on a resume. `migrate(state, change)` is asked about a stored
        run that has passed steps which the flow does not have any more: it gives the name of the step to go on after.
        """
        full, entries = _sorted_out(store)
        check_choice("durability", durability, Durability)
        if durability != "sync" and full is None:
            raise BadOption("durability", durability, "a store of two methods saves each version as it is made")
        keeps = matcher(filter)
        if entries is not None and any(isinstance(n, Task) and n.delivery == "at_most_once" for n in self._plan.nodes):
            raise BadOption("delivery", "at_most_once", "a store of two methods cannot say that a step has begun")
        return self._with_plan(
            self._plan.checked,
            store=full,
            entries=entries,
            keeps=keeps,
            durability=durability,
            skip_unchanged=skip_unchanged,
            migrate=migrate,
        )

    def resume_from(self, version: str, store: VersionStore | VersionedCheckpointStore) -> Self:
        """A flow whose `run()` restores the state of `version` and goes on after the step that made it.

        The last version of a run goes on as that run; an older one, or `run(run_id=…)` with a new id, is a fork: a new
        run, whose first version's parent is this version.
        """
        if not isinstance(version, str):
            raise UnknownVersion(str(version))
        return self.with_versioned_checkpoint(
            store,
            self._plan.keeps,
            durability=self._plan.durability,
            skip_unchanged=self._plan.skip_unchanged,
            migrate=self._plan.migrate,
        )._with(resumes=version)

    async def run(
        self,
        state: S | None = None,
        *,
        run_id: str | None = None,
        tags: Mapping[str, str] = NO_TAGS,
        deps: object = None,
        world: World = _WORLD,
    ) -> Result[S]:
        """Run the flow on `state`, which its steps change in place.

        With a store, `run_id` makes this idempotent: a new id starts, an unfinished run goes on from its own last
        version (`state` is then not looked at, and may be left out), a finished one returns its result. A new run is
        given the `tags`, names with texts, by which `store.runs(tags=…)` finds it. `deps` are live objects for
        `ctx.deps`.

        Raises FlowError where a step failed, StateNotSerializable, StepReturned, StateMissing, RunBusy, Fenced,
        FlowChanged, ForeignRun, BadName, BadState and what the store raises; cancelled, it stores that and re-raises.
        """
        return await execute(self._plan, state, run_id, deps, world, tags=tags)

    async def resume(
        self,
        run_id: str,
        *,
        answer: object = NO_ANSWER,
        at: str | None = None,
        deps: object = None,
        world: World = _WORLD,
    ) -> Result[S]:
        """Go on with a stored run, and give it the answer that it waits for.

        `at` is the path of the step that asks (`result.waits`), where there are several. An answer is stored first, so
        that it survives a crash. Raises what `run` raises, UnknownRun, and NotWaiting for an answer that nobody needs.
        """
        self._full_store("resume", run_id)
        return await execute(self._plan, None, run_id, deps, world, answer=Answer(answer, at))

    async def signal(self, run_id: str, name: str, payload: object = None) -> None:
        """Store a signal for a run, which takes it when it comes to `wait_for(name)`; `resume` lets it go on.

        The payload is kept as states are. Raises BadSignal where the flow waits for none of this name, or not for such
        a payload, RunOver where the run is completed, StateNotSerializable, UnknownRun, ForeignRun.
        """
        plan, store = self._plan, self._full_store("signal", run_id)
        reading = Reading(plan)
        run = await reading.run(store, run_id)
        text = sent(reading.codec, plan.waits(name), run_id, name, payload)
        if run.status == "completed":
            raise RunOver(run_id, name)
        await store.send(run_id, name, text)

    def execution(
        self,
        state: S | None = None,
        *,
        run_id: str | None = None,
        answer: object = NO_ANSWER,
        at: str | None = None,
        tags: Mapping[str, str] = NO_TAGS,
        deps: object = None,
        world: World = _WORLD,
        watch: Watch | None = None,
        control: Control | None = None,
    ) -> Execution[S]:
        """What `run` and `resume` do, in halves: `await execution.open()`, then `await execution.work()`.

        For those who own runs in the background, as an engine does: between the two the run is stored, and nothing has
        begun. `watch` is told each event; by `control` the run is halted, or said how to end. Raises as `run` does.
        """
        given = None if answer is NO_ANSWER else Answer(answer, at)
        return Execution(self._plan, state, run_id, deps, world, watch, given, tags, control)

    def stream(
        self,
        state: S | None = None,
        *,
        run_id: str | None = None,
        tags: Mapping[str, str] = NO_TAGS,
        deps: object = None,
        world: World = _WORLD,
        buffer: int = 64,
        detach: bool = False,
    ) -> AbstractAsyncContextManager[Events[S]]:
        """Run the flow and read what happens: `async with flow.stream(state) as events: async for event in events: …`.

        The run waits while `buffer` events are unread. Leaving the block cancels it or, with `detach`, lets it go on
        unwatched (on asyncio). When the run has failed, reading raises its error after the event that says so;
        `events.result` is the result of one that has not.
        """
        check_count("buffer", buffer, 0)
        plan = self._plan.checked
        return streamed(lambda watch: execute(plan, state, run_id, deps, world, watch, tags=tags), buffer, detach)

    def add_hooks(self, hooks: Hooks[S], filter: Filter | None = None) -> Self:
        """A flow that has these hooks too, for the steps that `filter` names: a list of globs, or a function."""
        if not isinstance(hooks, Hooks):
            raise BadOption("hooks", type(hooks).__qualname__, "they are Hooks(…)")
        return self._with(hooks=(*self._plan.hooks, Filtered(hooks, matcher(filter))))

    def remove_hooks(self, hooks: Hooks[S]) -> Self:
        """A flow without these hooks, which were added before; runs that have begun keep them."""
        return self._with(hooks=tuple(each for each in self._plan.hooks if each.hooks is not hooks))

    async def resolve(self, version: str) -> Snapshot[S]:
        """The state that a version stood for, of the flow's own type, and the index of the step that was last done.

        Raises UnknownVersion, UnknownRun, ForeignRun, CorruptVersion, BrokenChain, StateTypeUnknown, StoreNeeded.
        """
        return await Reading(self._plan).snapshot(self._full_store("resolve", version), version)

    async def waiting_for(self, run_id: str) -> tuple[Waiting, ...]:
        """What a stored run waits for, as `Result.waits` has it; raises UnknownRun, ForeignRun, StoreNeeded."""
        return await Reading(self._plan).waits(self._full_store("waiting_for", run_id), run_id)

    async def plan_resume(self, run_id: str) -> ResumePlan:
        """What going on with a stored run would do, or why it cannot: nothing is run, and nothing is stored.

        Raises UnknownRun, StoreNeeded.
        """
        return await Reading(self._plan).preview(self._full_store("plan_resume", run_id), run_id)

    def describe(self, progress: Progress | None = None) -> Described:
        """The flow as plain data, for JSON; how far a run has come is `(await flow.plan_resume(run_id)).progress`."""
        return describe(self._plan.name, self._plan.body, progress)

    def to_mermaid(self, progress: Progress | None = None) -> str:
        """The flow as a Mermaid flowchart; see `describe`."""
        return to_mermaid(self._plan.name, self._plan.body, progress)

    def _full_store(self, what: str, run_id: str) -> VersionStore:
        if self._plan.store is None:
            raise StoreNeeded(what, run_id)
        return self._plan.store


def fragment(state: type[S] | None = None) -> FlowBuilder[S]:
    """A piece of a flow: a body for another, or steps for `.add(…)`; `state` is the type of the state."""
    return FlowBuilder("fragment", state)


def _own(kind: type) -> list[tuple[str, object]]:
    """What a class has by name, but for what every class has."""
    return [(name, getattr(kind, name)) for name in dir(kind) if not (name.startswith("__") and name.endswith("__"))]


def _sorted_out(store: object) -> tuple[VersionStore | None, VersionedCheckpointStore | None]:
    """The store as one of the full kind, or as one of two methods."""
    if isinstance(store, VersionStore) and not isinstance(store, type):
        return store, None
    if isinstance(store, VersionedCheckpointStore) and not isinstance(store, type):
        return None, store
    raise BadOption("store", type(store).__qualname__, "it has methods save and resolve, or those of VersionStore")
