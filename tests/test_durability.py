"""What is stored, and when, under each durability."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from flowneer_async import Context, FlowBuilder, FlowError, StoreFull, Version, VersionStore
from flowneer_async.testing import FakeWorld
from flowneer_stores import SqliteStore
from tests.support.chains import stored_snapshots, stored_states
from tests.support.children import run_child, undisturbed_states
from tests.support.stores import KINDS, Guarded, opened

State = dict[str, Any]
Durability = Literal["sync", "async", "exit"]
DURABILITIES: tuple[Durability, ...] = ("sync", "async", "exit")

every_store = pytest.mark.parametrize("kind", KINDS)
every_durability = pytest.mark.parametrize("durability", DURABILITIES)


class Crash(BaseException):
    """What no step and no store catches."""


@dataclass
class At:
    """Deps: what happens in the step that it names (`*`: in each)."""

    step: str | None
    act: Callable[[], Awaitable[None]]
    calls: int = 0


async def count(state: State, ctx: Context[At]) -> None:
    ctx.deps.calls += 1
    if ctx.deps.step in (ctx.step, "*"):
        await ctx.deps.act()
    state["n"] = state.get("n", 0) + 1


def counting(store: VersionStore, durability: Durability, steps: int = 6) -> FlowBuilder[State]:
    flow: FlowBuilder[State] = FlowBuilder("flow")
    for index in range(steps):
        flow = flow.then(count, name=f"s{index}")
    return flow.with_versioned_checkpoint(store, durability=durability)


async def nothing() -> None:
    pass


async def fail() -> None:
    raise OSError


async def crash() -> None:
    raise Crash


async def take_turns() -> None:
    """Let what goes on in the background come as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def be_cancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def expected(durability: Durability, done: int) -> list[int]:
    """The step indexes stored of a run that has done so many steps, and was told to end."""
    if durability == "exit" and done:
        return [-1, done - 1]
    return list(range(-1, done))


@every_store
@every_durability
async def test_a_complete_run_is_stored_whole(kind: str, durability: Durability, tmp_path: Path) -> None:
    """When `run` returns, the final state is stored: with every version before it, or, under exit, alone."""
    async with opened(kind, tmp_path) as store:
        result = await counting(store, durability).run({}, run_id="r", deps=At(None, nothing))
        snapshots = await stored_snapshots(store, "r")
        assert [s.step_index for s in snapshots] == expected(durability, 6)
        assert snapshots[-1].state == result.state == {"n": 6}
        assert result.version == f"r@{len(snapshots) - 1}"
        assert (await store.read("r")).status == "completed"


@every_store
@every_durability
@pytest.mark.parametrize("done", [0, 3, 5])
@pytest.mark.parametrize(
    ("act", "error", "status"),
    [(fail, FlowError, "failed"), (be_cancelled, asyncio.CancelledError, "cancelled"), (crash, Crash, "running")],
)
async def test_what_was_done_is_stored_however_the_run_ends(
    kind: str,
    durability: Durability,
    done: int,
    act: Callable[[], Awaitable[None]],
    error: type[BaseException],
    status: str,
    tmp_path: Path,
) -> None:
    """Failed, cancelled or thrown out, a run stores the steps it has done and how it stands, and goes on after them."""
    async with opened(kind, tmp_path) as store:
        flow = counting(store, durability)
        task = asyncio.create_task(flow.run({}, run_id="r", deps=At(f"s{done}", act)))
        with pytest.raises(error):
            await task
        snapshots = await stored_snapshots(store, "r")
        assert [s.step_index for s in snapshots] == expected(durability, done)
        assert snapshots[-1].state == ({"n": done} if done else {})
        stored = await store.read("r")
        assert (stored.status, stored.owner) == (status, None)
        again = At(None, nothing)
        assert (await flow.run(run_id="r", deps=again)).state == {"n": 6}
        assert again.calls == 6 - done


@pytest.mark.parametrize(
    ("durability", "least", "most"), [("sync", 21, 21), ("async", 1, 21), ("exit", 1, 1)], ids=DURABILITIES
)
async def test_a_killed_process_loses_a_suffix_and_never_a_hole(
    durability: str, least: int, most: int, tmp_path: Path
) -> None:
    """After SIGKILL nothing is lost under sync, the last versions may be under async, all but the root under exit."""
    assert run_child(tmp_path, "r", durability, "20")[0] == -9
    async with SqliteStore(tmp_path / "runs.db") as store:
        stored, whole = await stored_states(store, "r"), await undisturbed_states()
        assert stored == whole[: len(stored)]
        assert least <= len(stored) <= most
    code, output = run_child(tmp_path, "r", durability)
    assert (code, output.split()[-2]) == (0, "done")
    async with SqliteStore(tmp_path / "runs.db") as store:
        assert (await stored_states(store, "r"))[-1] == whole[-1]


