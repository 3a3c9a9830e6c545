"""What a function of the user's asks of the run through its context, for as long as it is called."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from flowneer_async.errors import StepOver, StoreNeeded
from flowneer_async.events import Chunk, Event, Waiting
from flowneer_async.memory import Memory
from flowneer_async.place import Suspended

Watch: TypeAlias = Callable[[Event], Awaitable[None]]


class Asking:
    """The port of one call, whose facts are kept under `path`; `note` stores what is new in the memory."""

    __slots__ = ("_asked", "_can_wait", "_is_over", "_memory", "_note", "_path", "_run_id", "_watch")

    def __init__(
        self,
        run_id: str,
        path: str,
        memory: Memory,
        watch: Watch | None,
        note: Callable[[str], Awaitable[None]],
        can_wait: bool,
    ) -> None:
        self._run_id, self._path, self._memory, self._watch = run_id, path, memory, watch
        self._note, self._can_wait = note, can_wait
        self._asked = 0
        self._is_over = False

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
            result = await call()
            self._check(step)
            memory.put(path, kind, result, f"the result {name!r} of {step!r}")
            await self._note(f"{path}/@once")
        return memory.get(path, kind)

    def _check(self, step: str) -> None:
        if self._is_over:
            raise StepOver(step, self._run_id)
