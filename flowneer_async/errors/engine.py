"""Runs in the background that cannot be started, or have not come to their end."""

from collections.abc import Sequence

from flowneer_async.errors.family import listed
from flowneer_async.errors.run import RunError


class EngineStopped(RunError):
    """The engine is not, or no longer, at work; what it had accepted is stored, and goes on in the next one."""

    def __init__(self, what: str) -> None:
        super().__init__(f"cannot {what}: the engine is not at work; enter it, `async with engine`, or ask another one")
        self.what = what


class UnknownFlow(RunError):
    """The engine has no flow `name` among those that it `knows`."""

    def __init__(self, name: str, knows: Sequence[str]) -> None:
        super().__init__(f"the engine has no flow {name!r}, but {listed(knows)}: add it, Engine(store, flows=[…])")
        self.name, self.knows = name, tuple(knows)


class NotCompleted(RunError):
    """Run `run_id` is over, with another `status` than completed, for this `reason`; it has no result."""

    def __init__(self, run_id: str, status: str, reason: str | None) -> None:
        why = "" if reason is None else f": {reason}"
        super().__init__(f"run {run_id!r} is {status}, so it has no result; resume it to go on{why}")
        self.run_id, self.status, self.reason = run_id, status, reason


class Parked(RunError):
    """Run `run_id` is not tried again, for its process has died `recoveries` times in a row in the middle of it."""

    def __init__(self, run_id: str, recoveries: int) -> None:
        super().__init__(
            f"run {run_id!r} is parked: its process has died {recoveries} times in a row without storing a version; "
            "find out what its next step does, then resume it"
        )
        self.run_id, self.recoveries = run_id, recoveries


class DeadlineExceeded(RunError):
    """Run `run_id` was not over at its deadline, `deadline` in Unix ms."""

    def __init__(self, run_id: str, deadline: int) -> None:
        super().__init__(f"run {run_id!r} was not over at its deadline ({deadline} in Unix ms): fork it to go on")
        self.run_id, self.deadline = run_id, deadline


class ChildFailed(RunError):
    """Run `run_id`, which a step has called, is over with another `status` than completed."""

    def __init__(self, run_id: str, status: str, reason: str | None) -> None:
        super().__init__(f"child run {run_id!r} is {status}: see its error, resume it, then resume its parent")
        self.run_id, self.status, self.reason = run_id, status, reason
