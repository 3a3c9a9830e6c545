"""One run that this process works on."""

import anyio

from flowneer_async.control import CANCELLED, Control, End
from flowneer_async.engine.listening import Listeners
from flowneer_async.engine.telemetry import Tell
from flowneer_async.events import Chunk, Event
from flowneer_async.versions import OPEN


class Job:
    """A run of `flow` that has a slot in this process, from before it is taken until after it was put down."""

    def __init__(self, run_id: str, flow: str, key: str, listeners: Listeners | None = None) -> None:
        self.run_id, self.flow, self.key, self._listeners = run_id, flow, key, listeners
        self.control = Control()
        # Should the process have no time for more, somebody else goes on with it.
        self.control.when_cut = End("running")
        self.scope = anyio.CancelScope()
        self.over = anyio.Event()
        """This process no longer works on it."""
        self.error: Exception | None = None
        """What it has raised."""
        self.has_caller = False
        """Was it called by a step of another run, which goes on when this one is over?"""
        self.woken: int | None = None
        """When it was to be woken, in Unix ms, if that is why it was taken."""
        self.tell: Tell | None = None

    async def watch(self, event: Event) -> None:
        """Pass on what happens in it."""
        if self.tell is not None:
            self.tell(event)
        if self._listeners is not None and isinstance(event, Chunk):
            self._listeners.tell(self.run_id, event)

    @property
    def is_over(self) -> bool:
        """Is the run over, as far as this process knows?"""
        return self.control.end is not None and self.control.end.status not in OPEN

    @property
    def is_left(self) -> bool:
        """Could this process not go on with it, though it is not over, and does not wait?"""
        return self.control.end is None or self.control.end.status == "running"

    def halt(self, end: End) -> None:
        """Let no new step begin, and then end so."""
        self.control.halted = end

    def cut(self, end: End = CANCELLED) -> None:
        """Cancel it where it stands, and end so."""
        self.control.when_cut = end
        self.scope.cancel()
