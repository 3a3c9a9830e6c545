"""Every error that this package raises.

    FlowneerError
    ├── DefinitionError              a mistake in a flow, found while it is built
    │   ├── BadName                  a flow, a step or a run id with a name that cannot be used
    │   ├── DuplicateName            two steps, or anchors, of one name
    │   ├── BadStep                  a step that cannot be called with (state) or (state, ctx)
    │   ├── BadOption                an option of a step, a flow or a store that makes no sense
    │   └── PluginCollision          two plugins, or a plugin and the builder, with a method of one name
    ├── StateError                   a state that cannot be kept
    │   ├── BadState                 no mapping, dataclass, pydantic model or msgspec Struct
    │   ├── StateTypeUnknown         a stored state that needs a type which the flow does not name
    │   └── StateNotSerializable     a value that would not come back as it is
    ├── RunError                     a run that cannot start, go on or finish
    │   ├── FlowError                a step failed
    │   ├── StepReturned             a step returned a value instead of changing the state
    │   ├── UnknownAnchor            a step wants to go on where there is no anchor
    │   ├── TooManyVisits            an anchor was jumped to more often than it allows
    │   ├── UnknownCase              a router named a case that its branch does not have
    │   ├── SignalTimeout            a signal did not come in time
    │   ├── BadSignal                a signal whose payload is not what the flow waits for
    │   ├── NotWaiting               an answer for a run that has not asked
    │   ├── StoreNeeded              a step that waits, in a run that no store keeps
    │   ├── FailedBefore             the cause of a FlowError, where the step failed before the run went on
    │   ├── Undone                   the run failed before, and what it had done was undone
    │   ├── StepOver                 a task that a step has left behind asks something of the run
    │   ├── BadTransaction           a step uses its transaction in a way that cannot be kept
    │   ├── NotFinished              the result of a run that goes on was asked for
    │   ├── CircuitOpen              a step was not called, for it has failed too often in a row
    │   ├── StepLimitReached         a run would do more steps than it may
    │   ├── MergeConflict            lanes that changed one key, and nothing says what becomes of it
    │   ├── CannotReduce             a reducer that was given values that it is not for
    │   ├── StateMissing             a run that has no stored state was started without one
    │   ├── RunBusy                  another owner works on this run
    │   ├── Fenced                   another owner has taken this run over
    │   ├── FlowChanged              the steps that a run has passed are not those of the flow
    │   ├── ForeignRun               the run belongs to another flow
    │   └── HalfCopied               the run is a copy that was not finished
    └── StoreError                   a store that cannot do what it was asked
        ├── UnknownRun  UnknownVersion
        ├── CorruptVersion  BrokenChain  CorruptRun  VersionConflict
        ├── CorruptSignal  Forged  NotEncrypted  UnknownKey
        ├── NotADatabase  SchemaTooNew
        ├── ReadOnly  StateTooLarge  TooManyVersions
        ├── RunExists  BadExport  NoTransactions
        ├── ExtraMissing  StoreFull  StoreClosed  StoreFailed
        └── StoreBusy                the store cannot be used just now
            └── StoreUnreachable     its server cannot be reached

Messages hold ids, names, keys, types and sizes: never a value of the state, which may be a secret.
"""

from collections.abc import Sequence


class FlowneerError(Exception):
    """The base of every error of this package. Made from its datum, and pickled with what it holds."""

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[FlowneerError], args: tuple[object, ...]) -> FlowneerError:
    return kind.__new__(kind, *args)


class DefinitionError(FlowneerError):
    """A mistake in a flow, found while it is built."""


class BadName(DefinitionError):
    """`name` cannot be the name of a `kind` (flow, step or run id)."""

    def __init__(self, kind: str, name: object, rule: str) -> None:
        super().__init__(f"{name!r} cannot be the name of a {kind}: {rule}")
        self.kind, self.name = kind, name


