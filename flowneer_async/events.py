"""What happens in a run, told to whoever watches it."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a run waits for at `step`, a path.

    "sleep": until a moment, `until`, in Unix ms. "signal": for the signal `name`, until `until` at most (None: for
    ever). "answer": to `question`, which `ctx.interrupt` has asked. "doubt": to whether the step, which may be
    done at most once and was interrupted, was done: answer True or False.
    """

    kind: Literal["sleep", "signal", "answer", "doubt"]
    step: str
    until: int | None = None
    name: str | None = None
    question: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """An item of a batch that was given up: the path of its step that failed, and the type of what it raised."""

    step: str
    error: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins, or goes on after `version`."""

    run_id: str
    version: str | None


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins; `step` is its path."""

    step: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step is done, and stored as `version` (None: nothing was stored), in which the keys `changed` are new."""

    step: str
    version: str | None
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a step has yielded, or given to `ctx.emit`."""

    step: str
    value: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class StepRetried:
    """Attempt number `attempt` (from 1) failed with an error of this type; the next one comes in `wait` seconds."""

    step: str
    attempt: int
    error: str
    wait: float


@dataclass(frozen=True, slots=True)
class RunWaiting:
    """The run waits, and has been put down."""

    waits: tuple[Waiting, ...]


@dataclass(frozen=True, slots=True)
class RunDone:
    """The run is complete; `version` is its last."""

    run_id: str
    version: str | None


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The run has failed; reading on raises `error`."""

    run_id: str
    error: Exception


Event: TypeAlias = RunStarted | StepStarted | StepDone | Chunk | StepRetried | RunWaiting | RunDone | RunFailed
"""Anything that happens in a run."""
