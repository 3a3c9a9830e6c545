"""The faults of the library that this one comes from: each has a test that is named after it."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from math import inf, nan
from typing import Any

import anyio
import pytest

from flowneer_async import (
    Chunk,
    Context,
    FlowError,
    MergeConflict,
    StepDone,
    StoreFailed,
    UnknownAnchor,
    VersionedCheckpointEntry,
    diff,
)
from flowneer_async.store import resolve
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.chains import stored_states, stored_versions
from tests.support.children import ENVIRONMENT
from tests.support.entries import DictStore
from tests.support.exact import exact
from tests.support.traced import Flow, State, new, paths_of, piece, same_from_everywhere, steps, times, trace, tracing


def adds(**values: Any) -> Callable[[State], None]:
    """A step that sets these keys."""
    return lambda state: state.update(values)


def flaky(failures: int = 1) -> Callable[[State, Context[list[str]]], None]:
    """A step that fails so often, after it has left its mark."""

    def step(state: State, ctx: Context[list[str]]) -> None:
        ctx.deps.append(ctx.step)
        state["half"] = True
        if ctx.deps.count(ctx.step) <= failures:
            raise OSError
        del state["half"]

    return step


# The chain ------------------------------------------------------------------------------------------------------------


async def test_the_initial_state_is_not_in_the_chain() -> None:
    """It is: the first version holds it, whole; of a flow that does nothing, and for a store of two methods too."""
    start = {"url": "x", "deep": {"list": [1, 2]}}
    for flow in (tracing("a"), new()):
        store, entries = MemoryStore(), DictStore()
        await flow.with_versioned_checkpoint(store).run({**start}, run_id="r")
        await flow.with_versioned_checkpoint(entries).run({**start}, run_id="r")
        assert (await resolve(store, "r@0")).state == start
        assert entries.resolve("r@0").state == start
        assert entries.versions["r@0"].diff.changed == start
        assert (await flow.resume_from("r@0", store).run()).state.keys() >= start.keys()


async def test_a_deleted_key_is_lost() -> None:
    """It is told as removed, and gone from every later state; a key that is set to None is there, with None."""

    def delete(state: State) -> None:
        del state["gone"]
        state["none"] = None

    removed, emptied = diff({"a": 1, "b": None}, {"b": None}), diff({"a": 1}, {"a": None})
    assert removed is not None
    assert (removed.removed, removed.changed) == (("a",), {})
    assert emptied is not None
    assert (emptied.removed, emptied.changed) == ((), {"a": None})
    flow, end = new().then(delete).then(trace, name="z"), {"none": None, "trace": ["z"]}
    store, entries = MemoryStore(), DictStore()
    assert (await flow.with_versioned_checkpoint(store).run({"gone": 1, "none": 1}, run_id="r")).state == end
    await flow.with_versioned_checkpoint(entries).run({"gone": 1, "none": 1}, run_id="r")
    assert (await stored_states(store, "r"))[1:] == [{"none": None}, end]
    assert [snapshot.state for snapshot in entries.snapshots.values()][1:] == [{"none": None}, end]
    assert (await flow.resume_from("r@1", store).run()).state == end
    await same_from_everywhere(flow, lambda: {"gone": 1, "none": 1})


async def test_key_order_makes_false_diffs() -> None:
    """The order of the state's own keys is nothing that changes: a step that only moves them makes a marker."""

    def move(state: State) -> None:
        state["a"] = state.pop("a")

    assert not diff({"a": 1, "b": 2}, {"b": 2, "a": 1})
    store = MemoryStore()
    await new().then(move).with_versioned_checkpoint(store, skip_unchanged=True).run({"a": 1, "b": [2]}, run_id="r")
    assert await paths_of(store) == [""]
    entries = DictStore()
    await new().then(move).with_versioned_checkpoint(entries).run({"a": 1, "b": [2]}, run_id="r")
    assert list(entries.versions) == ["r@0"]


async def changed(before: Any, after: Any) -> list[Any]:
    """The states that a store holds of a step that makes one value of another."""
    store = MemoryStore()
    flow = new().then(adds(it=after), name="change").with_versioned_checkpoint(store, skip_unchanged=True)
    await flow.run({"it": before}, run_id="r")
    assert bool(diff({"it": before}, {"it": after}))
    return [state["it"] for state in await stored_states(store, "r")]