class DuplicateName(DefinitionError):
    """A body of a flow has two steps named `name`, or an anchor within a body has the name of one around it."""

    def __init__(self, flow: str, name: str) -> None:
        super().__init__(f"flow {flow!r} already has a step {name!r}: give this one another name, name={name + '-2'!r}")
        self.flow, self.name = flow, name


class BadStep(DefinitionError):
    """What was given as a step of `flow` is not one."""

    def __init__(self, flow: str, step: object, reason: str) -> None:
        super().__init__(f"{_described(step)} cannot be a step of flow {flow!r}: {reason}")
        self.flow, self.step = flow, step


class BadOption(DefinitionError):
    """Option `option` has a value that makes no sense."""

    def __init__(self, option: str, value: object, rule: str) -> None:
        super().__init__(f"{option}={value!r} makes no sense: {rule}")
        self.option, self.value = option, value


class PluginCollision(DefinitionError):
    """Plugin `plugin` defines `method`, which `owner` has already."""

    def __init__(self, plugin: str, method: str, owner: str) -> None:
        super().__init__(f"plugin {plugin} defines {method!r}, which {owner} has already: rename one of them")
        self.plugin, self.method, self.owner = plugin, method, owner


class StateError(FlowneerError):
    """A state that cannot be kept."""


class BadState(StateError):
    """The state, of type `state_type`, is of no kind that a flow can work on."""

    def __init__(self, state_type: type, reason: str) -> None:
        name = getattr(state_type, "__qualname__", None) or type(state_type).__qualname__
        super().__init__(f"a state of type {name} cannot be used: {reason}")
        self.state_type = state_type


class StateTypeUnknown(StateError):
    """A stored state holds a `type_name`, which the flow's state type does not name."""

    def __init__(self, type_name: str) -> None:
        super().__init__(
            f"the stored state holds a value of type {type_name}, which only a flow that names it can read: "
            "FlowBuilder(name, StateType)"
        )
        self.type_name = type_name


class StateNotSerializable(StateError):
    """The value at `path` (`$.order.items[3]`) would not come back as it is."""

    def __init__(self, path: str, reason: str, *, step: str | None = None) -> None:
        where = "" if step is None else f" after step {step!r}"
        super().__init__(f"the state cannot be stored{where}: {path} {reason}")
        self.path, self.reason, self.step = path, reason, step


class RunError(FlowneerError):
    """A run that cannot start, go on or finish."""


class FlowError(RunError):
    """Step `step` of run `run_id` failed with `cause`; running the id again goes on at this step."""

    def __init__(self, step: str, run_id: str, cause: BaseException, attempts: int) -> None:
        tried = "" if attempts == 1 else f" after {attempts} attempts"
        super().__init__(f"step {step!r} of run {run_id!r} failed{tried} with {type(cause).__qualname__}")
        self.step, self.run_id, self.cause, self.attempts = step, run_id, cause, attempts


class StepReturned(RunError):
    """Step `step` returned a value of type `value_type`."""

    def __init__(self, step: str, run_id: str, value_type: type) -> None:
        super().__init__(
            f"step {step!r} of run {run_id!r} returned a value of type {value_type.__qualname__}: "
            'a step changes the state it is given in place, and returns None, or goto("name") or "#name" to jump'
        )
        self.step, self.run_id, self.value_type = step, run_id, value_type


class UnknownAnchor(RunError):
    """Step `step` of run `run_id` wants to go on at `anchor`, which none of the bodies around it has."""

    def __init__(self, step: str, run_id: str, anchor: str) -> None:
        super().__init__(
            f"step {step!r} of run {run_id!r} wants to go on at {anchor!r}, which is no anchor around it: "
            "add .anchor(…) to one of them (a jump cannot leave its lane)"
        )
        self.step, self.run_id, self.anchor = step, run_id, anchor


