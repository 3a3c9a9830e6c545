"""When a run fails for good, what was done is undone in reverse; each undoing is a version, and survives a crash."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowneer_async import (
    BadStep,
    Context,
    FlowBuilder,
    FlowChanged,
    FlowError,
    MergeConflict,
    Undone,
    fragment,
)
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.stage import Flow, Stage, State
from tests.support.stores import KINDS

Ctx = Context[list[str]]


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage("memory", tmp_path)


def do(state: State) -> None:
    state["done"] = state.get("done", 0) + 1


def undo(state: State, ctx: Ctx) -> None:
    """Tell the outside world, and the state."""
    ctx.deps.append(ctx.step)
    state["done"] = state.get("done", 0) - 1


def fail(state: State) -> None:
    state["half"] = "made"
    raise ValueError


def steps(*names: str, flow: Flow | None = None) -> Flow:
    """Steps that can be undone."""
    flow = fragment() if flow is None else flow
    for name in names:
        flow = flow.then(do, name=name, compensate=undo)
    return flow


def saga(*names: str) -> Flow:
    return steps(*names, flow=FlowBuilder("saga"))


async def undone(stage: Stage, flow: Flow, state: State | None = None) -> list[str]:
    """What is undone when the flow is run, which fails."""
    log: list[str] = []
    with pytest.raises(FlowError):
        await stage.run(flow, state, deps=log)
    assert await stage.status() == "failed"
    return log


# Order ----------------------------------------------------------------------------------------------------------------


async def test_what_was_done_is_undone_in_reverse(stage: Stage) -> None:
    """The last step first; steps without a compensation are left as they are, and the error is that of the step."""
    flow = saga("a", "b").then(do, name="plain").then(do, name="c", compensate=undo).then(fail)
    state, log = {"done": 0}, list[str]()
    with pytest.raises(FlowError) as caught:
        await stage.run(flow, state, deps=log)
    assert (caught.value.step, type(caught.value.cause)) == ("fail", ValueError)
    assert log == ["c/@undo", "b/@undo", "a/@undo"]
    assert state == {"done": 1}


async def test_each_undoing_makes_a_version(stage: Stage) -> None:
    """What it did to the state is in the chain, as that of a step is; before it comes that the run has failed."""
    await undone(stage, saga("a", "b").then(fail))
    assert await stage.paths() == ["a", "b", "@failed", "b/@undo", "a/@undo"]
    async with stage.store() as store:
        assert [len(version.body) > 0 for version in await store.versions("r")] == [True] * 6


async def test_a_compensation_gets_the_state_that_was_before_the_step_that_failed(quick: Stage) -> None:
    """What that step had changed until it failed is taken back first."""
    seen: list[State] = []
    flow: Flow = FlowBuilder("saga").then(do, compensate=lambda state: seen.append(dict(state))).then(fail)
    await undone(quick, flow)
    assert seen == [{"done": 1}]


async def test_nothing_is_undone_in_a_run_that_does_well(quick: Stage) -> None:
    """And none that has failed before there was anything to undo is over: it goes on when it is run again."""
    log: list[str] = []
    broken = [True]

    def first(state: State) -> None:
        if broken[0]:
            raise ValueError

    flow = steps("a", flow=FlowBuilder[State]("saga").then(first))
    assert await undone(quick, flow) == []
    broken[0] = False
    assert (await quick.run(flow, deps=log)).status == "completed"
    assert log == []


async def test_the_step_that_failed_is_not_undone(quick: Stage) -> None:
    """Its own compensation is for when it was done; a fallback that took its place counts as done."""
    flow = saga("a").then(fail, name="b", compensate=undo, fallback=do).then(fail, name="c", compensate=undo)
    assert await undone(quick, flow) == ["b/@undo", "a/@undo"]


async def test_every_iteration_item_and_visit_is_undone(quick: Stage) -> None:
    """By its own path, in reverse; a compensation is told the item and the number that its step was told."""
    told: list[tuple[str, object, int]] = []

    def tell(state: State, ctx: Ctx) -> None:
        told.append((ctx.step, ctx.item, ctx.index))

    def again(state: State) -> str | None:
        return "#top" if state["done"] < 6 else None

    flow = (
        FlowBuilder[State]("saga")
        .batch(lambda s: ["x", "y"], fragment().then(do, compensate=tell), name="items")
        .anchor("top")
        .loop(lambda s: s["done"] % 2 == 0, fragment().then(do, compensate=tell), name="poll")
        .then(do, name="more", compensate=tell)
        .then(again)
        .then(fail)
    )
    await undone(quick, flow)
    assert told == [
        ("more~1/@undo", None, 0),
        ("poll~1[0]/do/@undo", None, 0),
        ("more/@undo", None, 0),
        ("poll[0]/do/@undo", None, 0),
        ("items[1]/do/@undo", "y", 1),
        ("items[0]/do/@undo", "x", 0),
    ]


async def test_steps_of_inner_flows_and_cases_are_undone_with_the_rest(quick: Stage) -> None:
    """However deep they stand, one order holds."""
    inner = steps("b").branch(lambda s: "x", {"x": steps("c"), "y": steps("d")}, name="which")
    assert await undone(quick, saga("a").then(inner, name="sub").then(fail)) == [
        "sub/which/x/c/@undo",
        "sub/b/@undo",
        "a/@undo",
    ]


async def test_without_a_store_it_is_undone_all_the_same() -> None:
    """Compensations need nothing that was stored."""
    state, log = {"done": 0}, list[str]()
    with pytest.raises(FlowError):
        await saga("a", "b").then(fail).run(state, deps=log, world=FakeWorld())
    assert (log, state) == (["b/@undo", "a/@undo"], {"done": 0})


# A run that was undone is over ----------------------------------------------------------------------------------------


async def test_a_run_that_was_undone_is_over(stage: Stage) -> None:
    """Run again it does nothing but say so, however often."""
    flow = saga("a", "b").then(fail)
    await undone(stage, flow)
    paths, log = await stage.paths(), list[str]()
    for _ in range(2):
        with pytest.raises(Undone) as caught:
            await stage.run(flow, deps=log)
        assert (caught.value.run_id, caught.value.step, caught.value.error) == ("r", "fail", "ValueError")
    assert (log, await stage.paths(), await stage.status()) == ([], paths, "failed")


async def test_a_version_before_the_failure_can_be_forked(stage: Stage) -> None:
    """The fork is another run, and does the rest; what it did not do itself it can undo too."""
    broken, log = [True], list[str]()

    def last(state: State) -> None:
        if broken[0]:
            raise ValueError

    flow = saga("a", "b").then(last)
    await undone(stage, flow)
    async with stage.on(flow) as stored, stage.store() as store:
        with pytest.raises(FlowError):
            await stored.resume_from("r@1", store).run(run_id="again", deps=log, world=stage.world)
        broken[0] = False
        result = await stored.resume_from("r@2", store).run(run_id="well", deps=log, world=stage.world)
    assert log == ["b/@undo", "a/@undo"]
    assert (result.status, result.state) == ("completed", {"done": 2})


@pytest.mark.parametrize("how", ["before", "after"])
async def test_an_undoing_goes_on_after_a_crash(how: Any, stage: Stage) -> None:
    """Wherever the process died, all is undone in the end, in order; once more only what the crash fell into."""
    flow, at = saga("a", "b", "c").then(fail), 0
    while True:
        at += 1
        crashing, log = Stage("memory", Path()), list[str]()
        crashed = await crashing.crash(flow, at, how, deps=log)
        if not crashed:
            break
        with pytest.raises((FlowError, Undone)):
            await crashing.run(flow, deps=log)
        assert [step for step, before in zip(log, ["", *log], strict=False) if step != before] == [
            "c/@undo",
            "b/@undo",
            "a/@undo",
        ]
        assert len(log) <= (4 if how == "before" else 3)
        with pytest.raises(Undone):
            await crashing.run(flow, deps=log)
    assert at == 10  # create, three steps, failed, three undoings, the end


async def test_an_undoing_goes_on_in_another_process(stage: Stage) -> None:
    """The step that failed is not tried again, though its reason is gone by then."""
    log: list[str] = []
    assert await stage.crash(saga("a", "b").then(fail), 5, deps=log)
    with pytest.raises(Undone):
        await stage.run(saga("a", "b").then(do, name="fail"), deps=log)
    assert log == ["b/@undo", "b/@undo", "a/@undo"]


def tell(state: State, ctx: Ctx) -> None:
    ctx.deps.append(ctx.step)


@pytest.mark.parametrize("options", [{"filter": ["nothing"]}, {"skip_unchanged": True}], ids=repr)
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_is_undone_once_whatever_is_kept(options: Any, durability: str, tmp_path: Path) -> None:
    """A filter, an unchanged state or a late save do not make a later run undo it again."""
    stage = Stage("sqlite", tmp_path, durability=durability, **options)
    log: list[str] = []
    flow: Flow = FlowBuilder("saga").then(do, compensate=tell).then(fail)
    with pytest.raises(FlowError):
        await stage.run(flow, deps=log)
    with pytest.raises(Undone):
        await stage.run(flow, deps=log)
    assert log == ["do/@undo"]


# A compensation that fails --------------------------------------------------------------------------------------------


def breaks_twice(log: list[str]) -> Callable[[State, Ctx], None]:
    def undo_or_fail(state: State, ctx: Ctx) -> None:
        state["half"] = "undone"
        log.append(ctx.step)
        if log.count(ctx.step) < 3:
            raise OSError

    return undo_or_fail


async def test_a_compensation_that_fails_is_tried_again_when_the_run_is(stage: Stage) -> None:
    """It is not passed over: the rest is undone after it. Its error names it, and its half-made changes are gone."""
    log: list[str] = []
    flow = saga("a").then(do, name="b", compensate=breaks_twice(log)).then(do, name="c", compensate=undo).then(fail)
    for _ in range(2):
        with pytest.raises(FlowError) as caught:
            await stage.run(flow, deps=log)
        assert (caught.value.step, type(caught.value.cause)) == ("b/@undo", OSError)
        assert await stage.status() == "failed"
    with pytest.raises(Undone):
        await stage.run(flow, deps=log)
    assert log == ["c/@undo", "b/@undo", "b/@undo", "b/@undo", "a/@undo"]


async def test_a_step_that_is_to_be_undone_cannot_leave_the_flow(stage: Stage) -> None:
    """FlowChanged rather than a run that claims to be undone; put back, it is undone."""
    log: list[str] = []
    flow = saga("a").then(do, name="b", compensate=breaks_twice(log)).then(fail)
    with pytest.raises(FlowError):
        await stage.run(flow, deps=log)
    for changed in (saga("a").then(fail), saga("a").then(do, name="b").then(fail)):
        with pytest.raises(FlowChanged):
            await stage.run(changed, deps=log)
    with pytest.raises(FlowError):
        await stage.run(flow, deps=log)
    with pytest.raises(Undone):
        await stage.run(flow, deps=log)
    assert log == ["b/@undo", "b/@undo", "b/@undo", "a/@undo"]


async def test_cancelled_while_it_undoes_a_run_goes_on_undoing(stage: Stage) -> None:
    """The run is stored as cancelled, and when it goes on only what is left is undone."""
    reached, free, log = asyncio.Event(), [False], list[str]()

    async def slow(state: State, ctx: Ctx) -> None:
        if not free[0]:
            reached.set()
            await anyio.sleep_forever()
        ctx.deps.append(ctx.step)

    flow = saga("a").then(do, name="b", compensate=slow).then(do, name="c", compensate=undo).then(fail)
    async with stage.on(flow) as stored:
        task = asyncio.create_task(stored.run({}, run_id="r", deps=log, world=stage.world))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await stage.status() == "cancelled"
    free[0] = True
    with pytest.raises(Undone):
        await stage.run(flow, deps=log)
    assert log == ["c/@undo", "b/@undo", "a/@undo"]


async def test_a_cancelled_run_is_not_undone(stage: Stage) -> None:
    """To be cancelled is no failure: the run can go on."""
    reached, free, log = asyncio.Event(), [False], list[str]()

    async def slow(state: State) -> None:
        if not free[0]:
            reached.set()
            await anyio.sleep_forever()

    flow = saga("a").then(slow)
    async with stage.on(flow) as stored:
        task = asyncio.create_task(stored.run({}, run_id="r", deps=log, world=stage.world))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    free[0] = True
    assert (await stage.run(flow, deps=log)).state == {"done": 1}
    assert log == []


# Lanes ----------------------------------------------------------------------------------------------------------------


async def others_first() -> None:
    """Let the other lanes come to their end, or to where they wait for ever."""
    for _ in range(60):
        await anyio.lowlevel.checkpoint()


async def fail_last(state: State) -> None:
    await others_first()
    raise ValueError


async def for_ever(state: State) -> None:
    await anyio.sleep_forever()


def lanes(*bodies: Any, **options: Any) -> Flow:
    return saga("before").parallel(bodies, reducer={"done": lambda before, values: sum(values)}, **options)


async def test_lanes_are_undone_whether_finished_failed_or_cancelled(tmp_path: Path) -> None:
    """Each in reverse, the last lane first, and then what came before them."""
    stage = Stage("memory", tmp_path)
    flow = lanes(steps("a1", "a2"), steps("b1").then(fail_last), steps("c1").then(for_ever))
    assert await undone(stage, flow) == [
        "parallel[2]/c1/@undo",
        "parallel[1]/b1/@undo",
        "parallel[0]/a2/@undo",
        "parallel[0]/a1/@undo",
        "before/@undo",
    ]


async def test_lanes_that_were_joined_are_undone_with_the_rest(quick: Stage) -> None:
    """After the join their steps are steps of the run."""
    flow = steps("after", flow=lanes(steps("a"), steps("b"))).then(fail)
    assert await undone(quick, flow) == [
        "after/@undo",
        "parallel[1]/b/@undo",
        "parallel[0]/a/@undo",
        "before/@undo",
    ]


async def test_lanes_inside_of_a_lane_are_undone_when_the_outer_one_is_cancelled(tmp_path: Path) -> None:
    """A lane next to it fails, while they are at work: what they had done is undone, however deep."""
    stage = Stage("memory", tmp_path)
    inner = steps("a").parallel([steps("b").then(for_ever), steps("c")], name="inner")
    assert await undone(stage, lanes(inner, fail_last)) == [
        "parallel[0]/inner[1]/c/@undo",
        "parallel[0]/inner[0]/b/@undo",
        "parallel[0]/a/@undo",
        "before/@undo",
    ]


async def test_a_lane_that_waits_is_undone_too(stage: Stage) -> None:
    """It waits for a signal when another lane fails, in a later process."""
    broken = [False]

    def work(state: State) -> None:
        if broken[0]:
            raise ValueError

    flow = lanes(steps("a").wait_for("never"), steps("b").sleep(10).then(work))
    log: list[str] = []
    assert (await stage.run(flow, deps=log)).status == "waiting"
    broken[0] = True
    stage.world.move(10)
    with pytest.raises(FlowError):
        await stage.run(flow, deps=log)
    assert log == ["parallel[1]/b/@undo", "parallel[0]/a/@undo", "before/@undo"]


async def test_the_items_of_a_concurrent_batch_are_undone(tmp_path: Path) -> None:
    """Each compensation is told the item of its step."""
    told: list[tuple[str, object]] = []

    def tell(state: State, ctx: Ctx) -> None:
        told.append((ctx.step, ctx.item))

    async def send(state: State, ctx: Ctx) -> None:
        if ctx.item == "bad":
            await others_first()
            raise ValueError

    body = fragment().then(lambda s: None, name="reserve", compensate=tell).then(send)
    flow: Flow = FlowBuilder("saga").batch(lambda s: ["x", "bad", "y"], body, name="all", concurrency=3)
    await undone(Stage("memory", tmp_path), flow)
    assert told == [(f"all[{number}]/reserve/@undo", item) for number, item in ((2, "y"), (1, "bad"), (0, "x"))]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_item_that_is_given_up_is_undone_alone(concurrency: int, quick: Stage) -> None:
    """The others stay done; should the run fail later, they are undone, and this one is not again."""
    log: list[str] = []

    def send(state: State, ctx: Ctx) -> None:
        if ctx.item == "bad":
            raise ValueError

    flow: Flow = FlowBuilder("saga").batch(
        lambda s: ["x", "bad", "y"],
        fragment().then(lambda s: None, name="reserve", compensate=undo).then(send),
        name="all",
        max_failures=1,
        concurrency=concurrency,
    )
    with pytest.raises(FlowError):
        await quick.run(flow.then(fail), deps=log)
    assert log[:1] == ["all[1]/reserve/@undo"]
    assert sorted(log[1:]) == ["all[0]/reserve/@undo", "all[2]/reserve/@undo"]


async def test_what_lanes_have_changed_is_seen_by_their_compensations(tmp_path: Path) -> None:
    """Each sees the draft of its lane, which nobody else ever sees."""
    seen: list[tuple[str, State]] = []

    def look(state: State, ctx: Ctx) -> None:
        seen.append((ctx.step, {key: state[key] for key in state}))

    def note(state: State, ctx: Ctx) -> None:
        state[ctx.step] = True

    def one(name: str) -> Flow:
        return fragment().then(note, name=name, compensate=look)

    state: State = {}
    flow: Flow = FlowBuilder("saga").parallel([one("a"), one("b").then(fail_last)])
    await undone(Stage("memory", tmp_path), flow, state)
    assert seen == [
        ("parallel[1]/b/@undo", {"parallel[1]/b": True}),
        ("parallel[0]/a/@undo", {"parallel[0]/a": True}),
    ]
    assert state == {}


@pytest.mark.parametrize("how", ["before", "after"])
async def test_undoing_lanes_goes_on_after_a_crash(how: Any) -> None:
    """Wherever the process died, every step of every lane that was done is undone, and no lane goes on."""
    inner = steps("d").parallel([steps("e"), steps("f")], name="inner", reducer=lambda before, values: 0)
    flow, at = lanes(steps("a", "b"), inner, steps("c").then(fail_last)), 0
    everything = {"before", "parallel[0]/a", "parallel[0]/b", "parallel[1]/d", "parallel[2]/c"}
    everything |= {"parallel[1]/inner[0]/e", "parallel[1]/inner[1]/f"}
    while True:
        at += 1
        stage, log = Stage("memory", Path()), list[str]()
        if not await stage.crash(flow, at, how, deps=log):
            break
        with pytest.raises((FlowError, Undone)):
            await stage.run(flow, deps=log)
        assert {step.removesuffix("/@undo") for step in log} == everything
        assert len(log) <= len(everything) + (how == "before")
        with pytest.raises(Undone):
            await stage.run(flow, deps=log)
    assert at > 8


async def test_a_merge_conflict_is_a_mistake_of_the_flow_and_undoes_nothing(stage: Stage) -> None:
    """With a reducer the run goes on at the join: the lanes are done."""
    log: list[str] = []
    bodies = [fragment().then(lambda s, n=n: s.update(key=n), name="set", compensate=undo) for n in (1, 2)]
    with pytest.raises(MergeConflict):
        await stage.run(FlowBuilder[State]("saga").parallel(bodies), deps=log)
    flow = FlowBuilder[State]("saga").parallel(bodies, reducer={"key": lambda before, values: values})
    assert (await stage.run(flow, deps=log)).state == {"key": [1, 2]}
    assert log == []


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_a_compensation_is_checked_while_the_flow_is_built() -> None:
    """It takes (state) or (state, ctx), and is no generator."""
    for wrong in (5, lambda: None, lambda a, b, c: None):
        with pytest.raises(BadStep):
            FlowBuilder("saga").then(do, compensate=wrong)  # type: ignore[arg-type]


async def test_runs_that_fail_side_by_side_undo_their_own_steps() -> None:
    """Nothing of a run lives on the flow."""
    flow = saga("a", "b").then(fail_last).with_versioned_checkpoint(MemoryStore())
    logs: list[list[str]] = [[], []]
    runs = [flow.run({}, run_id=f"r{number}", deps=log) for number, log in enumerate(logs)]
    assert all(isinstance(error, FlowError) for error in await asyncio.gather(*runs, return_exceptions=True))
    assert logs == [["b/@undo", "a/@undo"]] * 2
