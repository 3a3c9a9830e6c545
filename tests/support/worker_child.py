"""One worker of several: it goes on with runs that nobody works on, begins new ones, and notes what it was told.

    python worker_child.py FOLDER HOST PLACE…

HOST is the name of its machine, "-" for that on which it really is. It begins no more runs once there is a file `last`
in the folder, and ends when all are finished.
"""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

from flowneer_async import Context, Fenced, FlowBuilder, RunBusy, StoreError, fragment
from flowneer_stores import owner
from flowneer_stores.methods import Methods
from tests.support.places import store_at
from tests.support.witness import Noting

LEASE = 0.4  # seconds
AT_ONCE = 4  # runs
PAUSE = 0.03  # seconds, at most, before and after an effect

State = dict[str, Any]
Step = Callable[[State, Context[Any]], Awaitable[None]]


class Nothing:
    """A world without memory, for the undisturbed run to compare with."""

    def note(self, kind: str, said: str) -> None:
        pass


def step(key: str, longest: float) -> Step:
    """An effect, in the middle of some time, then a change at `key`."""

    async def do(state: State, ctx: Context[Any]) -> None:
        await asyncio.sleep(random.uniform(0, longest))
        ctx.deps.note("did", ctx.step)
        await asyncio.sleep(random.uniform(0, longest))
        state[key].append(ctx.step)

    return do


def jobs(pause: float = PAUSE, long: float = 2 * LEASE) -> FlowBuilder[State]:
    """Short steps, one that may take longer than a lease, and two lanes."""
    flow: FlowBuilder[State] = FlowBuilder("jobs")
    for name in MAIN[:3]:
        flow = flow.then(step("log", pause), name=name)
    flow = flow.then(step("log", long), name=MAIN[3])
    lanes = [fragment().then(step(key, pause), name="1").then(step(key, pause), name="2") for key in "ab"]
    return flow.parallel(lanes, name="lanes").then(step("log", pause), name=MAIN[4])


MAIN = ("first", "second", "third", "long", "last")
LINES = (MAIN, ("lanes[0]/1", "lanes[0]/2"), ("lanes[1]/1", "lanes[1]/2"))
"""The steps of which each is done after the one before it."""


def durability_of(run_id: str) -> Literal["sync", "async"]:
    """Every third run is stored a little behind."""
    return "sync" if int(run_id.removeprefix("run-")) % 3 else "async"


def start() -> State:
    return {"log": [], "a": [], "b": []}


class Worker:
    """Works on some runs at once, for as long as there are any."""

    def __init__(self, store: Methods, folder: Path) -> None:
        self._store, self._folder, self._mine = store, folder, set[str]()

    async def work(self) -> None:
        while not await self._is_over():
            run_id = await self._found()
            if run_id is None:
                await asyncio.sleep(PAUSE)
                continue
            self._mine.add(run_id)
            await self._go_on(run_id)
            self._mine.remove(run_id)

    async def _is_over(self) -> bool:
        return self._is_last() and not await self._store.counts(status="running")

    def _is_last(self) -> bool:
        return (self._folder / "last").exists()

    async def _found(self) -> str | None:
        """A run that nobody works on; else a new one, which others may be about to begin too."""
        async with aclosing(self._store.every_run(status="running", owned=False)) as runs:
            async for run in runs:
                if run.run_id not in self._mine:
                    return run.run_id
        number = sum((await self._store.counts()).values())
        return None if self._is_last() or f"run-{number}" in self._mine else f"run-{number}"

    async def _go_on(self, run_id: str) -> None:
        noting = Noting(self._store, self._folder / "witness", run_id)
        flow = jobs().with_versioned_checkpoint(noting, durability=durability_of(run_id))
        try:
            await flow.run(start(), run_id=run_id, deps=noting)
        except RunBusy:
            return
        except Fenced:
            noting.note("fenced")
        except StoreError as error:
            noting.note("failed", type(error).__name__)
        else:
            noting.note("ended")


async def main(folder: str, host: str, *place: str) -> None:
    if host != "-":
        owner._host = lambda: host  # type: ignore[assignment]
    async with store_at(*place, lease=LEASE) as store:
        worker = Worker(store, Path(folder))
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker.work())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
