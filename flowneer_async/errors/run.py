"""Runs that cannot start, go on or finish."""

from collections.abc import Sequence

from flowneer_async.errors.family import FlowneerError, listed


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
            f"the router of {step!r} in run {run_id!r} named none of the cases {listed(cases)}, but gave another "
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


class RunOver(RunError):
    """Run `run_id` is completed, and takes no signal, `signal`, any more."""

    def __init__(self, run_id: str, signal: str) -> None:
        super().__init__(f"run {run_id!r} is completed, so it takes no signal {signal!r} any more: start a new run")
        self.run_id, self.signal = run_id, signal


class NotWaiting(RunError):
    """Run `run_id` asks for no answer at `step` (None: nowhere, or at several steps, which are `asking`)."""

    def __init__(self, run_id: str, step: str | None, asking: Sequence[str]) -> None:
        where = "" if step is None else f" at {step!r}"
        help = f"it asks at {listed(asking)}: name one, at=…" if asking else "resume it without one"
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
        changed = listed([lane for lane in lanes if lane not in gone])
        if removed:
            what = f"removed key {key!r}, which {changed} changed: let all of them remove it, or none"
        else:
            what = f"have changed the same key {key!r}: say how to merge it, reducer={{{key!r}: …}}"
        super().__init__(f"lanes {listed(removed) if removed else changed} of step {step!r} {what}")
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
            f"run {run_id!r} has passed {listed(passed)}, but the flow's steps are now {listed(steps)}: "
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