@pytest.mark.parametrize(("before", "after"), [(None, nan), (nan, None), (None, inf), (-inf, None), ([nan], [None])])
async def test_nan_equals_null(before: Any, after: Any) -> None:
    """They are two values: the change is stored, and each comes back as it was."""
    assert exact(await changed(before, after)) == exact([before, after])


async def test_nan_is_not_a_change_of_nan() -> None:
    """Though no NaN equals itself in Python."""
    store = MemoryStore()
    flow = new().then(adds(it=float("nan")), name="change").with_versioned_checkpoint(store, skip_unchanged=True)
    await flow.run({"it": float("nan")}, run_id="r")
    assert await paths_of(store) == [""]


TWINS: list[tuple[Any, Any]] = [
    (1, True),
    (True, 1),
    (0, False),
    (1, 1.0),
    (0.0, -0.0),
    ([1], [True]),
    ({"x": 1}, {"x": 1.0}),
]


@pytest.mark.parametrize(("before", "after"), TWINS, ids=str)
async def test_1_equals_true(before: Any, after: Any) -> None:
    """They are two values, whatever == says: the change is stored, and each comes back as it was."""
    assert exact(await changed(before, after)) == exact([before, after])


async def test_ids_restart_and_collide() -> None:
    """Each run has an id of its own, in every process: no version ever takes the place of another's."""
    script = (
        "import asyncio\n"
        "from flowneer_async import FlowBuilder\n"
        "from flowneer_stores import MemoryStore\n"
        "flow = FlowBuilder('flow').then(lambda state: state.update(a=1), name='a')\n"
        "flow = flow.with_versioned_checkpoint(MemoryStore())\n"
        "print(*(asyncio.run(flow.run({})).version for _ in range(3)))\n"
    )
    answers = [
        subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        for _ in range(2)
    ]
    assert [answer.stderr for answer in answers] == ["", ""]
    versions = [version for answer in answers for version in answer.stdout.split()]
    assert len(set(versions)) == 6
    assert all(version.endswith("@1") for version in versions)


@pytest.mark.parametrize("kind", [MemoryStore, DictStore])
async def test_two_concurrent_runs_share_one_chain(kind: Callable[[], Any]) -> None:
    """Chain and counter belong to the run: two runs of one flow, step by step in turn, have unbroken chains each."""
    store = kind()

    async def add(state: State) -> None:
        state["n"] += 1
        await asyncio.sleep(0)

    flow = new().then(add, name="a").then(add, name="b").then(add, name="c").with_versioned_checkpoint(store)
    results = await asyncio.gather(flow.run({"n": 0}, run_id="one"), flow.run({"n": 100}, run_id="two"))
    assert [(result.version, result.state) for result in results] == [("one@3", {"n": 3}), ("two@3", {"n": 103})]
    for run_id, first in (("one", 0), ("two", 100)):
        ids = [f"{run_id}@{seq}" for seq in range(4)]
        if isinstance(store, DictStore):
            entries: list[VersionedCheckpointEntry] = [store.versions[version] for version in ids]
            assert [entry.parent_version for entry in entries] == [None, *ids[:-1]]
            assert [store.resolve(version).state["n"] for version in ids] == [first + seq for seq in range(4)]
        else:
            assert [version.parent for version in await stored_versions(store, run_id)] == [None, *ids[:-1]]
            assert await stored_states(store, run_id) == [{"n": first + seq} for seq in range(4)]


