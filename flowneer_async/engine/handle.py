"""What whoever has started a run can do with it, in whichever process it goes on."""

from collections.abc import AsyncGenerator, Awaitable
from typing import Generic, Protocol

from flowneer_async.answers import NO_ANSWER
from flowneer_async.engine.run_events import RunEvent
from flowneer_async.flow import FlowBuilder
from flowneer_async.runner import Result
from flowneer_async.steps import S
from flowneer_async.store import VersionStore
from flowneer_async.versions import Run


class Owner(Protocol):
    """The engine that a handle is of."""

    @property
    def store(self) -> VersionStore:
        """The store of its runs."""
        ...

    def result_of(self, flow: FlowBuilder[S], run_id: str) -> Awaitable[Result[S]]:
        """How a run ended, once it has."""
        ...

    def events_of(
        self, flow: FlowBuilder[S], run_id: str, after: str | None, live: bool
    ) -> AsyncGenerator[RunEvent, None]:
        """What happens in a run."""
        ...

    async def cancel(self, run_id: str) -> bool:
        """Cancel a run."""
        ...

    async def signal(self, run_id: str, name: str, payload: object = None) -> None:
        """Send a signal to a run."""
        ...

    async def resume(self, run_id: str, answer: object = NO_ANSWER, at: str | None = None) -> object:
        """Go on with a run."""
        ...


class Handle(Generic[S]):
    """A run of `flow` that an engine has accepted: it is stored, and goes on whether or not anybody waits for it."""

    def __init__(self, owner: Owner, flow: FlowBuilder[S], run_id: str) -> None:
        self._owner, self.flow, self.run_id = owner, flow, run_id

    def __repr__(self) -> str:
        return f"Handle({self.flow.name!r}, {self.run_id!r})"

    async def run(self) -> Run:
        """The run as it is stored now; raises UnknownRun where it was purged."""
        return await self._owner.store.read(self.run_id)

    async def result(self) -> Result[S]:
        """How the run ended: waits until it is completed, however often it is put down meanwhile.

        To stop waiting leaves the run alone. Raises NotCompleted, from what a step raised if that was in this process;
        UnknownRun, and EngineStopped where the engine is left first.
        """
        return await self._owner.result_of(self.flow, self.run_id)

    def events(self, after: str | None = None, *, live: bool = False) -> AsyncGenerator[RunEvent, None]:
        """What happens in the run, in whichever process, after the event of id `after`, or from the beginning.

        Ends with the run, and when the engine is left. With `live` also what steps emit, while this process works on
        the run: that is not stored, so it is told once, to those who listen. Raises BadOption, UnknownRun.
        """
        return self._owner.events_of(self.flow, self.run_id, after, live)

    async def cancel(self) -> bool:
        """Cancel the run, and those that its steps have called; False where it was over."""
        return await self._owner.cancel(self.run_id)

    async def signal(self, name: str, payload: object = None) -> None:
        """Send it a signal; raises BadSignal, StateNotSerializable, UnknownRun."""
        await self._owner.signal(self.run_id, name, payload)

    async def resume(self, answer: object = NO_ANSWER, at: str | None = None) -> None:
        """Go on with it after it has failed, was cancelled or parked, or with the answer that it waits for."""
        await self._owner.resume(self.run_id, answer, at)