class TooManyVisits(RunError):
    """Anchor `anchor` of run `run_id` allows `max_visits` jumps."""

    def __init__(self, anchor: str, run_id: str, max_visits: int) -> None:
        super().__init__(
            f"run {run_id!r} would jump to anchor {anchor!r} more than {max_visits} times, which is its max_visits"
        )
        self.anchor, self.run_id, self.max_visits = anchor, run_id, max_visits


class UnknownCase(RunError):
    """The router of branch `step` gave a name that is none of `cases`, or no name at all."""

    def __init__(self, step: str, run_id: str, answer_type: type, cases: Sequence[str]) -> None:
        super().__init__(
            f"the router of {step!r} in run {run_id!r} named none of the cases {_listed(cases)}, but gave another "
            f"{answer_type.__qualname__}: add that case, or default=…"
        )
        self.step, self.run_id, self.answer_type, self.cases = step, run_id, answer_type, tuple(cases)


class SignalTimeout(RunError):
    """Signal `signal`, which `step` of run `run_id` waits for, did not come within `seconds`."""

    def __init__(self, step: str, run_id: str, signal: str, seconds: float) -> None:
        super().__init__(
            f"signal {signal!r}, which {step!r} of run {run_id!r} waits for, did not come in {seconds:g} s"
        )
        self.step, self.run_id, self.signal, self.seconds = step, run_id, signal, seconds


class BadSignal(RunError):
    """The payload of signal `signal` is not what the flow waits for; `reason` shows no value of it."""

    def __init__(self, signal: str, run_id: str, reason: str) -> None:
        super().__init__(f"signal {signal!r} for run {run_id!r} has a payload that cannot be used: {reason}")
        self.signal, self.run_id, self.reason = signal, run_id, reason


class NotWaiting(RunError):
    """Run `run_id` asks for no answer at `step` (None: nowhere, or at several steps, which are `asking`)."""

    def __init__(self, run_id: str, step: str | None, asking: Sequence[str]) -> None:
        where = "" if step is None else f" at {step!r}"
        help = f"it asks at {_listed(asking)}: name one, at=…" if asking else "resume it without one"
        super().__init__(f"run {run_id!r} does not ask for this answer{where}: {help}")
        self.run_id, self.step, self.asking = run_id, step, tuple(asking)


class StoreNeeded(RunError):
    """Step `step` of run `run_id` waits for something from outside, and no store keeps the run meanwhile."""

    def __init__(self, step: str, run_id: str) -> None:
        super().__init__(
            f"step {step!r} of run {run_id!r} waits, and no store keeps the run meanwhile: "
            "give the flow one of the full kind, with_versioned_checkpoint(store)"
        )
        self.step, self.run_id = step, run_id


class StepOver(RunError):
    """Step `step` of run `run_id` is over, and what it has left behind asks something of the run."""

    def __init__(self, step: str, run_id: str) -> None:
        super().__init__(
            f"step {step!r} of run {run_id!r} is over: await what it has begun before it returns, "
            "for nothing of it is stored any more"
        )
        self.step, self.run_id = step, run_id


class BadTransaction(RunError):
    """Step `step` of run `run_id` uses its transaction in a way that cannot be kept; `reason` shows no value."""

    def __init__(self, step: str, run_id: str, reason: str) -> None:
        super().__init__(f"step {step!r} of run {run_id!r} cannot use a transaction so: {reason}")
        self.step, self.run_id, self.reason = step, run_id, reason


class NotFinished(RunError):
    """A streamed run has no result: its events were not read to the end."""

    def __init__(self) -> None:
        super().__init__("the run has no result yet, or was cancelled: read its events to the end, then ask for it")


class FailedBefore(RunError):
    """Step `step` failed with an error of type `error`, before the process that ran it ended."""

    def __init__(self, step: str, error: str) -> None:
        super().__init__(f"step {step!r} failed with {error}, before the run went on in another process")
        self.step, self.error = step, error