async def test_a_resumed_runs_first_entry_has_no_parent() -> None:
    """Its parent is the version that it was resumed from, be it a fork, the same run, or in a store of two methods."""
    store, entries = MemoryStore(), DictStore()
    flow = tracing("a", "b", "c")
    await flow.with_versioned_checkpoint(store).run({}, run_id="r")
    await flow.resume_from("r@1", store).run(run_id="fork")
    assert [version.parent for version in await stored_versions(store, "fork")] == ["r@1", "fork@0", "fork@1"]
    failing = tracing("a").then(flaky(), name="b").then(trace, name="c").with_versioned_checkpoint(store)
    with pytest.raises(FlowError):
        await failing.run({}, run_id="s", deps=[])
    await failing.run(run_id="s", deps=["b"])
    assert [version.parent for version in await stored_versions(store, "s")] == [None, "s@0", "s@1", "s@2"]
    await flow.with_versioned_checkpoint(entries).run({}, run_id="r")
    await flow.resume_from("r@1", entries).run(run_id="fork")
    first = next(entry for entry in entries.versions.values() if entry.version.startswith("fork"))
    assert first.parent_version == "r@1"


# Going on -------------------------------------------------------------------------------------------------------------


async def test_a_jump_is_checkpointed_before_its_target_is_known() -> None:
    """The version of a step that jumps knows where it landed: the run goes on there, and not at the step after it."""
    flow = new().then(trace, name="a").then(lambda state: "#end", name="jump").then(trace, name="never")
    flow = flow.anchor("end").then(trace, name="z")
    store, entries = MemoryStore(), DictStore()
    await flow.with_versioned_checkpoint(store).run({}, run_id="r")
    await flow.with_versioned_checkpoint(entries).run({}, run_id="r")
    assert "jump" in await paths_of(store)
    await same_from_everywhere(flow)
    for version in list(entries.versions):
        result = await flow.resume_from(version, entries).run(run_id=f"from-{version.partition('@')[2]}")
        assert [path.partition("~")[0] for path in result.state["trace"]] == ["a", "z"]
    lost = new().then(trace, name="a").then(lambda state: "#nowhere", name="jump")
    with pytest.raises(UnknownAnchor):
        await lost.with_versioned_checkpoint(store).run({}, run_id="lost")
    assert await paths_of(store, "lost") == ["", "a"]


async def test_after_a_resume_every_backward_jump_skips_steps() -> None:
    """Steps before the version that a run goes on from are done again, if a jump leads there."""

    def thrice(state: State) -> str | None:
        state["n"] = state.get("n", 0) + 1
        return "#top" if state["n"] < 4 else None

    flow = new().anchor("top").then(trace, name="a").then(trace, name="b").then(thrice).then(trace, name="c")
    store = MemoryStore()
    kept = flow.with_versioned_checkpoint(store)
    whole = (await kept.run({}, run_id="r")).state["trace"]
    assert [path[0] for path in whole] == [*"abababab", "c"]
    for version in await stored_versions(store, "r"):
        assert (await kept.resume_from(version.id, store).run()).state["trace"] == whole
    entries = DictStore()
    await flow.with_versioned_checkpoint(entries).run({}, run_id="r")
    for version in list(entries.versions):
        result = await flow.resume_from(version, entries).run(run_id=f"from-{version.partition('@')[2]}")
        assert [path[0] for path in result.state["trace"]] == [path[0] for path in whole]


@pytest.mark.parametrize("kind", ["loop", "batch", "concurrent batch"])
async def test_steps_inside_loops_and_batches_never_checkpointed(kind: str) -> None:
    """Each makes a version with its iteration or item; a run that failed inside goes on there."""
    ready = asyncio.Event()

    async def work(state: State, ctx: Context[list[str]]) -> None:
        if ctx.step == "it[2]/work":
            await ready.wait()
        ctx.deps.append(ctx.step)
        if ctx.step == "it[2]/work" and ctx.deps.count(ctx.step) == 1:
            raise OSError
        state[ctx.step] = True
        if ctx.step == "it[1]/work":
            asyncio.get_running_loop().call_later(0, ready.set)

    forms: dict[str, Callable[[], Flow]] = {
        "loop": lambda: new().loop(times(4), work, name="it"),
        "batch": lambda: new().batch(lambda state: range(4), work, name="it"),
        "concurrent batch": lambda: new().batch(lambda state: range(4), work, name="it", concurrency=2),
    }
    store, calls = MemoryStore(), list[str]()
    flow = forms[kind]().with_versioned_checkpoint(store)
    with pytest.raises(FlowError) as caught:
        await flow.run({}, run_id="r", deps=calls)
    assert caught.value.step == "it[2]/work"
    assert {"it[0]/work", "it[1]/work"} <= set(steps(await paths_of(store)))
    result = await flow.run(run_id="r", deps=calls)
    assert result.state == {f"it[{number}]/work": True for number in range(4)}
    assert [calls.count(f"it[{number}]/work") for number in range(3)] == [1, 1, 2]


