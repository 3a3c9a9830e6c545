"""What a step may know of the run it is part of, and ask of it."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from flowneer_async.errors import BadStep, NoTransactions
from flowneer_async.events import Failure

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultTypeVar

    D_co = DefaultTypeVar("D_co", covariant=True, default=object)
else:
    D_co = TypeVar("D_co", covariant=True)

P = ParamSpec("P")
T = TypeVar("T")


class Port(Protocol):
    """What a context asks the run for."""

    async def emit(self, step: str, value: object) -> None:
        """Tell whoever watches the run."""
        ...

    async def interrupt(self, step: str, question: object) -> object:
        """The answer to a question, or the end of this attempt to run."""
        ...

    async def once(self, step: str, name: str, call: Callable[[], Awaitable[object]]) -> object:
        """What a call gave, now or before a crash."""
        ...

    def transaction(self, step: str, connection: type[T]) -> AbstractAsyncContextManager[T]:
        """A transaction that is committed with the version of the step; gives its connection."""
        ...


class _Alone:
    """The port of a context that was made by hand, for a step under test."""

    async def emit(self, step: str, value: object) -> None:
        pass

    async def interrupt(self, step: str, question: object) -> object:
        raise BadStep("none", self, "only a step of a running flow can ask, and no hook: ask in the step itself")

    async def once(self, step: str, name: str, call: Callable[[], Awaitable[object]]) -> object:
        return await call()

    def transaction(self, step: str, connection: type[T]) -> AbstractAsyncContextManager[T]:
        raise NoTransactions("a context that is not of a running step")


_ALONE = _Alone()


@dataclass(frozen=True, slots=True)
class Context(Generic[D_co]):
    """Given to a step that takes `(state, ctx)`.

    `step` is the step's path in the flow, `attempt` counts from 1. `deps` are the live objects (clients, sessions)
    that were passed to `run(…, deps=…)`; they are never stored. In a batch `item` is the item, and `index` its number;
    in a loop `index` is that of the iteration; elsewhere it is 0. In an `on_error` body, and for a `compensate`,
    `failure` names the step that failed.
    """

    run_id: str
    step: str
    attempt: int
    deps: D_co
    item: object = field(default=None, repr=False)
    index: int = 0
    failure: Failure | None = None
    _port: Port = field(default=_ALONE, repr=False, compare=False)

    @property
    def idempotency_key(self) -> str:
        """One key for this step of this run: the same in every retry, resume and process.

        A crash between a step's effect and its save runs the step again; an outside world that is told the key can
        tell the second call from a new one (as https://docs.stripe.com/api/idempotent_requests describes). Another
        iteration, item or visit is another key.
        """
        return f"{self.run_id}/{self.step}"

    async def emit(self, value: object) -> None:
        """Give `value` to whoever streams the run; waits while they are behind."""
        await self._port.emit(self.step, value)

    async def interrupt(self, question: object) -> object:
        """Ask somebody outside, and give their answer.

        At first the step ends here, and its changes to the state are taken back: the run is stored as waiting. After
        `flow.resume(run_id, answer=…)` the step begins anew, and this gives the answer. Both are kept as states are.
        Raises StoreNeeded.
        """
        return await self._port.interrupt(self.step, question)

    async def once(self, name: str, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `fn(*args, **kwargs)` gives, kept under `name`: should the step begin anew, it is not called again.

        The result is kept as states are. A crash between the call's effect and its save calls it again.
        """

        async def call() -> object:
            return await fn(*args, **kwargs)

        return cast(T, await self._port.once(self.step, name, call))

    @overload
    def transaction(self) -> AbstractAsyncContextManager[object]: ...
    @overload
    def transaction(self, connection: type[T]) -> AbstractAsyncContextManager[T]: ...
    def transaction(self, connection: type[object] = object) -> AbstractAsyncContextManager[object]:
        """A transaction in the store's database: `async with ctx.transaction() as connection`.

        What is done on the connection is committed together with the version of this step, or not at all. Where the
        block raises, it is rolled back at once; where the step fails after it, then. A step has one. To have it typed,
        name the class of the connection. Raises NoTransactions, StoreBusy, BadTransaction, and BadOption where the
        connection is of another class.
        """
        return self._port.transaction(self.step, connection)
