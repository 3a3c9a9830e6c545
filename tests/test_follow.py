"""Reading along with a run while it goes on, in this process or another one."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import Context, FlowBuilder, FlowError, UnknownRun, Version
from flowneer_stores import SqliteStore
from flowneer_stores.methods import Methods
from tests.support.stores import KINDS, opened

ROOT = Path(__file__).parent.parent
COUNTING = """
import asyncio, sys
from flowneer_async import FlowBuilder
from flowneer_stores import SqliteStore

def count(state):
    state["n"] += 1

async def main():
    async with SqliteStore(sys.argv[1]) as store:
        flow = FlowBuilder("counting").loop(lambda s: s["n"] < 20, lambda body: body.start_with(count), name="l")
        await flow.with_versioned_checkpoint(store).run({"n": 0}, run_id="r")

asyncio.run(main())
"""


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Methods]:
    async with opened(request.param, tmp_path) as store:
        assert isinstance(store, Methods)
        yield store


async def wait(state: dict[str, Any], ctx: Context[asyncio.Queue[None]]) -> None:
    state["n"] += 1
    await ctx.deps.get()


three = FlowBuilder("three").start_with(wait, name="a").then(wait, name="b").then(wait, name="c")


def read_along(store: Methods, seen: list[Version], after: int = -1) -> "asyncio.Task[None]":
    async def read() -> None:
        async with aclosing(store.follow("r", after)) as versions:
            async for version in versions:
                seen.append(version)  # noqa: PERF401 - each as soon as it comes

    return asyncio.create_task(read())


async def until(is_so: object) -> None:
    while not is_so():  # type: ignore[operator]
        await asyncio.sleep(0.001)


async def test_a_version_is_read_as_soon_as_it_is_stored(store: Methods) -> None:
    """While the run waits for its next step to end, all before are there; at its end there is no more."""
    steps: asyncio.Queue[None] = asyncio.Queue()
    run = asyncio.create_task(three.with_versioned_checkpoint(store).run({"n": 0}, run_id="r", deps=steps))
    while (await store.runs()).runs == ():
        await asyncio.sleep(0)
    seen: list[Version] = []
    reading = read_along(store, seen)
    for number in range(3):
        await until(lambda count=number + 1: len(seen) == count)
        assert not run.done()
        steps.put_nowait(None)
    await run
    await reading
    assert seen == list(await store.versions("r"))


async def test_reading_begins_after_a_version(store: Methods) -> None:
    """What was read before is not read again; of a run that is over there is only the rest."""
    steps: asyncio.Queue[None] = asyncio.Queue()
    for _ in range(3):
        steps.put_nowait(None)
    await three.with_versioned_checkpoint(store).run({"n": 0}, run_id="r", deps=steps)
    seen: list[Version] = []
    await read_along(store, seen, after=1)
    assert [version.seq for version in seen] == [2, 3]


async def test_a_run_that_fails_is_over(store: Methods) -> None:
    """Its versions are read, and then no more is waited for."""

    def fail(state: dict[str, Any]) -> None:
        raise ValueError

    flow = FlowBuilder("failing").start_with(fail).with_versioned_checkpoint(store)
    with pytest.raises(FlowError):
        await flow.run({"n": 0}, run_id="r")
    seen: list[Version] = []
    await read_along(store, seen)
    assert seen[0].id == "r@0"


async def test_a_run_that_waits_is_waited_for(store: Methods) -> None:
    """The reader goes on when the run does."""
    flow = FlowBuilder("waiting").wait_for("go").then(lambda state: None, name="end").with_versioned_checkpoint(store)
    await flow.run({"n": 0}, run_id="r")
    seen: list[Version] = []
    reading = read_along(store, seen)
    await until(lambda: seen)
    await flow.signal("r", "go")
    await flow.resume("r")
    await reading
    assert seen[-1].path == "end"


async def test_what_is_pruned_meanwhile_is_passed_over(store: Methods) -> None:
    """Numbers may be left out, and the rest comes all the same."""
    flow = FlowBuilder("waiting").wait_for("go").with_versioned_checkpoint(store, durability="sync")
    await flow.run({"n": 0}, run_id="r")
    seen: list[Version] = []
    reading = read_along(store, seen)
    await until(lambda: seen)
    await store.prune(keep=1)
    await flow.signal("r", "go")
    await flow.resume("r")
    await reading
    assert seen[-1].id == f"r@{(await store.read('r')).head}"


async def test_a_run_that_is_purged_is_no_more(store: Methods) -> None:
    """Whoever reads along is told so, and not left to wait."""
    flow = FlowBuilder("waiting").wait_for("go").with_versioned_checkpoint(store)
    await flow.run({"n": 0}, run_id="r")
    seen: list[Version] = []
    reading = read_along(store, seen)
    await until(lambda: seen)
    await store.purge("r")
    with pytest.raises(UnknownRun):
        await reading
    with pytest.raises(UnknownRun):
        await read_along(store, seen)


async def test_what_another_process_stores_is_read(tmp_path: Path) -> None:
    """It makes no difference who is at the run."""
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as store:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", COUNTING, str(path))
        while (await store.runs()).runs == ():
            await asyncio.sleep(0.01)
        seen: list[Version] = []
        await read_along(store, seen)
        assert [version.seq for version in seen] == list(range(21))
        assert await child.wait() == 0