async def test_the_failed_step_is_marked_done() -> None:
    """It is not: its changes are not stored, and the run goes on at that very step."""
    store, calls = MemoryStore(), list[str]()
    flow = tracing("a").then(flaky(), name="b").then(trace, name="c").with_versioned_checkpoint(store)
    with pytest.raises(FlowError) as caught:
        await flow.run({}, run_id="r", deps=calls)
    assert caught.value.step == "b"
    assert await paths_of(store) == ["", "a"]
    assert (await store.read("r")).status == "failed"
    result = await flow.run(run_id="r", deps=calls)
    assert (calls, result.state) == (["b", "b"], {"trace": ["a", "c"]})


async def test_the_resume_hook_stays_on_the_flow_and_skips_steps_of_the_next_run() -> None:
    """A flow that is bound to a version is another flow; and itself it restores the same version each time."""
    store, calls = MemoryStore(), list[str]()

    async def note(state: State, ctx: Context[list[str]]) -> None:
        calls.append(ctx.step)

    flow = new().then(note, name="a").then(note, name="b").with_versioned_checkpoint(store)
    await flow.run({}, run_id="r")
    bound = flow.resume_from("r@1", store)
    for run, done in (
        (bound.run(), ["b"]),
        (flow.run({}), ["a", "b"]),
        (bound.run(run_id="x"), ["b"]),
        (flow.run({}), ["a", "b"]),
    ):
        calls.clear()
        await run
        assert calls == done


async def test_restored_state_keeps_keys_that_should_be_gone() -> None:
    """What a run goes on with is the state of the version, and not that put on top of another one."""

    def forget(state: State) -> None:
        del state["gone"]

    seen: list[State] = []
    flow = new().then(forget).then(lambda state: seen.append(dict(state)), name="look")
    for store in (MemoryStore(), DictStore()):
        await flow.with_versioned_checkpoint(store).run({"gone": 1, "kept": 2}, run_id="r")
        seen.clear()
        assert (await flow.resume_from("r@1", store).run()).state == {"kept": 2}
        assert seen == [{"kept": 2}]
    store = MemoryStore()
    kept = new().then(forget).then(flaky(), name="b").with_versioned_checkpoint(store)
    with pytest.raises(FlowError):
        await kept.run({"gone": 1, "kept": 2}, run_id="r", deps=[])
    state: State = {"gone": "again", "more": 3}
    assert (await kept.run(state, run_id="r", deps=["b"])).state == {"kept": 2}


async def test_a_failed_save_is_reported_as_a_failed_step() -> None:
    """It is the store's: no step is called again for it, nothing is undone, no on_error done, the run not over."""
    calls: list[str] = []

    class Full(DictStore):
        def save(self, entry: VersionedCheckpointEntry) -> None:
            if entry.step == "b":
                raise OSError("disk full")
            super().save(entry)

    class FullToo(MemoryStore):
        async def append(self, lease: Any, versions: Any) -> None:
            if versions[-1].path == "b":
                raise StoreFailed("a store", "append", "OSError")
            await super().append(lease, versions)

    def work(state: State, ctx: Context) -> None:
        calls.append(ctx.step)
        state["n"] = 1

    def rescue(state: State) -> None:
        calls.append("rescue")

    def undo(state: State) -> None:
        calls.append("undo")

    plain = new().then(trace, name="a", compensate=undo).then(work, name="b", retries=3, fallback=work)
    flow = plain.on_error(piece().then(rescue))
    for store in (Full(), FullToo()):
        calls.clear()
        with pytest.raises(StoreFailed):
            await flow.with_versioned_checkpoint(store).run({}, run_id="r")
        assert calls == ["b"]
    assert isinstance(store, FullToo)
    run = await store.read("r")
    assert (run.status, run.error) == ("running", None)


# Lanes, retries, streams ----------------------------------------------------------------------------------------------