class Undone(RunError):
    """Run `run_id` failed at `step` with an error of type `error`, and what it had done was undone: it is over."""

    def __init__(self, run_id: str, step: str, error: str) -> None:
        super().__init__(
            f"run {run_id!r} failed at {step!r} with {error}, and what it had done was undone: start a new run"
        )
        self.run_id, self.step, self.error = run_id, step, error


class CircuitOpen(RunError):
    """Step `step` of run `run_id` was not called: its circuit breaker lets the next attempt through in `seconds`."""

    def __init__(self, step: str, run_id: str, seconds: float) -> None:
        when = f"in {seconds:g} s" if seconds else "when the attempt that goes on now has worked"
        super().__init__(
            f"step {step!r} of run {run_id!r} was not called, for it has failed too often in a row: try again {when}"
        )
        self.step, self.run_id, self.seconds = step, run_id, seconds


class StepLimitReached(RunError):
    """Run `run_id` would do more than `limit` steps with `step`."""

    def __init__(self, step: str, run_id: str, limit: int) -> None:
        super().__init__(
            f"run {run_id!r} would do more than {limit} steps with {step!r}: look for a loop or a jump that does not "
            "end, or allow more, step_limit(…)"
        )
        self.step, self.run_id, self.limit = step, run_id, limit


class MergeConflict(RunError):
    """Several `lanes` of `step` changed `key`, each in another way; those in `removed` removed it."""

    def __init__(self, step: str, key: str, lanes: Sequence[str], removed: Sequence[str] = ()) -> None:
        gone = frozenset(removed)
        changed = _listed([lane for lane in lanes if lane not in gone])
        if removed:
            what = f"removed key {key!r}, which {changed} changed: let all of them remove it, or none"
        else:
            what = f"have changed the same key {key!r}: say how to merge it, reducer={{{key!r}: …}}"
        super().__init__(f"lanes {_listed(removed) if removed else changed} of step {step!r} {what}")
        self.step, self.key, self.lanes, self.removed = step, key, tuple(lanes), tuple(removed)


class CannotReduce(RunError):
    """Reducer `reducer` cannot merge what lanes of `step` made of `key` (None where it was called by hand)."""

    def __init__(self, reducer: str, reason: str, *, step: str | None = None, key: str | None = None) -> None:
        where = "" if key is None else f" what lanes of step {step!r} made of key {key!r}"
        super().__init__(f"reducer {reducer!r} cannot merge{where}: {reason}")
        self.reducer, self.reason, self.step, self.key = reducer, reason, step, key


class StateMissing(RunError):
    """Run `run_id`, or a new one, has no stored state, and was started without one."""

    def __init__(self, run_id: str | None) -> None:
        which = "a new run" if run_id is None else f"run {run_id!r}"
        super().__init__(f"{which} has no stored state to go on from: pass one, run(state, run_id=…)")
        self.run_id = run_id


class RunBusy(RunError):
    """Another owner works on run `run_id`."""

    def __init__(self, run_id: str, owner: str | None) -> None:
        super().__init__(
            f"run {run_id!r} is being worked on by {owner or 'another owner'}: wait for it, or stop it first"
        )
        self.run_id, self.owner = run_id, owner


class Fenced(RunError):
    """Another owner has taken run `run_id` over: nothing more of this one is stored."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id!r} was taken over by another owner: this one has stopped, nothing of it was lost"
        )
        self.run_id = run_id


class FlowChanged(RunError):
    """The steps that run `run_id` has `passed` are not in this order among the flow's `steps`."""

    def __init__(self, run_id: str, passed: Sequence[str], steps: Sequence[str]) -> None:
        super().__init__(
            f"run {run_id!r} has passed {_listed(passed)}, but the flow's steps are now {_listed(steps)}: "
            "put the passed steps back in their order, or start a new run"
        )
        self.run_id, self.passed, self.steps = run_id, tuple(passed), tuple(steps)