# Behind: what is special to async -------------------------------------------------------------------------------------


class Gate:
    """A guard that holds appends back until it is opened."""

    def __init__(self) -> None:
        self.opened = anyio.Event()

    async def __call__(self, versions: Sequence[Version]) -> None:
        await self.opened.wait()


async def calls_behind(gate: Gate, at: At, work: Coroutine[Any, Any, object]) -> int:
    """How many steps `work` does until it waits for the store, which then is opened for the rest."""
    task = asyncio.create_task(work)
    await anyio.wait_all_tasks_blocked()
    calls = at.calls
    gate.opened.set()
    await task
    return calls


async def test_the_store_is_at_most_64_versions_behind() -> None:
    """A run waits where 64 versions are not stored yet, and goes on when the store does."""
    gate, at = Gate(), At(None, nothing)
    store = Guarded(gate)
    work = counting(store, "async", 200).run({}, run_id="r", deps=at, world=FakeWorld())
    assert await calls_behind(gate, at, work) == 64
    assert await stored_states(store, "r") == [{}] + [{"n": n + 1} for n in range(200)]
    assert max(store.appended) <= 64


async def test_the_store_is_at_most_50_ms_behind() -> None:
    """A run waits where its oldest version not stored yet was made more than 50 ms ago."""
    gate, world = Gate(), FakeWorld()

    async def tick() -> None:
        world.move(0.051)

    at = At("s4", tick)
    work = counting(Guarded(gate), "async", 20).run({}, run_id="r", deps=at, world=world)
    assert (await calls_behind(gate, at, work), at.calls) == (5, 20)


async def test_versions_that_came_together_are_appended_together() -> None:
    """What was made while an append was under way is appended at once."""
    gate, at = Gate(), At(None, nothing)
    store = Guarded(gate)
    await calls_behind(gate, at, counting(store, "async", 10).run({}, run_id="r", deps=at, world=FakeWorld()))
    assert sum(store.appended) == 10  # the root is created with the run
    assert len(store.appended) <= 4


class Refusal:
    """A guard that fails at one version, once."""

    def __init__(self, seq: int, error: BaseException) -> None:
        self.seq, self.error, self.raised = seq, error, False

    async def __call__(self, versions: Sequence[Version]) -> None:
        if not self.raised and any(version.seq == self.seq for version in versions):
            self.raised = True
            raise self.error


@every_durability
@pytest.mark.parametrize("seq", [1, 3, 6])
@pytest.mark.parametrize("error", [StoreFull("runs.db"), RuntimeError("a bug of the store")], ids=repr)
@pytest.mark.parametrize("act", [nothing, take_turns])
async def test_a_failed_append_is_raised_as_it_is_and_leaves_no_hole(
    durability: Durability, seq: int, error: Exception, act: Callable[[], Awaitable[None]]
) -> None:
    """The store's error reaches the caller in no wrapper; nothing after it is stored; the run is not over."""
    if durability == "exit":
        seq = 1
    store = Guarded(Refusal(seq, error))
    flow = counting(store, durability)
    with pytest.raises(type(error)) as caught:
        await flow.run({}, run_id="r", deps=At("*", act), world=FakeWorld())
    assert caught.value is error
    stored = await stored_states(store, "r")
    assert stored == [{}, *({"n": n + 1} for n in range(6))][: len(stored)]
    assert len(stored) <= seq
    assert (await store.read("r")).status == "running"
    assert (await flow.run(run_id="r", deps=At(None, nothing))).state == {"n": 6}


async def test_a_step_that_failed_is_told_rather_than_the_store_that_fails_too() -> None:
    """Where a step and then the store fail, the caller gets the step's error, and the run can go on."""
    store = Guarded(Refusal(2, StoreFull("runs.db")))
    flow = counting(store, "async")
    with pytest.raises(FlowError):
        await flow.run({}, run_id="r", deps=At("s2", fail))
    assert (await store.read("r")).status == "running"
    assert (await flow.run(run_id="r", deps=At(None, nothing))).state == {"n": 6}


async def test_a_failed_append_stops_the_run_behind_it() -> None:
    """After an append has failed no further step but the one under way is done."""
    at = At("s3", take_turns)
    store = Guarded(Refusal(1, StoreFull("runs.db")))
    with pytest.raises(StoreFull):
        await counting(store, "async").run({}, run_id="r", deps=at)
    assert at.calls == 4
