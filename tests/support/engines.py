"""Engines on every kind of store under a clock that the test moves, and steps that say when they are at work."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from flowneer_async import Context, FlowBuilder, VersionStore
from flowneer_async.engine import Engine, Handle
from flowneer_async.policy import unix_ms
from flowneer_async.testing import FakeWorld
from flowneer_async.versions import OPEN
from flowneer_stores import MemoryStore, SqliteStore
from flowneer_stores.wrapper import Wrapper
from tests.support.postgres import store_at

State = dict[str, Any]
Flow = FlowBuilder[State]

CLOCKED = ("memory", "sqlite")
"""The stores that go by a clock which is given to them."""

_CALM = 50  # turns of the loop
_LEASE = 1e9  # seconds: however far the test moves the clock, no lease lapses


class Clock(FakeWorld):
    """A world whose time the test moves. It begins now, for PostgreSQL goes by a clock of its own."""

    def __init__(self, draws: Sequence[float] = (0.1, 0.9, 0.3, 0.7), start: int | None = None) -> None:
        super().__init__(unix_ms() if start is None else start, held=True, draws=draws)
        held = self.sleep

        async def sleep(seconds: float) -> None:
            # No time at all is over at once, though nobody moves the clock.
            await (held(seconds) if seconds > 0 else anyio.lowlevel.checkpoint())

        object.__setattr__(self, "sleep", sleep)


class Watched(Wrapper):
    """A store that knows when it is asked nothing any more: then the engines have done all that they could.

    Before and after each answer it waits so many turns of the loop as `turns` says, over and over.
    """

    def __init__(self, store: VersionStore, turns: Sequence[int] = (0,)) -> None:
        super().__init__(store)
        self._turns = cycle(turns)
        self.calls: Counter[str] = Counter()
        self._open = 0
        self._idle = anyio.Event()

    async def quiet(self) -> None:
        """Wait until nothing has been asked for a while."""
        calm = 0
        while calm < _CALM:
            if self._open:
                calm, self._idle = 0, anyio.Event()
                await self._idle.wait()
            calm += 1
            await anyio.lowlevel.checkpoint()

    @asynccontextmanager
    async def asked(self, name: str) -> AsyncGenerator[None, None]:
        """Somebody asks this store for something."""
        self.calls[name] += 1
        self._open += 1
        try:
            await pass_turns(next(self._turns))
            yield
            await pass_turns(next(self._turns))
        finally:
            self._open -= 1
            self._idle.set()


def _watched(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    method = getattr(Wrapper, name)

    async def ask(self: Watched, *args: Any, **options: Any) -> Any:
        async with self.asked(name):
            return await method(self, *args, **options)

    return ask


_ASKED = "create claim append release read chain versions send signals ask_cancel due find count drop purge"
for _name in _ASKED.split():
    setattr(Watched, _name, _watched(_name))


class Work:
    """What steps do: `step` waits until it is let go; who is at work at a time is counted by the key in their state."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        """The runs in the order in which their steps began."""
        self.at_work: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        """How many were at work at the same time at most: of each key, of each flow, and ("") of all."""
        self._let: set[str] = set()
        self._changed = anyio.Event()

    async def step(self, state: State, ctx: Context[Any]) -> None:
        """A step that is at work until its run is let go."""
        with self.counted(state, ctx):
            await self._until(lambda: not {ctx.run_id, ""}.isdisjoint(self._let))

    async def quick(self, state: State, ctx: Context[Any]) -> None:
        """A step that is at work for some turns of the loop."""
        with self.counted(state, ctx):
            await pass_turns(state.get("turns", 3))

    def let(self, run_id: str = "") -> None:
        """Let a run go on; without an id every one, from now on."""
        self._let.add(run_id)
        self._change()

    async def begins(self, *run_ids: str) -> None:
        """Wait until the steps of these runs have begun."""
        await self._until(lambda: set(run_ids) <= set(self.begun))

    @contextmanager
    def counted(self, state: State, ctx: Context[Any]) -> Iterator[None]:
        """At work, as long as the block."""
        marks = ("", str(state.get("key", "")) or "no key")
        self.begun.append(ctx.run_id)
        self.at_work.update(marks)
        self.most |= self.at_work
        self._change()
        try:
            yield
        finally:
            self.at_work.subtract(marks)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def pass_turns(number: int) -> None:
    """Let so many turns of the loop pass."""
    for _ in range(number):
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def watched(
    kind: str, folder: Path, clock: FakeWorld, number: int = 1, turns: Sequence[int] = (0,)
) -> AsyncGenerator[list[Watched], None]:
    """So many stores of the kind at one place, as processes would have: but the memory is one."""
    async with AsyncExitStack() as stack:
        if kind == "memory":
            memory = MemoryStore(now=clock.now)
            yield [Watched(memory, turns) for _ in range(number)]
            return
        stores: list[Watched] = []
        for _ in range(number):
            sqlite = SqliteStore(folder / "runs.db", now=clock.now, lease=_LEASE)
            inner = sqlite if kind == "sqlite" else store_at(folder)
            stores.append(Watched(await stack.enter_async_context(inner)))
        yield stores


@asynccontextmanager
async def engines(
    kind: str,
    folder: Path,
    flows: Sequence[FlowBuilder[Any]],
    clock: FakeWorld,
    number: int = 1,
    turns: Sequence[int] = (0,),
    **options: Any,
) -> AsyncGenerator[list[Engine], None]:
    """So many engines of these flows, on stores at one place; what is at work when they are left is cancelled."""
    options = {"grace": 0, "world": clock} | options
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(watched(kind, folder, clock, number, turns))
        yield [await stack.enter_async_context(Engine(store, flows, **options)) for store in stores]


async def quiet(*some: Engine) -> None:
    """Wait until these engines have done all that they could at this time."""
    for _ in some:  # what the first one does last may give the second one something to do
        for engine in some:
            assert isinstance(engine.store, Watched)
            await engine.store.quiet()


async def pass_time(clock: FakeWorld, seconds: float, *some: Engine, step: float = 1.0) -> None:
    """Let so much time pass, and these engines do at each moment what they can."""
    for _ in range(round(seconds / step)):
        clock.move(step)
        await quiet(*some)


async def over(clock: FakeWorld, runs: Sequence[Handle[Any]], *some: Engine, most: float = 100) -> None:
    """Wait until these runs are over, and let time pass for that where it has to: `most` seconds."""
    await quiet(*some)
    while any([(await each.run()).status in OPEN for each in runs]):
        assert most > 0, [await each.run() for each in runs]
        await pass_time(clock, 0.5, *some, step=0.5)
        most -= 0.5


def calls(engine: Engine, name: str) -> int:
    """How often the store of this engine was called so."""
    assert isinstance(engine.store, Watched)
    return engine.store.calls[name]