class ForeignRun(RunError):
    """Run `run_id` is one of flow `theirs`, not of flow `ours`."""

    def __init__(self, run_id: str, theirs: str, ours: str) -> None:
        super().__init__(f"run {run_id!r} belongs to flow {theirs!r}, not to {ours!r}: use another run id")
        self.run_id, self.theirs, self.ours = run_id, theirs, ours


class HalfCopied(RunError):
    """Run `run_id` is a copy that was not finished."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id!r} is a copy that was not finished: copy it again, or purge it")
        self.run_id = run_id


class StoreError(FlowneerError):
    """A store that cannot do what it was asked."""


class UnknownRun(StoreError):
    """The store has no run `run_id`."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"the store has no run {run_id!r}")
        self.run_id = run_id


class UnknownVersion(StoreError):
    """The store has no version `version`."""

    def __init__(self, version: str) -> None:
        super().__init__(f"the store has no version {version!r} (a version id is written run_id@number)")
        self.version = version


class CorruptVersion(StoreError):
    """The content of `version` is not what was stored."""

    def __init__(self, version: str, reason: str) -> None:
        super().__init__(f"version {version!r} is damaged ({reason}): resume from an earlier one, or restore the store")
        self.version, self.reason = version, reason


class BrokenChain(StoreError):
    """`version` cannot be resolved: `missing`, which it builds on, is not in the store."""

    def __init__(self, version: str, missing: str) -> None:
        super().__init__(f"version {version!r} builds on {missing!r}, which is missing: restore the store")
        self.version, self.missing = version, missing


class CorruptRun(StoreError):
    """What is kept of run `run_id` beside its versions cannot be read; the runs after it are found at `after`."""

    def __init__(self, run_id: str, reason: str, after: str | None = None) -> None:
        super().__init__(f"run {run_id!r} is damaged ({reason}): restore the store")
        self.run_id, self.reason, self.after = run_id, reason, after


class VersionConflict(StoreError):
    """`version` cannot be appended: the head of its run is not its parent."""

    def __init__(self, version: str, head: str | None) -> None:
        super().__init__(f"version {version!r} cannot be appended: the head of its run is {head!r}, not its parent")
        self.version, self.head = version, head


class CorruptSignal(StoreError):
    """Signal `number` of run `run_id` is not what was stored."""

    def __init__(self, run_id: str, number: int, reason: str) -> None:
        super().__init__(f"signal {number} of run {run_id!r} is damaged ({reason}): restore the store")
        self.run_id, self.number, self.reason = run_id, number, reason


class Forged(StoreError):
    """The `kind` (run, version or signal) called `name` is not as it was signed.

    Where it is a run that was alone on its page, the runs after it are found at `after`.
    """

    def __init__(self, kind: str, name: str, reason: str, after: str | None = None) -> None:
        super().__init__(
            f"{kind} {name!r} is not as it was signed ({reason}): give the key that it was signed with, or restore the "
            "store and find out who else writes to it"
        )
        self.kind, self.name, self.reason, self.after = kind, name, reason, after


class NotEncrypted(StoreError):
    """The `kind` (version or signal) called `name` was stored as it is, in a store whose content is encrypted."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"{kind} {name!r} is not encrypted: read what was stored before through the store itself, and copy it over"
        )
        self.kind, self.name = kind, name


class UnknownKey(StoreError):
    """The `kind` (version or signal) called `name` was encrypted with key `key_id`, which the store was not given."""

    def __init__(self, kind: str, name: str, key_id: str) -> None:
        super().__init__(
            f"{kind} {name!r} is encrypted with key {key_id!r}, which is not among the keys: add it to them"
        )
        self.kind, self.name, self.key_id = kind, name, key_id


class NotADatabase(StoreError):
    """The file at `path` is not a database that this store can read."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path!r} is not a SQLite database, or is damaged, or its disk fails: try again, restore a backup, or "
            "choose another file"
        )
        self.path = path


