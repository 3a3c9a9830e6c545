"""A server that crashes and comes back, again and again, under many flows that nobody helps."""

import asyncio
import os
import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flowneer_async import Context, FlowBuilder
from flowneer_stores import MemoryStore, PostgresStore
from tests.support.chains import stored_versions
from tests.support.postgres import Own, server, store_at
from tests.support.witness import Note, Noting, Reader, by_run, check_kept, check_owners

SECONDS = 5.0  # in which there has to be progress after a restart
STEPS = ("1", "2", "3", "4", "5", "6")

State = dict[str, Any]


class World(NamedTuple):
    """What steps work with: how long they take at most, and who is told of their effects."""

    pause: float
    noting: Noting | None = None


async def work(state: State, ctx: Context[World]) -> None:
    """An effect in the middle of some time, then a change."""
    pause, noting = ctx.deps
    await asyncio.sleep(random.uniform(0, pause))
    if noting is not None:
        noting.note("did", ctx.step)
    state["done"].append(ctx.step)


def flow() -> FlowBuilder[State]:
    """Some steps, a signal that is waited for, and some steps more."""
    flow: FlowBuilder[State] = FlowBuilder("restarted")
    for name in STEPS[:3]:
        flow = flow.then(work, name=name)
    flow = flow.wait_for("go", into="got")
    for name in STEPS[3:]:
        flow = flow.then(work, name=name)
    return flow


async def to_its_end(store: Any, run_id: str, world: World) -> State:
    """Run it until it waits, send what it waits for, and go on."""
    stored = flow().with_versioned_checkpoint(store)
    assert (await stored.run({"done": []}, run_id=run_id, deps=world)).status == "waiting"
    await stored.signal(run_id, "go", run_id)
    result = await stored.resume(run_id, deps=world)
    assert (result.status, result.state) == ("completed", {"done": list(STEPS), "got": run_id})
    return result.state


async def test_flows_go_on_when_the_server_is_restarted(tmp_path: Path) -> None:
    """They end as if nothing had been, and nothing that was acknowledged is lost."""
    await restart(tmp_path, flows=20, restarts=2, pause=0.1)


@pytest.mark.torture
async def test_two_hundred_flows_go_on_when_the_server_is_restarted_over_and_over(tmp_path: Path) -> None:
    """The same for two hundred flows at once, and thirty restarts, each a few seconds after the one before."""
    await restart(tmp_path, flows=200, restarts=30, pause=1.0)


async def restart(folder: Path, flows: int, restarts: int, pause: float) -> None:
    if not isinstance(server(), Own):
        pytest.skip("the server was given, and is not ours to restart")
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"KILL_SEED={seed}")  # shown where the test fails
    moments = random.Random(seed)
    with closing(Reader(folder / "witness")) as reader:
        async with store_at(folder, lease=1.0) as store:
            crowd = Crowd(store, reader, pause)
            await crash(crowd, flows, [moments.randint(1, 5 * flows) for _ in range(restarts)])
            await check(store, crowd.read())


async def crash(crowd: "Crowd", flows: int, versions: Sequence[int]) -> None:
    """Let them work, and crash the server each time that so many versions more are stored."""
    async with asyncio.TaskGroup() as group:
        for number in range(flows):
            group.create_task(crowd.work(number))
        for more in versions:
            await crowd.progress(more)
            await asyncio.to_thread(server().restart)
            async with asyncio.timeout(SECONDS):
                await crowd.progress(1)
        crowd.is_over = True


class Crowd:
    """So many flows at once: where one ends, the next begins, until it is over."""

    def __init__(self, store: PostgresStore, reader: Reader, pause: float) -> None:
        self._store, self._reader, self._pause = store, reader, pause
        self._notes: list[Note] = []
        self._kept = 0
        self.is_over = False

    async def work(self, number: int) -> None:
        """Do one after the other."""
        turn = 0
        while not self.is_over:
            run_id = f"run-{number}-{turn}"
            noting = Noting(self._store, self._reader.witness, run_id)
            await to_its_end(noting, run_id, World(self._pause, noting))
            noting.note("ended")
            turn += 1

    async def progress(self, versions: int) -> None:
        """Wait until so many versions more have been acknowledged."""
        self.read()
        end = self._kept + versions
        while self._kept < end:
            await asyncio.sleep(0.01)
            self.read()

    def read(self) -> list[Note]:
        """All that was noted so far."""
        more = self._reader.more()
        self._notes += more
        self._kept += sum(note.kind == "kept" for note in more)
        return self._notes


async def check(store: PostgresStore, notes: Sequence[Note]) -> None:
    """Each run has done each step once, with all its versions, and its signal once."""
    undisturbed = MemoryStore()
    await to_its_end(undisturbed, "r", World(0))
    paths = [version.path for version in await undisturbed.versions("r")]
    for run_id, told in by_run(notes).items():
        check_owners(told)
        await check_kept(store, run_id, told)
        versions = await stored_versions(store, run_id)
        assert [version.path for version in versions] == paths
        assert sum(note.kind == "kept" for note in told) == len(versions)
        assert [note.said for note in told if note.kind == "did"] == list(STEPS)
        assert (await store.read(run_id)).status == "completed"
        assert len(await store.signals(run_id)) == 1
    assert await store.counts() == {"completed": len(by_run(notes))}
