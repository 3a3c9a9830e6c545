"""Bodies in bodies in bodies: exact resume, cancellation, hooks and every way to keep them, however deep."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowneer_async import Context, FlowBuilder, FlowError, Hooks, StepDone, StepStarted
from flowneer_async.reducers import append
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.chains import stored_snapshots, stored_states, stored_versions
from tests.support.entries import DictStore
from tests.support.exact import exact
from tests.support.interrupt import at_once, cancelled_as_scope, cancelled_as_task
from tests.support.traced import (
    Flow,
    State,
    every_keeping,
    new,
    paths_of,
    piece,
    same_from_everywhere,
    steps,
    times,
    trace,
)


def route(state: State, ctx: Context) -> str:
    return "odd" if ctx.index % 2 else "even"


def again(state: State) -> str | None:
    state["again"] = state.get("again", 0) + 1
    return "#again" if state["again"] % 2 else None


def even(step: Any) -> Flow:
    """A step, a jump back to it, and two lanes."""
    jumping = piece().anchor("again").then(step, name="d").then(again, name="back")
    return jumping.parallel([piece().then(step, name="e"), piece().then(step, name="f")], reducer={"trace": append})


def five_deep(step: Any = trace, **batch: Any) -> Flow:
    """A loop, a batch, a flow, a branch, and lanes or a jump."""
    inner = piece().branch(route, {"odd": piece().then(step, name="c"), "even": even(step)}, name="br")
    item = piece().then(step, name="b").then(inner, name="sub")
    iteration = piece().then(step, name="a").batch(lambda state: "pqr", item, name="ba", **batch)
    return new().loop(times(2), iteration, name="lo").then(step, name="z")


def inside(number: int) -> list[str]:
    """The steps of an iteration of it."""
    items: list[str] = []
    for index in range(3):
        here = f"lo[{number}]/ba[{index}]"
        items.append(f"{here}/b")
        if index % 2:
            items.append(f"{here}/sub/br/odd/c")
        else:
            it = f"{here}/sub/br/even"
            items += [f"{it}/d", f"{it}/d~1", f"{it}/parallel~1[0]/e", f"{it}/parallel~1[1]/f"]
    return [f"lo[{number}]/a", *items]


# Exactly there --------------------------------------------------------------------------------------------------------


@every_keeping
async def test_every_step_is_done_once_at_its_own_path(kept: Any) -> None:
    """In the order of the flow, five levels deep, however the run is kept."""
    assert (await kept(five_deep()).run({})).state["trace"] == [*inside(0), *inside(1), "z"]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"durability": "async"},
    {"durability": "exit"},
    {"skip_unchanged": True},
    {"filter": ["b", "d"]},
    {"filter": ["e", "z"]},
    {"filter": ["ba"]},
    {"filter": []},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
async def test_a_run_goes_on_the_same_from_everywhere(options: Any) -> None:
    """From every version, as a fork and as itself after a crash, whatever is kept."""
    await same_from_everywhere(five_deep(), **options)


def by_item(before: Any, values: list[Any]) -> Any:
    """What each lane has added."""
    old = before or []
    return old + [entry for value in values for entry in value[len(old) :]]


@pytest.mark.parametrize("options", [{}, {"durability": "async", "filter": ["e", "b"]}], ids=str)
@pytest.mark.parametrize("batch", [{"concurrency": 2}, {"max_failures": 1}], ids=str)
async def test_a_run_goes_on_the_same_where_items_have_drafts(batch: Any, options: Any) -> None:
    """Side by side, or one after the other."""
    rules = {"trace": by_item, "again": lambda before, values: (before or 0) + sum(v - (before or 0) for v in values)}
    flow = five_deep(**batch, reducer=rules)
    assert sorted((await flow.run({})).state["trace"]) == sorted([*inside(0), *inside(1), "z"])
    await same_from_everywhere(flow, **options)


async def test_the_versions_have_the_full_paths() -> None:
    """Of the steps, and, between them, of what the engine has fixed: items and choices."""
    store = MemoryStore()
    await five_deep().with_versioned_checkpoint(store).run({}, run_id="r")
    paths = await paths_of(store)
    recorded = {"back", "back~1", "parallel~1"}
    assert [p for p in steps(paths) if p.split("/")[-1] not in recorded and p[-3:] != "/ba"] == [
        *inside(0),
        *inside(1),
        "z",
    ]
    assert {path.rpartition("/")[2] for path in paths if "@" in path} == {"@items", "@chosen"}
    assert [v.step_index for v in await stored_versions(store, "r")] == [-1] * (len(paths) - 1) + [1]


async def test_nothing_is_remembered_in_the_end() -> None:
    """The last version is the state alone."""
    store = MemoryStore()
    flow = five_deep().with_versioned_checkpoint(store)
    result = await flow.run({}, run_id="r")
    assert (await stored_states(store, "r"))[-1] == result.state
    await flow.resume_from(str(result.version), store).run(run_id="f")
    (root,) = await stored_versions(store, "f")
    assert b"\\u0000" not in root.body


async def test_every_step_has_an_idempotency_key_of_its_own() -> None:
    """The same in a run that was not disturbed, and in one that goes on from any version."""
    keys: list[str] = []

    async def note(state: State, ctx: Context) -> None:
        keys.append(ctx.idempotency_key)
        await trace(state, ctx)

    store = MemoryStore()
    flow = five_deep(note).with_versioned_checkpoint(store)
    await flow.run({}, run_id="r")
    assert len(set(keys)) == len(keys) == len(inside(0)) * 2 + 1
    whole = [key.removeprefix("r/") for key in keys]
    for version in await stored_versions(store, "r"):
        keys.clear()
        await flow.resume_from(version.id, store).run(run_id=f"from-{version.seq}")
        left = [key.removeprefix(f"from-{version.seq}/") for key in keys]
        assert set(left) <= set(whole)
        assert left == whole[len(whole) - len(left) :] or "parallel" in version.path


async def test_a_failed_step_is_the_one_that_is_done_again() -> None:
    """Whichever it is: the steps before it are not, those after it are."""
    for bad in (*inside(0), *inside(1)):
        calls: list[str] = []

        async def fail_once(state: State, ctx: Context, bad: str = bad, calls: list[str] = calls) -> None:
            calls.append(ctx.step)
            state["half"] = True
            await anyio.lowlevel.checkpoint()
            if ctx.step == bad and calls.count(bad) == 1:
                raise OSError
            del state["half"]
            await trace(state, ctx)

        flow = five_deep(fail_once).with_versioned_checkpoint(MemoryStore())
        with pytest.raises(FlowError) as caught:
            await flow.run({}, run_id="r")
        assert caught.value.step == bad
        assert (await flow.run(run_id="r")).state["trace"] == [*inside(0), *inside(1), "z"]
        assert calls.count(bad) == 2
        assert {path: calls.count(path) for path in calls if calls.count(path) > 1 and "parallel" not in path} in (
            {bad: 2},
            {},
        )


# Cancelled ------------------------------------------------------------------------------------------------------------


async def slow(state: State, ctx: Context[list[str]]) -> None:
    ctx.deps.append(ctx.step)
    state["half"] = ctx.step
    await anyio.lowlevel.checkpoint()
    del state["half"]
    await trace(state, ctx)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("cancel", [cancelled_as_task, cancelled_as_scope], ids=lambda way: way.__name__)
async def test_a_run_may_be_cancelled_anywhere_inside(durability: Any, cancel: Any) -> None:
    """It is stored as cancelled, without half a step, and goes on exactly there."""
    store = MemoryStore()
    flow = five_deep(slow).with_versioned_checkpoint(store, durability=durability)
    end = exact((await flow.run({}, run_id="whole", deps=[])).state)
    point, going_on = 0, True
    while going_on:
        run_id, calls = f"r{point}", list[str]()
        going_on = await cancel(flow.run({}, run_id=run_id, deps=calls), range(point, point + 1), at_once)
        for snapshot in await stored_snapshots(store, run_id):
            assert "half" not in snapshot.state
        if await stored_versions(store, run_id):
            run = await store.read(run_id)
            assert run.owner is None
            assert run.status in ("cancelled", "running", "completed")
        again_from = len(calls)
        assert exact((await flow.run({}, run_id=run_id, deps=calls)).state) == end
        twice = {path for path in calls if calls.count(path) > 1}
        assert len(twice) <= 2, f"at most one step of each lane: {again_from} {twice}"
        point += 7


async def test_a_step_that_is_cancelled_inside_is_where_the_run_stands() -> None:
    """The status says so, and the last version is that of the step before it."""
    store, reached = MemoryStore(), asyncio.Event()

    async def hang_once(state: State, ctx: Context[list[str]]) -> None:
        if ctx.step == "lo[1]/ba[1]/sub/br/odd/c" and not reached.is_set():
            reached.set()
            state["half"] = True
            await asyncio.Event().wait()
        await trace(state, ctx)

    flow = five_deep(hang_once).with_versioned_checkpoint(store)
    task = asyncio.create_task(flow.run({}, run_id="r"))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.read("r")).status == "cancelled"
    assert (await paths_of(store))[-1] == "lo[1]/ba[1]/sub/br/odd/@chosen"
    assert (await flow.run(run_id="r")).state["trace"] == [*inside(0), *inside(1), "z"]


# Rights of the steps inside -------------------------------------------------------------------------------------------


@every_keeping
async def test_steps_inside_are_tried_again_from_the_state_before_them(kept: Any) -> None:
    """Each attempt begins with all that the steps before it have done, and with nothing of the failed attempts."""

    async def flaky(state: State, ctx: Context) -> None:
        assert "half" not in state
        state["half"] = True
        if ctx.attempt < 3:
            raise OSError
        del state["half"]
        await trace(state, ctx)

    body = piece().then(trace, name="a").then(flaky, retries=2, delay=4).then(trace, name="b")
    item = piece().branch(lambda state: "x", {"x": body}, name="br").then(flaky, retries=2)
    flow = new().loop(times(2), piece().batch(lambda state: "pq", item, name="ba"), name="lo")
    world = FakeWorld()
    result = await kept(flow).run({}, world=world)
    each = ["br/x/a", "br/x/flaky", "br/x/b", "flaky"]
    assert result.state["trace"] == [f"lo[{n}]/ba[{i}]/{step}" for n in (0, 1) for i in (0, 1) for step in each]
    assert world.slept == [4, 4, 0, 0] * 4


@every_keeping
async def test_lanes_inside_begin_with_what_was_done_before_them(kept: Any) -> None:
    """Of the same body, too; and their failure takes back nothing but what is theirs."""

    async def look(state: State, ctx: Context) -> None:
        state[f"seen-{ctx.step[-4:]}"] = list(state["trace"])

    lanes: list[Any] = [piece().then(look, name="one."), piece().then(look, name="two.")]
    body = piece().then(trace, name="a").parallel(lanes).then(trace, name="b")
    result = await kept(new().then(trace).then(body, name="sub")).run({})
    assert result.state == {
        "trace": ["trace", "sub/a", "sub/b"],
        "seen-one.": ["trace", "sub/a"],
        "seen-two.": ["trace", "sub/a"],
    }


@every_keeping
async def test_an_on_error_inside_sees_the_state_before_the_step_that_failed(kept: Any) -> None:
    """With all that the body had done, and nothing of the step itself."""

    def fail(state: State) -> None:
        state["half"] = True
        raise OSError

    rescued = piece().then(trace, name="a").then(fail).then(trace, name="b").on_error(trace)
    flow = new().then(trace, name="before").loop(times(1), rescued, name="lo").then(trace, name="after")
    result = await kept(flow).run({})
    assert result.state == {"trace": ["before", "lo[0]/a", "lo[0]/@error/trace", "after"]}


async def test_steps_inside_have_their_limits_of_time() -> None:
    """One that hangs is cut off, and tried again."""

    async def hang(state: State, ctx: Context) -> None:
        state["half"] = True
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        del state["half"]
        await trace(state, ctx)

    inner = piece().loop(times(2), piece().then(hang, timeout=0.001, retries=1), name="in")
    flow = new().batch(lambda state: "pq", inner, name="ba")
    found = (await flow.run({})).state["trace"]
    assert found == [f"ba[{i}]/in[{n}]/hang" for i in (0, 1) for n in (0, 1)]


async def test_hooks_are_told_of_the_steps_inside_as_of_any_other() -> None:
    """By their names, with their paths; middleware is around each."""
    told: list[str] = []

    async def around(proceed: Callable[[], Any], state: State, ctx: Context) -> Any:
        told.append(f"({ctx.step}")
        returned = await proceed()
        told.append(")")
        return returned

    hooks = Hooks[State](
        wrap_step=around,
        before_step=lambda state, ctx: told.append(f"before {ctx.step}"),
        after_step=lambda state, ctx: told.append(f"after {ctx.step}"),
    )
    await five_deep().add_hooks(hooks, ["c"]).run({})
    path = "lo[{}]/ba[1]/sub/br/odd/c"
    each = ["before {}", "({}", ")", "after {}"]
    assert told == [part.format(path.format(number)) for number in (0, 1) for part in each]


@every_keeping
async def test_the_steps_inside_are_told_to_who_watches(kept: Any) -> None:
    """Each when it begins and when it is done, and what it changed; a version only where one was stored."""
    flow = kept(five_deep())
    begun, done = list[str](), list[StepDone]()
    async with flow.stream({}) as events:
        async for event in events:
            if isinstance(event, StepStarted):
                begun.append(event.step)
            elif isinstance(event, StepDone):
                done.append(event)
    wanted = [*inside(0), *inside(1), "z"]
    assert sorted(path for path in begun if path in wanted) == sorted(wanted)
    found = {event.step: event.changed for event in done}
    assert set(wanted) <= set(found)
    assert all("trace" in found[path] for path in wanted)


# Flows as steps -------------------------------------------------------------------------------------------------------


async def test_one_flow_may_be_many_steps_of_another() -> None:
    """And of itself: each under its own name and path."""
    small = new("small").then(trace, name="x")
    bigger = small.then(small).then(small, name="again")
    flow = new().then(bigger).then(bigger, name="more")
    found = (await flow.run({})).state["trace"]
    assert found == [f"{name}/{step}" for name in ("small", "more") for step in ("x", "small/x", "again/x")]
    await same_from_everywhere(flow)


async def test_runs_of_one_nested_flow_do_not_touch_each_other() -> None:
    """Twenty at once, in one store."""
    flow = five_deep(slow).with_versioned_checkpoint(MemoryStore())
    results = await asyncio.gather(*(flow.run({"id": n}, run_id=f"r{n}", deps=[]) for n in range(20)))
    wanted = [*inside(0), *inside(1), "z"]
    assert [(r.state["id"], r.state["trace"]) for r in results] == [(n, wanted) for n in range(20)]


async def test_a_finished_nested_run_gives_its_result_again() -> None:
    """And does nothing, from whatever body its last version is."""
    calls: list[str] = []
    for flow in (five_deep(slow), new().then(five_deep(slow), name="last")):
        kept = flow.with_versioned_checkpoint(MemoryStore())
        first = await kept.run({}, run_id="r", deps=calls)
        calls.clear()
        assert (await kept.run(run_id="r", deps=calls)).state == first.state
        assert calls == []


# Stores of two methods, trio ------------------------------------------------------------------------------------------


async def test_a_store_of_two_methods_keeps_the_outermost_steps_as_wholes() -> None:
    """An entry for each that changed something; a run goes on after any of them."""
    store, flow = DictStore(), new().then(trace, name="first").add(five_deep()).then(trace, name="last")
    end = exact((await flow.with_versioned_checkpoint(store).run({}, run_id="r")).state)
    assert [(e.step, e.step_index) for e in store.versions.values()] == [
        ("", -1),
        ("first", 0),
        ("lo", 1),
        ("z", 2),
        ("last", 3),
    ]
    for number, version in enumerate(list(store.versions)):
        assert exact((await flow.resume_from(version, store).run(run_id=f"from-{number}")).state) == end


async def test_a_store_of_two_methods_goes_on_after_a_jump() -> None:
    """At the anchor where it landed, be it out of a nested body."""

    def thrice(state: State) -> str | None:
        state["n"] = state.get("n", 0) + 1
        return "#again" if state["n"] in (1, 3, 4) else None

    out = piece().then(trace, name="x").then(thrice)
    flow = new().anchor("again").then(trace, name="a").then(out, name="sub").then(thrice, name="back")
    flow = flow.then(trace, name="z")

    async def names(after: str | None = None) -> list[str]:
        """What was done; the numbers of visits begin anew in a run that such a store goes on with."""
        found = (await (flow.resume_from(after, store).run() if after else kept.run({}))).state["trace"]
        return [path.replace("~1", "").replace("~2", "").replace("~3", "") for path in found]

    store = DictStore()
    kept = flow.with_versioned_checkpoint(store)
    whole = await names()
    assert whole == ["a", "sub/x", "a", "sub/x", "a", "sub/x", "a", "sub/x", "z"]
    versions = list(store.versions)
    for version in versions:
        assert await names(version) == whole


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_nested_flows_run_and_go_on_under_trio(durability: Any) -> None:
    """As under asyncio."""

    async def main() -> None:
        store = MemoryStore()
        flow = five_deep(slow).with_versioned_checkpoint(store, durability=durability)
        result = await flow.run({}, run_id="r", deps=[])
        assert result.state["trace"] == [*inside(0), *inside(1), "z"]
        for version in (await stored_versions(store, "r"))[::5]:
            fork = await flow.resume_from(version.id, store).run(deps=[])
            assert fork.state == result.state
        point, going_on = 0, True
        while going_on:
            run_id = f"r{point}"
            work = flow.run({}, run_id=run_id, deps=[])
            going_on = await cancelled_as_scope(work, range(point, point + 1), at_once)
            assert (await flow.run({}, run_id=run_id, deps=[])).state == result.state
            point += 23

    anyio.run(main, backend="trio")


# Typed ----------------------------------------------------------------------------------------------------------------


@dataclass
class Item:
    name: str
    done: list[str] = field(default_factory=list[str])


@dataclass
class Job:
    items: list[Item] = field(default_factory=lambda: [Item("p"), Item("q")])
    rounds: int = 0
    left: float = 0.5
    log: list[str] = field(default_factory=list[str])


async def test_a_typed_state_goes_through_all_bodies() -> None:
    """Every step is given its type, also on a draft, and after a resume from any version."""

    async def log(state: Job, ctx: Context) -> None:
        assert type(state) is Job
        assert all(type(item) is Item for item in state.items)
        assert ctx.item is None or type(ctx.item) is Item
        state.log.append(ctx.step)

    async def mark(state: Job, ctx: Context) -> None:
        state.items[ctx.index].done.append(ctx.step)

    def more(state: Job) -> bool:
        return state.rounds < 2

    def count(state: Job) -> None:
        state.rounds += 1

    def typed() -> FlowBuilder[Job]:
        return FlowBuilder("part", Job)

    lanes = [typed().then(log, name="e"), typed().then(log, name="f")]
    item = typed().then(mark).branch(lambda state: "x", {"x": typed().then(log, name="c")}, name="br")
    item = item.parallel(lanes, reducer={"log": append})
    flow = typed().loop(more, typed().batch(lambda state: state.items, item, name="ba").then(count), name="lo")
    await same_from_everywhere(flow, Job)
    end = (await flow.run(Job())).state
    assert [item.done for item in end.items] == [[f"lo[{n}]/ba[{i}]/mark" for n in (0, 1)] for i in (0, 1)]
    assert len(end.log) == 12
