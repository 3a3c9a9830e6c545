"""Cancelled at every point where a run waits, in every way: the chain stays whole, the store clean, the run goes on."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowneer_async import Context, FlowBuilder, Snapshot, VersionedCheckpointEntry, VersionStore
from flowneer_stores import SqliteStore
from tests.support.chains import stored_snapshots, stored_states
from tests.support.entries import DictStore
from tests.support.interrupt import MOMENTS, WAYS, Cancel, Moment, at_once, some_turns_later
from tests.support.stores import KINDS, opened

State = dict[str, Any]
STEPS = ("a", "b", "c")

every_store = pytest.mark.parametrize("kind", KINDS)
every_durability = pytest.mark.parametrize("durability", ["sync", "async", "exit"])
every_way = pytest.mark.parametrize("cancel", WAYS, ids=lambda way: way.__name__)
every_moment = pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)


async def step(state: State, ctx: Context[list[str]]) -> None:
    """An effect, some waiting, a change in two parts with waiting in between."""
    ctx.deps.append(ctx.step)
    state["begun"] = [*state.get("begun", []), ctx.step]
    await asyncio.sleep(0)
    state["ended"] = [*state.get("ended", []), ctx.step]


def flow_on(store: VersionStore, durability: Any = "sync") -> FlowBuilder[State]:
    flow: FlowBuilder[State] = FlowBuilder("flow")
    for name in STEPS:
        flow = flow.then(step, name=name)
    return flow.with_versioned_checkpoint(store, durability=durability)


def after(done: int) -> State:
    return {"begun": list(STEPS[:done]), "ended": list(STEPS[:done])} if done else {}


async def check_stored(store: VersionStore, run_id: str) -> None:
    """What is stored is the beginning of what an undisturbed run stores, or of it what durability exit keeps."""
    snapshots = await stored_snapshots(store, run_id)
    for snapshot in snapshots:
        assert snapshot == Snapshot(snapshot.step_index, after(snapshot.step_index + 1))
    assert snapshots == sorted(snapshots, key=lambda snapshot: snapshot.step_index)


async def check_goes_on(flow: FlowBuilder[State], run_id: str, done: list[str]) -> None:
    """The id run again ends as if undisturbed, with at most one step done twice."""
    result = await flow.run({}, run_id=run_id, deps=done)
    assert result.state == after(len(STEPS))
    assert set(done) == set(STEPS)
    assert len(done) <= len(STEPS) + 1


async def disturb(
    store: VersionStore, flow: FlowBuilder[State], cancel: Cancel, moment: Moment, first: int, times: int
) -> bool:
    """Cancel a run at its point number `first` and those after it, look at all that is left, and let it go on."""
    done, run_id = list[str](), f"r{first}"
    came_so_far = await cancel(flow.run({}, run_id=run_id, deps=done), range(first, first + times), moment)
    await check_stored(store, run_id)
    await check_goes_on(flow, run_id, done)
    return came_so_far


async def disturb_everywhere(store: VersionStore, durability: Any, cancel: Cancel, moment: Moment, times: int) -> int:
    """Do that at every point until a run ends before its point comes; beside each, another run goes its way."""
    flow, point, going_on = flow_on(store, durability), 0, True
    while going_on:
        beside = asyncio.create_task(flow.run({}, run_id=f"beside{point}", deps=[]))
        going_on = await disturb(store, flow, cancel, moment, point, times)
        assert (await beside).state == after(len(STEPS))
        await check_stored(store, f"beside{point}")
        point += 1
    return point


@every_store
@every_durability
@every_way
@every_moment
async def test_a_run_may_be_cancelled_at_any_point(
    kind: str, durability: str, cancel: Cancel, moment: Moment, tmp_path: Path
) -> None:
    """Cancelled at any await, as a task or by a scope, a run stores an unbroken prefix, and goes on to the same end."""
    async with opened(kind, tmp_path) as store:
        assert await disturb_everywhere(store, durability, cancel, moment, times=1) > len(STEPS)


@every_store
@every_durability
@every_way
@pytest.mark.parametrize(("moment", "times"), [(at_once, 4), (some_turns_later, 2)])
async def test_a_run_may_be_cancelled_again_while_it_ends(
    kind: str, durability: str, cancel: Cancel, moment: Moment, times: int, tmp_path: Path
) -> None:
    """Further cancellations while the first is being handled change nothing of that."""
    async with opened(kind, tmp_path) as store:
        assert await disturb_everywhere(store, durability, cancel, moment, times) > len(STEPS)


@every_store
async def test_a_cancelled_run_is_stored_as_cancelled(kind: str, tmp_path: Path) -> None:
    """Cancelled in a step, a run is stored as cancelled, without an owner."""

    async def stop(state: State, ctx: Context[asyncio.Event]) -> None:
        ctx.deps.set()
        await anyio.sleep_forever()

    async with opened(kind, tmp_path) as store:
        begun = asyncio.Event()
        flow = FlowBuilder("flow").then(stop).with_versioned_checkpoint(store)
        task = asyncio.create_task(flow.run({}, run_id="r", deps=begun))
        await begun.wait()
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        run = await store.read("r")
        assert (run.status, run.owner, run.head) == ("cancelled", None, 0)


@every_store
@every_durability
async def test_a_scope_that_is_cancelled_already_stores_a_run_at_its_beginning(
    kind: str, durability: str, tmp_path: Path
) -> None:
    """A run begun inside a cancelled scope or past a deadline leaves nothing half-done behind."""
    async with opened(kind, tmp_path) as store:
        flow, done = flow_on(store, durability), list[str]()
        with anyio.move_on_after(0):
            await flow.run({}, run_id="r", deps=done)
        await check_stored(store, "r")
        await check_goes_on(flow, "r", done)


@every_store
async def test_a_timeout_around_a_run_is_told_as_one(kind: str, tmp_path: Path) -> None:
    """`asyncio.timeout` and `anyio.fail_after` around a run raise TimeoutError, and the run goes on later."""

    async def slow(state: State, ctx: Context[Callable[[], None] | None]) -> None:
        if ctx.deps is not None:
            ctx.deps()
            await anyio.sleep_forever()

    async with opened(kind, tmp_path) as store:
        flow = FlowBuilder("flow").then(slow).with_versioned_checkpoint(store)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60) as timeout:
                await flow.run({}, run_id="r1", deps=lambda: timeout.reschedule(0))
        with pytest.raises(TimeoutError):
            with anyio.fail_after(60) as scope:
                await flow.run({}, run_id="r2", deps=lambda: setattr(scope, "deadline", 0))
        for run_id in ("r1", "r2"):
            assert (await store.read(run_id)).status == "cancelled"
            assert (await flow.run(run_id=run_id)).status == "completed"


@every_store
async def test_a_step_may_swallow_its_cancellation(kind: str, tmp_path: Path) -> None:
    """A step that catches a cancellation and returns has ended well: the run goes on."""

    async def stubborn(state: State) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            state["caught"] = True
            task.uncancel()

    async with opened(kind, tmp_path) as store:
        flow = FlowBuilder("flow").then(stubborn).with_versioned_checkpoint(store)
        assert (await asyncio.create_task(flow.run({}, run_id="r"))).state == {"caught": True}


@every_durability
async def test_many_runs_cancelled_together_leave_the_store_clean(durability: str, tmp_path: Path) -> None:
    """A hundred runs of one store, cancelled in the middle of a common commit, each keep a prefix and go on."""
    async with SqliteStore(tmp_path / "runs.db") as store:
        flow = flow_on(store, durability)
        done: dict[str, list[str]] = {f"r{number}": [] for number in range(100)}
        tasks = [asyncio.create_task(flow.run({}, run_id=run_id, deps=deps)) for run_id, deps in done.items()]
        while not any("b" in steps for steps in done.values()):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends[::2])
        assert not any(isinstance(end, BaseException) for end in ends[1::2])
        for run_id, deps in done.items():
            await check_stored(store, run_id)
            await check_goes_on(flow, run_id, deps)


# Told to end ----------------------------------------------------------------------------------------------------------


@every_durability
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_process_told_to_end_by_a_step_goes_on_later(
    durability: str, error: type[BaseException], tmp_path: Path
) -> None:
    """KeyboardInterrupt and SystemExit out of a step leave an unfinished run that the next process goes on with."""

    async def end(state: State) -> None:
        raise error

    async def first() -> None:
        async with SqliteStore(tmp_path / "runs.db") as store:
            flow = FlowBuilder("flow").then(step, name="a").then(end, name="b")
            await flow.with_versioned_checkpoint(store, durability=durability).run({}, run_id="r", deps=[])  # type: ignore[arg-type]

    with pytest.raises(error):
        asyncio.run(first())
    asyncio.run(second(tmp_path, durability))


@every_durability
def test_ctrl_c_stores_what_was_done(durability: str, tmp_path: Path) -> None:
    """SIGINT in a step is raised as KeyboardInterrupt, and the next process goes on with the run."""

    async def press(state: State) -> None:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    async def first() -> None:
        async with SqliteStore(tmp_path / "runs.db") as store:
            flow = FlowBuilder("flow").then(step, name="a").then(press, name="b")
            await flow.with_versioned_checkpoint(store, durability=durability).run({}, run_id="r", deps=[])  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first())
    asyncio.run(second(tmp_path, durability))


async def second(folder: Path, durability: str) -> None:
    async with SqliteStore(folder / "runs.db") as store:
        assert await stored_states(store, "r") == [after(0), after(1)]
        done: list[str] = []
        await flow_on(store, durability).run(run_id="r", deps=done)
        assert done == ["b", "c"]
        await check_stored(store, "r")


# A store of two methods -----------------------------------------------------------------------------------------------


class SlowDictStore(DictStore):
    """Its save waits in the middle, and tells which saves were begun, and which ended."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.ended = list[str](), list[str]()

    async def save(self, entry: VersionedCheckpointEntry) -> None:  # type: ignore[override]
        self.begun.append(entry.version)
        for _ in range(3):
            await asyncio.sleep(0)
        super().save(entry)
        self.ended.append(entry.version)


@every_way
@every_moment
@pytest.mark.parametrize("times", [1, 2, 4])
async def test_a_save_of_a_users_store_is_never_interrupted(cancel: Cancel, moment: Moment, times: int) -> None:
    """Cancelled at any await, a run lets the save that began come to its end, and begins no other."""
    point, going_on = 0, True
    while going_on:
        store, done = SlowDictStore(), list[str]()
        flow = FlowBuilder("flow").then(step, name="a").then(step, name="b").with_versioned_checkpoint(store)
        work: Coroutine[Any, Any, object] = flow.run({}, run_id="r", deps=done)
        going_on = await cancel(work, range(point, point + times), moment)
        assert store.begun == store.ended == [f"r@{number}" for number in range(len(store.begun))]
        states = [snapshot.state for snapshot in store.snapshots.values()]
        assert states == [after(number) for number in range(len(states))]
        if store.ended:
            result = await flow.resume_from(store.ended[-1], store).run(deps=done)
            assert result.state == after(2)
            assert len(done) <= 3
        point += 1
    assert point > 5
