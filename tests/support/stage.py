"""A world, and a store in it that every call opens anew, as a process of its own would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from flowneer_async import FlowBuilder, Result, ResumePlan, Status, VersionStore
from flowneer_async.testing import Crash, CrashingStore, FakeWorld
from flowneer_stores import MemoryStore, SqliteStore

State: TypeAlias = dict[str, Any]
Flow: TypeAlias = FlowBuilder[State]

RUN = "r"


class Stage:
    """One run, `r`, in a world whose clock the test moves; `options` are those of `with_versioned_checkpoint`."""

    def __init__(self, kind: str, folder: Path, **options: Any) -> None:
        self.world, self.options = FakeWorld(), options
        self._file = folder / "runs.db" if kind == "sqlite" else None
        self._memory = MemoryStore(now=self.world.now)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[VersionStore]:
        """The store, as a new process opens it."""
        if self._file is None:
            yield self._memory
        else:
            async with SqliteStore(self._file, now=self.world.now) as store:
                yield store

    @asynccontextmanager
    async def on(self, flow: FlowBuilder[Any]) -> AsyncIterator[FlowBuilder[Any]]:
        """The flow on the store."""
        async with self.store() as store:
            yield flow.with_versioned_checkpoint(store, **self.options)

    async def run(self, flow: FlowBuilder[Any], state: Any = None, **more: Any) -> Result[Any]:
        """Start or go on in a process of its own; the state is a new dict, unless it is given."""
        async with self.on(flow) as stored:
            return await stored.run({} if state is None else state, run_id=RUN, world=self.world, **more)

    async def resume(self, flow: FlowBuilder[Any], **more: Any) -> Result[Any]:
        """Go on in a process of its own."""
        async with self.on(flow) as stored:
            return await stored.resume(RUN, world=self.world, **more)

    async def signal(self, flow: FlowBuilder[Any], name: str, payload: object = None) -> None:
        """Send a signal from a process of its own."""
        async with self.on(flow) as stored:
            await stored.signal(RUN, name, payload)

    async def plan(self, flow: FlowBuilder[Any]) -> ResumePlan:
        """What going on would do."""
        async with self.on(flow) as stored:
            return await stored.plan_resume(RUN)

    async def fork(self, flow: FlowBuilder[Any], seq: int, run_id: str) -> Result[Any]:
        """A fork from version number `seq`."""
        async with self.store() as store:
            forked = flow.with_versioned_checkpoint(store, **self.options).resume_from(f"{RUN}@{seq}", store)
            return await forked.run(run_id=run_id, world=self.world)

    async def crash(
        self, flow: FlowBuilder[Any], at: int, how: Literal["before", "after"] = "before", **more: Any
    ) -> bool:
        """Start or go on in a process that dies at its commit number `at`; did it come to that?

        Its first commit is the one that creates or claims the run.
        """
        async with self.store() as store:
            crashing = CrashingStore(store, at, how)
            try:
                stored = flow.with_versioned_checkpoint(crashing, **self.options)
                await stored.run({}, run_id=RUN, world=self.world, **more)
            except Crash:
                return True
            except Exception:
                # What a process that lives on raises is for those to see that call `run`.
                return crashing.crashed
            return False

    async def status(self) -> Status:
        """How the run is stored to stand."""
        async with self.store() as store:
            return (await store.read(RUN)).status

    async def paths(self) -> list[str]:
        """The path of each version of the run, but for its root."""
        async with self.store() as store:
            return [version.path for version in await store.versions(RUN)][1:]
