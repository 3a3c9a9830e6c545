"""What is asked of a run while a process works on it: to stop before its next step, or to end in some way."""

from typing import NamedTuple

from flowneer_async.versions import Status


class End(NamedTuple):
    """How a run stands when a process is done with it; one that waits is to be woken at `wake`, in Unix ms."""

    status: Status
    error: str | None = None
    wake: int | None = None


CANCELLED = End("cancelled")


class Control:
    """The wishes of whoever has begun to work on a run."""

    __slots__ = ("end", "halted", "latest", "when_cut")

    def __init__(self) -> None:
        self.end: End | None = None
        """How the run stands, once that is stored."""
        self.halted: End | None = None
        """No new step begins: then the run ends so."""
        self.when_cut = CANCELLED
        """How it ends where it is cancelled in the middle of a step."""
        self.latest: int | None = None
        """When it is to be woken at the latest should it come to wait, in Unix ms."""
