"""What a function of the user's asks of the run through its context, for as long as it is called."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import anyio

from flowneer_async.errors import BadOption, BadTransaction, NoTransactions, StepOver, StoreNeeded
from flowneer_async.events import Chunk, Event, Waiting
from flowneer_async.journal import Kept
from flowneer_async.memory import Memory
from flowneer_async.place import Suspended
from flowneer_async.transacted import StepTransaction

T = TypeVar("T")

Watch: TypeAlias = Callable[[Event], Awaitable[None]]

_COMMITTED = ("@fallback", "@undo")
"""Of the functions that are no steps, those that have a version to commit with: the step's, or one of their own."""


class Asking:
    """The port of one call, whose facts are kept under `path`; `note` stores what is new in the memory."""

    __slots__ = (
        "_asked",
        "_can_wait",
        "_is_over",
        "_journal",
        "_memory",
        "_note",
        "_path",
        "_run_id",
        "_storing",
        "_watch",
        "opened",
    )

    def __init__(
        self,
        run_id: str,
        path: str,
        memory: Memory,
        watch: Watch | None,
        note: Callable[[str], Awaitable[None]],
        can_wait: bool,
        journal: Kept | None,
    ) -> None:
        self._run_id, self._path, self._memory, self._watch = run_id, path, memory, watch
        self._note, self._can_wait, self._journal = note, can_wait, journal
        self._asked = 0
        self._is_over = False
        self._storing: anyio.Lock | None = None
        self.opened: StepTransaction | None = None
        """The transaction that was begun, and not rolled back by its block."""

    def end(self) -> None:
        """The call is over: what it has left behind can change nothing any more."""
        self._is_over = True

    async def emit(self, step: str, value: object) -> None:
        """Tell whoever watches the run."""
        if self._watch is not None and not self._is_over:
            await self._watch(Chunk(step, value))

    async def interrupt(self, step: str, question: object) -> object:
        """The answer to a question; raises Suspended where there is none yet."""
        self._check(step)
        memory, path, answer, ask = self._memory, self._path, f"answer{self._asked}", f"ask{self._asked}"
        self._asked += 1
        if memory.has(path, answer):
            return memory.get(path, answer)
        if not self._can_wait:
            raise StoreNeeded(step, self._run_id)
        before = memory.of(path).get(ask)
        memory.put(path, ask, question, f"the question of {step!r}")
        raise Suspended((Waiting("answer", path, question=question),), before == memory.of(path)[ask])

    async def once(self, step: str, name: str, call: Callable[[], Awaitable[object]]) -> object:
        """What a call gave, now or before a crash."""
        self._check(step)
        memory, path, kind = self._memory, self._path, f"once:{name}"
        if not memory.has(path, kind):
            self._check_storing(step)
            result = await call()
            async with self._alone():
                self._check(step)
                self._check_storing(step)
                memory.put(path, kind, result, f"the result {name!r} of {step!r}")
                await self._note(f"{path}/@once")
        return memory.get(path, kind)

    @asynccontextmanager
    async def transaction(self, step: str, connection: type[T]) -> AsyncGenerator[T, None]:
        """A transaction that is committed with the version of the step; gives its connection."""
        transaction = await self._begin(step)
        try:
            self._check(step)
            given = transaction.connection
            if not isinstance(given, connection):
                raise BadOption("connection", connection, f"that of this store is a {type(given).__qualname__}")
            yield given
            self._check(step)
            if not await transaction.is_open():
                raise self._bad(step, "its connection has ended it: leave that to the run, or raise to roll it back")
        except BaseException as error:
            await self.give_up(error)
            raise
        transaction.is_left = True

    def left(self, step: str) -> StepTransaction | None:
        """The transaction that the call has opened, now that it has returned."""
        if self.opened is not None and not self.opened.is_left:
            raise self._bad(step, "its block is still open: await what the step begins before it returns")
        return self.opened

    async def give_up(self, error: BaseException) -> None:
        """Roll back the transaction, if one was opened, for what the call has raised."""
        opened, self.opened = self.opened, None
        if opened is not None and not isinstance(error, GeneratorExit):  # then nothing can be awaited any more
            await opened.roll_back()

    async def _begin(self, step: str) -> StepTransaction:
        self._check(step)
        if self._journal is None:
            raise NoTransactions("a run that no store keeps")
        mark = self._path.rpartition("/")[2]
        if mark[:1] == "@" and mark not in _COMMITTED:
            raise self._bad(step, f"{mark!r} makes no version to commit it with: open it in the step")
        async with self._alone():
            if self.opened is not None:
                raise self._bad(step, "a step has one at most: do all that belongs together in one block")
            self.opened = await self._journal.begin_transaction()
            return self.opened

    def _alone(self) -> anyio.Lock:
        """One at a time: a result that is being stored, or a transaction that begins."""
        if self._storing is None:
            self._storing = anyio.Lock()
        return self._storing

    def _check_storing(self, step: str) -> None:
        if self.opened is not None:
            raise self._bad(step, "ctx.once stores its result at once: call it before the transaction begins")

    def _bad(self, step: str, reason: str) -> BadTransaction:
        return BadTransaction(step, self._run_id, reason)

    def _check(self, step: str) -> None:
        if self._is_over:
            raise StepOver(step, self._run_id)
