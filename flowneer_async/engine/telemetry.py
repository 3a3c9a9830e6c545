"""What an engine tells of its work to whoever traces, measures or logs it: ids, names and counts, never a value."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol, TypeAlias

from flowneer_async.events import Event
from flowneer_async.hooks import Hooks
from flowneer_async.versions import Run, Status

Tell: TypeAlias = Callable[[Event], None]
"""Takes each event of one execution of a run."""


class Measures(Protocol):
    """What an engine can be asked at any time, from any thread; answers at once, and raises nothing."""

    def running(self) -> int:
        """How many runs this process works on now."""
        ...

    def lag(self) -> float:
        """For how many seconds the oldest write that the store has not committed has been waiting; 0 where none is."""
        ...


class Telemetry:
    """An engine tells it of everything; this one heeds nothing. Derive from it, and override what you want to know.

        class Counted(Telemetry):
            def ended(self, run, status, seconds):
                counts[run.flow, status] += 1

        engine = Engine(store, flows=[report], telemetry=Several(Counted(), LogLines()))

    Its methods are called in the engine's own thread between two steps: they are quick, and raise nothing. The hooks
    and the events hold the state, or parts of it, and errors whose messages may: pass on ids and types alone.
    """

    def hooks(self, flow: str) -> Sequence[Hooks[object]]:
        """What is added to the flow of this name, the first outermost; asked for when the engine is made."""
        return ()

    def tags(self) -> Mapping[str, str]:
        """What is kept with a run that is being accepted, for its executions in whichever process: names begin with @.

        Asked for in the context of whoever calls `start`.
        """
        return {}

    def watch(self, measures: Measures) -> AbstractContextManager[object]:
        """Around all that the engine does, from when it is entered until it is left."""
        return nullcontext()

    def accepted(self, run: Run) -> None:
        """A new run is stored: whatever happens, it will be done. Not told of an id that was taken already."""

    def execution(self, run: Run) -> AbstractContextManager[Tell]:
        """Around each time that this process works on a run, until it ends or is put down.

        `run` is as it was found, or made: this is the first time where it had not begun, or has no version yet (`head`
        is -1). What happens meanwhile is given to the function; one execution may wait and at once go on. The run is
        over where `ended` was told in it; else it waits where its last event was RunWaiting; else it was put down in
        the middle, for somebody to go on with.
        """
        return nullcontext(_heed_nothing)

    def ended(self, run: Run, status: Status, seconds: float) -> None:
        """A run is completed, failed or cancelled, so many seconds after it was accepted.

        Told in its execution, or, where it was cancelled or given up in between, without one.
        """

    def recovered(self, run: Run) -> None:
        """The process that worked on a run is gone, and this one goes on with it: its execution follows."""

    def parked(self, run: Run) -> None:
        """A run is given up, for its process has died `run.recoveries` times in a row: that it ended follows."""


class Several(Telemetry):
    """More than one: each is told everything, in this order."""

    def __init__(self, *telemetries: Telemetry) -> None:
        self._all = telemetries

    def hooks(self, flow: str) -> Sequence[Hooks[object]]:
        """Those of all."""
        return tuple(hooks for each in self._all for hooks in each.hooks(flow))

    def tags(self) -> Mapping[str, str]:
        """Those of all; of two that have one name the last."""
        return {name: text for each in self._all for name, text in each.tags().items()}

    @contextmanager
    def watch(self, measures: Measures) -> Generator[None]:
        """All of them watch."""
        with ExitStack() as stack:
            for each in self._all:
                stack.enter_context(each.watch(measures))
            yield

    def accepted(self, run: Run) -> None:
        """All are told."""
        for each in self._all:
            each.accepted(run)

    @contextmanager
    def execution(self, run: Run) -> Generator[Tell]:
        """Within that of the first is that of the second, and so on."""
        with ExitStack() as stack:
            told = [stack.enter_context(each.execution(run)) for each in self._all]

            def tell(event: Event) -> None:
                for each in told:
                    each(event)

            yield tell

    def ended(self, run: Run, status: Status, seconds: float) -> None:
        """All are told."""
        for each in self._all:
            each.ended(run, status, seconds)

    def recovered(self, run: Run) -> None:
        """All are told."""
        for each in self._all:
            each.recovered(run)

    def parked(self, run: Run) -> None:
        """All are told."""
        for each in self._all:
            each.parked(run)


def _heed_nothing(event: Event) -> None:
    pass