async def test_parallel_lanes_share_one_mutable_object() -> None:
    """Each lane has a draft of its own: what one does is not seen by another, at any depth."""
    seen: list[Any] = []

    def lane(name: str) -> Callable[[State], Any]:
        async def work(state: State) -> None:
            state["list"].append(name)
            state["deep"]["list"].append(name)
            await asyncio.sleep(0)
            seen.append([list(state["list"]), list(state["deep"]["list"])])
            state[name] = state.pop("list")
            del state["deep"]

        work.__name__ = name
        return work

    start: State = {"list": [0], "deep": {"list": [0]}}
    kept_list = start["list"]
    await new().parallel([lane("x"), lane("y")]).run(start)
    assert seen == [[[0, "x"], [0, "x"]], [[0, "y"], [0, "y"]]]
    assert (start, kept_list) == ({"x": [0, "x"], "y": [0, "y"]}, [0])
    with pytest.raises(MergeConflict):
        await new().parallel([lane("x"), lane("x")]).run({"list": [0], "deep": {"list": [0]}})


async def test_lanes_that_time_out_go_on_mutating_it() -> None:
    """A lane that was cut off can change nothing any more, even if it does not end."""
    kept: list[State] = []

    async def stubborn(state: State) -> None:
        kept.append(state)
        state["late"] = "before"
        try:
            await asyncio.Event().wait()
        finally:
            state["late"] = "when it was cut off"

    flow = new().batch(lambda state: [0], stubborn, name="it", timeout=0.001, max_failures=1).then(trace)
    result = await flow.run({"list": [1]})
    kept[0]["late"] = "long after"
    kept[0]["list"].append(2)
    assert result.state == {"list": [1], "trace": ["trace"]}
    state: State = {"list": [1]}
    with pytest.raises(FlowError) as caught:
        await new().parallel([stubborn, trace], timeout=0.001, name="lanes").run(state)
    assert isinstance(caught.value.cause, TimeoutError)
    kept[1]["list"].append(2)
    assert state == {"list": [1]}


async def test_a_retry_starts_from_half_changed_state() -> None:
    """Each attempt begins with the state that was before the step, in the same object, wherever the step stands."""

    async def half(state: State, ctx: Context) -> None:
        assert "half" not in state
        assert state["list"] == [1]
        state["half"] = True
        state["list"].append(2)
        del state["gone"]
        if ctx.attempt < 3:
            raise OSError

    world = FakeWorld()
    forms: list[Flow] = [
        new().then(half, retries=2),
        new().loop(times(1), piece().then(half, retries=2), name="lo"),
        new().parallel([piece().then(half, retries=2)]),
        new().then(piece().then(adds(before=1), name="before").then(half, retries=2), name="sub"),
    ]
    for flow in forms:
        for kept in (flow, *(flow.with_versioned_checkpoint(store) for store in (MemoryStore(), DictStore()))):
            state: State = {"list": [1], "gone": 1}
            result = await kept.run(state, world=world)
            assert result.state is state
            state.pop("before", None)
            assert state == {"list": [1, 2], "half": True}


async def test_streams_of_two_runs_mix() -> None:
    """Each stream has the events of its own run, in their order, though both are of one flow at the same time."""

    async def count(state: State, ctx: Context) -> None:
        for number in range(3):
            await ctx.emit([state["name"], number])
            await anyio.lowlevel.checkpoint()

    async def letters(state: State) -> Any:
        for letter in "ab":
            yield [state["name"], letter]

    flow = new().then(count).then(letters).with_versioned_checkpoint(MemoryStore())
    found: dict[str, list[Any]] = {}

    async def read(name: str) -> None:
        async with flow.stream({"name": name}, run_id=name, buffer=1) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    found.setdefault(name, []).append(event.value)
                elif isinstance(event, StepDone):
                    found.setdefault(name, []).append(event.version)
                await anyio.lowlevel.checkpoint()

    await asyncio.gather(read("one"), read("two"))
    for name in ("one", "two"):
        counted, lettered = [[name, number] for number in range(3)], [[name, letter] for letter in "ab"]
        assert found[name] == [*counted, f"{name}@1", *lettered, f"{name}@2"]