class SchemaTooNew(StoreError):
    """The store has schema `found`; this release knows up to `known`."""

    def __init__(self, place: str, found: int, known: int) -> None:
        super().__init__(f"{place!r} has schema {found}, this release knows up to {known}: upgrade flowneer-async")
        self.place, self.found, self.known = place, found, known


class NoTransactions(StoreError):
    """A step asks for a transaction, and `store`, which keeps its run, has none."""

    def __init__(self, store: str) -> None:
        super().__init__(
            f"{store} has no transactions for steps: give the flow a store in a database, such as SqliteStore"
        )
        self.store = store


class StoreFull(StoreError):
    """There is no room for what was to be stored; nothing of it was."""

    def __init__(self, place: str) -> None:
        super().__init__(f"{place!r} is full: free some room and run the same run id again")
        self.place = place


class StoreBusy(StoreError):
    """The store stayed locked for `seconds`."""

    def __init__(self, place: str, seconds: float) -> None:
        super().__init__(f"{place!r} stayed locked by another program for {seconds:g} s: try again")
        self.place, self.seconds = place, seconds


class StoreUnreachable(StoreBusy):
    """The server of the store could not be reached for `seconds`. What was being stored then is stored, or is not."""

    def __init__(self, place: str, seconds: float) -> None:
        StoreError.__init__(
            self, f"{place!r} could not be reached for {seconds:g} s: run the same run id again when it can be"
        )
        self.place, self.seconds = place, seconds


class ExtraMissing(StoreError):
    """`what` needs packages that are not installed: those of the extra `extra`."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra {extra!r}: pip install 'flowneer-async[{extra}]'")
        self.what, self.extra = what, extra


class StoreClosed(StoreError):
    """The store at `place` is not open."""

    def __init__(self, place: str) -> None:
        super().__init__(f"{place!r} is not open: use it inside 'async with'")
        self.place = place


class StoreFailed(StoreError):
    """`operation` failed in the store; the reason is the cause of this error."""

    def __init__(self, place: str, operation: str, reason: str) -> None:
        super().__init__(f"{operation} failed in {place!r}: {reason}")
        self.place, self.operation, self.reason = place, operation, reason


class ReadOnly(StoreError):
    """The store only reads, and was asked to `operation`."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"this store is read-only and cannot {operation}: use the one that it is made of")
        self.operation = operation


class StateTooLarge(StoreError):
    """A state of run `run_id` has `size` bytes of JSON, and may have `limit`; nothing of it was stored."""

    def __init__(self, run_id: str, size: int, limit: int) -> None:
        super().__init__(
            f"the state of run {run_id!r} would have {size:,} bytes, and may have {limit:,}: keep what is large "
            "elsewhere and its place in the state, or allow more and run the same run id again"
        )
        self.run_id, self.size, self.limit = run_id, size, limit


class TooManyVersions(StoreError):
    """Run `run_id` may have `limit` versions, and would have more; nothing of them was stored."""

    def __init__(self, run_id: str, limit: int) -> None:
        super().__init__(
            f"run {run_id!r} would have more than {limit:,} versions: look for a loop that does not end, or allow more "
            "and run the same run id again"
        )
        self.run_id, self.limit = run_id, limit


class RunExists(StoreError):
    """A run cannot be brought into a store that has a run `run_id` already; nothing was changed."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"the store has a run {run_id!r} already: purge that one first, or use another store")
        self.run_id = run_id


class BadExport(StoreError):
    """Line `line` (from 1) of what was to be imported is not what was exported; nothing of it was stored."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line} of the export cannot be used: {reason}")
        self.line, self.reason = line, reason


def _described(step: object) -> str:
    return getattr(step, "__qualname__", None) or f"an object of type {type(step).__qualname__}"


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:4], "…", *names[-4:]] if len(names) > 9 else list(names)
    return "[" + ", ".join(shown) + "]"
