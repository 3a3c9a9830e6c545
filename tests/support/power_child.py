"""A process whose files are watched while it works on many runs at once; the log also says what the store was asked.

    python power_child.py FOLDER LIFE SYNC SETTINGS…

In life 1 it is killed before it closes the store; life 2 finds what that one left, and closes and opens the store in
between. In life 3 the sync of this number fails, and what meets that error is tried again. SETTINGS are pragmas
("synchronous = NORMAL"), each in the place of the store's own.
"""

import asyncio
import errno
import os
import pickle
import signal
import sys
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from flowneer_async import Context, FlowBuilder, FlowneerError, Lease, Run, Signal, Status, Version
from flowneer_stores import SqliteStore
from flowneer_stores.sqlite import connect
from tests.support.faulty_io import Faults
from tests.support.promised import Asked, Done

STEPS = 10
State = dict[str, Any]
Answer = TypeVar("Answer")


def step(state: State, ctx: Context) -> None:
    """Every third one changes half a page, the others a little."""
    index = int(ctx.step)
    state["log"].append(index)
    if index % 3 == 0:
        state[f"page-{index % 2}"] = f"{ctx.run_id} {index} " * 300


def ten_steps() -> FlowBuilder[State]:
    flow: FlowBuilder[State] = FlowBuilder("ten")
    for index in range(STEPS):
        flow = flow.then(step, name=str(index))
    return flow


class Noting(SqliteStore):
    """A store that notes what it is asked and what it has acknowledged."""

    def __init__(self, path: Path, faults: Faults) -> None:
        super().__init__(path)
        self._faults, self._asked = faults, 0

    async def _noted(self, method: str, run_id: str, data: Any, work: Awaitable[Answer]) -> Answer:
        self._asked += 1
        number = self._asked
        self._faults.note(pickle.dumps(Asked(number)))
        answer = await work
        kept = answer if method == "send" else data
        if method == "create" and answer is None:
            method = "refuse"
        self._faults.note(pickle.dumps(Done(number, method, run_id, kept)))
        return answer

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        return await self._noted("create", run.run_id, tuple(versions), super().create(run, versions))

    async def claim(self, run: Run) -> Lease:
        return await self._noted("claim", run.run_id, None, super().claim(run))

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        await self._noted("append", lease.run_id, tuple(versions), super().append(lease, versions))

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        await self._noted("release", lease.run_id, status, super().release(lease, status, error, seal, wake))

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        return await self._noted("send", run_id, None, super().send(run_id, name, payload, sent))

    async def drop(self, run_id: str, keep: int, since: int | None = None) -> int:
        return await self._noted("drop", run_id, keep, super().drop(run_id, keep, since))

    async def purge(self, run_id: str) -> None:
        await self._noted("purge", run_id, None, super().purge(run_id))


async def work(store: SqliteStore, *run_ids: str) -> None:
    """Do these runs at once, begun or not."""
    flow = ten_steps().with_versioned_checkpoint(store)
    await asyncio.gather(*(flow.run({"log": []}, run_id=run_id) for run_id in run_ids))


async def begin(store: SqliteStore, run_id: str) -> None:
    """Do half of a run, and leave it."""

    async def stop(state: State) -> None:
        raise asyncio.CancelledError

    flow: FlowBuilder[State] = FlowBuilder("ten")
    for index in range(STEPS):
        flow = flow.then(stop if index == STEPS // 2 else step, name=str(index))
    task = asyncio.create_task(flow.with_versioned_checkpoint(store).run({"log": []}, run_id=run_id))
    await asyncio.wait([task])


async def first_life(path: Path, faults: Faults) -> None:
    async with Noting(path, faults) as store:
        await asyncio.gather(work(store, "a", "b", "c"), begin(store, "half"))
        await store.send("half", "hello", b'"world"')
        await work(store, "gone")
        await asyncio.gather(store.purge("gone"), store.drop("a", 3), work(store, "d"))
        os.kill(os.getpid(), signal.SIGKILL)


async def second_life(path: Path, faults: Faults) -> None:
    async with Noting(path, faults) as store:
        await work(store, "half", "e")
        await store.drop("half", 1)
        await store.compact()
    async with Noting(path, faults) as store:
        await asyncio.gather(work(store, "f", "g"), store.send("b", "late", b"1"))


async def third_life(path: Path, faults: Faults) -> None:
    for runs in (("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d")):
        while not await insist(path, faults, *runs):
            pass


async def insist(path: Path, faults: Faults, *run_ids: str) -> bool:
    """Do these runs, and once more in the same store where they fail. False where the store cannot be opened."""
    with suppress(FlowneerError):
        async with Noting(path, faults) as store:
            with suppress(FlowneerError):
                await work(store, *run_ids)
            await work(store, *run_ids)
            return True
    return False


def main(folder: str, life: str, sync: str, *settings: str) -> None:
    changed = {setting.split()[0]: f"PRAGMA {setting}" for setting in settings}
    connect._SETTINGS = tuple(changed.get(setting.split()[1], setting) for setting in connect._SETTINGS)
    faults = Faults()
    faults.arm("S", int(sync), errno.EIO)
    work_on = {"1": first_life, "2": second_life, "3": third_life}[life]
    asyncio.run(work_on(Path(folder) / "runs.db", faults))


if __name__ == "__main__":
    main(*sys.argv[1:])
