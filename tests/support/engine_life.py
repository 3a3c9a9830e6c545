"""What tests of the life of runs in an engine need: steps that hang, processes that are gone, and waiting."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from flowneer_async import Context, FlowBuilder, Run, RunFilter, VersionStore
from flowneer_async.testing import CrashingStore

State = dict[str, Any]
Flow = FlowBuilder[State]


class Steps:
    """A step to be used over and over: it notes that it begins, and hangs the `hang_at`-th time (from 1)."""

    def __init__(self, hang_at: int = 0) -> None:
        self.log: list[str] = []
        """The paths of the steps that have begun."""
        self.hung, self.go = anyio.Event(), anyio.Event()
        self.cut = 0
        """How many were cancelled while they hung."""
        self._hang_at = hang_at

    async def do(self, state: State, ctx: Context[Any]) -> None:
        """Change the state; half of it before it hangs."""
        self.log.append(ctx.step)
        state["half"] = state.get("half", 0) + 1
        if len(self.log) == self._hang_at:
            self.hung.set()
            try:
                await self.go.wait()
            except anyio.get_cancelled_exc_class():
                self.cut += 1
                raise
        del state["half"]
        state[ctx.step] = True


async def nothing(state: State) -> None:
    """A step that does nothing."""


def flow_of(name: str = "flow") -> Flow:
    """A flow on a plain dict, without steps."""
    return FlowBuilder[State](name)


async def abandon(store: VersionStore, flow: Flow, run_id: str, state: State | None = None) -> CrashingStore:
    """Begin a run in a process that works on it no more; it is gone when it is told to `die`."""
    process = CrashingStore(store)
    await flow.with_versioned_checkpoint(process).execution(state or {}, run_id=run_id).open()
    return process


@asynccontextmanager
async def limited(seconds: float = 30) -> AsyncIterator[None]:
    """A block that hangs fails; nothing in it depends on how long it takes."""
    with anyio.fail_after(seconds):
        yield


async def until(store: VersionStore, run_id: str, is_so: Callable[[Run], object]) -> Run:
    """The run, as soon as this is true of it."""
    async with store.changes(run_id) as changed:
        while not is_so(run := await store.read(run_id)):
            await changed()
        return run


def is_put_down(run: Run) -> bool:
    """Is it begun, not over, and nobody at it?"""
    return run.status == "waiting" and run.begun is not None


async def owned(store: VersionStore) -> int:
    """How many runs somebody works on."""
    return sum((await store.count(RunFilter(owned=True))).values())


async def paths(store: VersionStore, run_id: str) -> list[str]:
    """What each version after the root was made by."""
    return [version.path for version in await store.versions(run_id) if version.seq]
