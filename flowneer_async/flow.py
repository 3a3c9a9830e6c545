"""The builder: each method returns a new flow, and checks what it is given."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Generic, Self, get_args

from flowneer_async.errors import BadOption, BadStep, DuplicateName, PluginCollision, UnknownVersion
from flowneer_async.plan import Durability, Plan
from flowneer_async.policy import Backoff, World
from flowneer_async.runner import Result, execute
from flowneer_async.state import shape_of
from flowneer_async.steps import D, Option, S, Step, check_name, new_task
from flowneer_async.store import VersionedCheckpointStore, VersionStore

_WORLD = World()

Filter = Callable[[str], bool] | Sequence[str]


class FlowBuilder(Generic[S]):
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

    def start_with(
        self,
        step: Step[S, D],
        *,
        name: str | None = None,
        retries: Option[int, S] = 0,
        delay: Option[float | Backoff, S] = 0.0,
        timeout: Option[float | None, S] = None,
    ) -> Self:
        """The first step; see `then`."""
        if self._plan.steps:
            raise BadStep(self._plan.name, step, "the flow has a first step already: use .then(…)")
        return self.then(step, name=name, retries=retries, delay=delay, timeout=timeout)

    def then(
        self,
        step: Step[S, D],
        *,
        name: str | None = None,
        retries: Option[int, S] = 0,
        delay: Option[float | Backoff, S] = 0.0,
        timeout: Option[float | None, S] = None,
    ) -> Self:
        """The next step: takes `(state)` or `(state, ctx)`, async or sync, changes the state in place, returns None.

        `name` is by default the function's own; stored runs are resumed by it. A step that raises is tried `retries`
        more times, each from the state that was before it, after `delay` seconds or a `Backoff`; an attempt may last
        `timeout` seconds (a sync step cannot be interrupted). Each option is a value or a function of the state.
        """
        plan = self._plan
        task = new_task(plan.name, step, name, retries, delay, timeout)
        if task.name in plan.steps:
            raise DuplicateName(plan.name, task.name)
        return self._with(steps={**plan.steps, task.name: task})

    def with_versioned_checkpoint(
        self,
        store: VersionStore | VersionedCheckpointStore,
        filter: Filter | None = None,
        *,
        durability: Durability = "sync",
        skip_unchanged: bool = False,
    ) -> Self:
        """Keep a version of the state in `store` after each step, or after those that `filter` names.

        `filter` is a list of globs on the names of steps, or a function of the name. `durability`: with "sync" the next
        step waits for the commit; with "async" the store may be 64 versions or 50 ms behind; with "exit" one version is
        kept when the run ends, however it ends. A step that left the state as it was makes a marker, or, with
        `skip_unchanged`, nothing: then it is done again on a resume.
        """
        full, entries = _sorted_out(store)
        if durability not in get_args(Durability):
            raise BadOption("durability", durability, f"it is one of {', '.join(get_args(Durability))}")
        if durability != "sync" and full is None:
            raise BadOption("durability", durability, "a store of two methods saves each version as it is made")
        keeps = _matcher(filter)
        return self._with(
            store=full, entries=entries, keeps=keeps, durability=durability, skip_unchanged=skip_unchanged
        )

    def resume_from(self, version: str, store: VersionStore | VersionedCheckpointStore) -> Self:
        """A flow whose `run()` restores the state of `version` and goes on after the step that made it.

        The last version of a run goes on as that run; an older one, or `run(run_id=…)` with a new id, is a fork: a new
        run, whose first version's parent is this version.
        """
        if not isinstance(version, str):
            raise UnknownVersion(str(version))
        return self.with_versioned_checkpoint(
            store, self._plan.keeps, durability=self._plan.durability, skip_unchanged=self._plan.skip_unchanged
        )._with(resumes=version)

    async def run(
        self, state: S | None = None, *, run_id: str | None = None, deps: object = None, world: World = _WORLD
    ) -> Result[S]:
        """Run the flow on `state`, which its steps change in place.

        With a store, `run_id` makes this idempotent: a new id starts, an unfinished run goes on from its own last
        version (`state` is then not looked at, and may be left out), a finished one returns its result. `deps` are live
        objects for `ctx.deps`.

        Raises FlowError where a step failed, StateNotSerializable, StepReturned, StateMissing, RunBusy, Fenced,
        FlowChanged, ForeignRun, BadName, BadState and what the store raises; cancelled, it stores that and re-raises.
        """
        return await execute(self._plan, state, run_id, deps, world)

    def _with(self, **changes: Any) -> Self:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__, _plan=replace(self._plan, **changes))
        return new


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


def _matcher(wanted: Filter | None) -> Callable[[str], bool] | None:
    if wanted is None or callable(wanted):
        return wanted
    if isinstance(wanted, str):
        raise BadOption("filter", wanted, f"it is a list of globs: [{wanted!r}]")
    globs = tuple(wanted)
    return lambda name: any(fnmatchcase(name, glob) for glob in globs)
