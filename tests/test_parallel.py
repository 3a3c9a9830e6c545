"""`parallel`: bodies side by side, each on a draft of its own, merged in the end."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import anyio
import msgspec
import pydantic
import pytest

from flowneer_async import (
    CannotReduce,
    Context,
    FlowBuilder,
    FlowError,
    MergeConflict,
    RunBusy,
    StateNotSerializable,
    StepReturned,
    UnknownAnchor,
    reducers,
)
from flowneer_stores import MemoryStore
from tests.support.chains import stored_states
from tests.support.entries import DictStore
from tests.support.lanes import crash_everywhere, key_of, nested, remembered, turns, work, works
from tests.support.stage import Stage
from tests.support.stores import KINDS
from tests.support.traced import Flow, State, every_keeping, new, paths_of, piece, same_from_everywhere, times

every_how = pytest.mark.parametrize("how", ["before", "after"])


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


# Drafts ---------------------------------------------------------------------------------------------------------------


class Typed(TypedDict):
    seen: list[str]
    left: int
    right: int


@dataclass
class Data:
    seen: list[str] = field(default_factory=list[str])
    left: int = 0
    right: int = 0


class Model(pydantic.BaseModel):
    seen: list[str] = []
    left: int = 0
    right: int = 0


class Record(msgspec.Struct):
    seen: list[str] = []
    left: int = 0
    right: int = 0


def read(state: Any, name: str) -> Any:
    return state[name] if isinstance(state, dict) else getattr(state, name)


def write(state: Any, name: str, value: object) -> None:
    if isinstance(state, dict):
        state[name] = value
    else:
        setattr(state, name, value)


every_kind = pytest.mark.parametrize("kind", [dict, Typed, Data, Model, Record], ids=lambda kind: kind.__name__)


@every_kind
@every_keeping
async def test_each_lane_has_a_draft_of_its_own(kept: Any, kind: Any) -> None:
    """What is done to it, at any depth, nobody else sees before they are merged: no other lane, nor the caller."""
    given = kind(seen=["before"], left=0, right=0)
    met = asyncio.Barrier(2)

    async def lane(state: Any, ctx: Context) -> None:
        name = ctx.step.rpartition("/")[2]
        read(state, "seen").append(name)
        await met.wait()
        assert read(state, "seen") == ["before", name]
        assert (read(state, "left"), read(state, "right")) == (0, 0)
        await met.wait()
        write(state, name, 1)
        await met.wait()
        assert (read(given, "seen"), read(given, "left"), read(given, "right")) == (["before"], 0, 0)
        assert isinstance(state, dict if kind is Typed else kind)

    flow: FlowBuilder[Any] = FlowBuilder("flow", kind)
    lanes = [piece().then(lane, name="left"), piece().then(lane, name="right")]
    result = await kept(flow.parallel(lanes, reducer={"seen": reducers.append})).run(given)
    assert result.state is given
    assert given == kind(seen=["before", "left", "right"], left=1, right=1)


@every_keeping
async def test_a_lane_sees_what_its_own_steps_have_done(kept: Any) -> None:
    """And what was done before all lanes."""

    async def look(state: State, ctx: Context) -> None:
        state[f"seen by {ctx.step}"] = sorted(key for key in state if "seen" not in key)

    lanes = [works("a").then(look), works("b").then(look, name="look too")]
    result = await kept(works("before").parallel(lanes)).run({}, deps=[])
    assert result.state["seen by parallel[0]/look"] == ["before", "parallel[0] a"]
    assert result.state["seen by parallel[1]/look too"] == ["before", "parallel[1] b"]


@every_keeping
async def test_keys_are_added_changed_and_removed_by_lanes(kept: Any) -> None:
    """A key that one of them touched needs no reducer; nor does one that all have removed."""

    async def one(state: State) -> None:
        state["new"] = [1]
        del state["old"], state["both"]

    async def other(state: State) -> None:
        state["changed"]["deep"] = 2
        del state["both"]

    result = await kept(new().parallel([one, other])).run({"old": 1, "both": 1, "changed": {"deep": 1}, "left": 1})
    assert result.state == {"new": [1], "changed": {"deep": 2}, "left": 1}


@every_keeping
async def test_what_is_merged_is_held_by_no_lane(kept: Any) -> None:
    """A list that a lane made and still holds is not the one in the state."""
    held: list[Any] = []

    async def make(state: State) -> None:
        state["made"] = [1]
        held.append(state["made"])

    async def end(state: State) -> None:
        held[0].append("late")

    assert (await kept(new().parallel([make]).then(end)).run({})).state == {"made": [1]}


@every_keeping
async def test_lanes_are_bodies_of_any_kind(kept: Any) -> None:
    """A flow, a function of a builder, one async step: done side by side, each step once."""
    bodies = [works("a", "b"), lambda body: body.loop(times(2), work, name="twice"), work]
    deps: list[str] = []
    result = await kept(new().parallel(bodies, name="lanes").then(work)).run({}, deps=deps)
    assert sorted(deps) == [
        "lanes[0]/a",
        "lanes[0]/b",
        "lanes[1]/twice[0]/work",
        "lanes[1]/twice[1]/work",
        "lanes[2]/work",
        "work",
    ]
    assert result.state == dict.fromkeys(map(key_of, deps), True)


# Merging --------------------------------------------------------------------------------------------------------------


def setting(value: object) -> Any:
    async def made(state: State) -> None:
        state["key"] = value

    return made


@every_keeping
@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize(
    ("reducer", "before", "made", "after"),
    [
        (reducers.append, [0], ([0, 1], [0, 2, 3]), [0, 1, 2, 3]),
        (reducers.sum, 10, (11, 8), 9),
        (reducers.union, {"x", "y"}, ({"x", "y", "z"}, {"y", "w"}), {"y", "z", "w"}),
        (reducers.last, "a", ("b", "c"), "c"),
        (lambda before, values: [before, *values], "a", ("b", "c"), ["a", "b", "c"]),
    ],
)
async def test_a_key_that_several_lanes_changed_is_reduced(
    kept: Any, by_key: bool, reducer: Any, before: Any, made: Any, after: Any
) -> None:
    """By the reducer for all keys or by its own, given the value before them, and theirs in the order of lanes."""
    given = {"key": reducer} if by_key else reducer
    flow = new().parallel([setting(value) for value in made], reducer=given)
    assert (await kept(flow).run({"key": before, "other": 1})).state == {"key": after, "other": 1}


async def test_lanes_are_merged_in_their_order_whichever_ends_first() -> None:
    """Also after a crash."""

    def later(number: int) -> Any:
        async def lane(state: State) -> None:
            await turns(10 - number)
            state["key"] = number

        return lane

    flow = new().parallel([later(number) for number in range(10)], reducer=lambda before, values: values)
    assert (await flow.run({})).state == {"key": list(range(10))}
    await same_from_everywhere(flow)


async def test_a_conflict_fails_the_run_which_goes_on_with_a_reducer(stage: Stage) -> None:
    """It names step, key and lanes; no lane is run again, whether the conflict is still there or not."""

    async def add(state: State, ctx: Context[list[str]]) -> None:
        ctx.deps.append(ctx.step)
        state["n"] = state.get("n", 0) + 1

    def flow(**more: Any) -> Flow:
        lanes = [piece().then(add, name="a"), works("apart"), piece().then(add, name="b")]
        return new().parallel(lanes, name="both", **more).then(work, name="end")

    deps: list[str] = []
    for _ in range(3):
        with pytest.raises(MergeConflict) as caught:
            await stage.run(flow(), deps=deps)
        assert (caught.value.step, caught.value.key, caught.value.lanes) == ("both", "n", ("both[0]", "both[2]"))
        assert await stage.status() == "failed"
    result = await stage.run(flow(reducer={"n": reducers.sum}), deps=deps)
    assert result.state == {"n": 2, "both[1] apart": True, "end": True}
    assert sorted(deps) == ["both[0]/a", "both[1]/apart", "both[2]/b", "end"]


async def test_a_conflict_leaves_the_state_as_it_was() -> None:
    """Nothing of any lane is merged, not even keys that are no matter of dispute."""
    state: State = {}
    with pytest.raises(MergeConflict):
        await new().parallel([setting(1), setting(2), works("a")]).run(state, deps=[])
    assert state == {}


async def test_a_reducer_that_fails_fails_the_run_which_goes_on_with_another(stage: Stage) -> None:
    """One of the ready ones names step and key; one of the user's is the failure of the step."""

    def broken(before: object, values: list[object]) -> object:
        raise LookupError

    def flow(reducer: Any) -> Flow:
        return new().parallel([setting("x"), setting("y"), works("a")], name="both", reducer={"key": reducer})

    deps: list[str] = []
    with pytest.raises(CannotReduce) as refused:
        await stage.run(flow(reducers.sum), deps=deps)
    assert (refused.value.reducer, refused.value.step, refused.value.key) == ("sum", "both", "key")
    with pytest.raises(FlowError) as failed:
        await stage.run(flow(broken), deps=deps)
    assert (failed.value.step, type(failed.value.cause)) == ("both", LookupError)
    with pytest.raises(StateNotSerializable) as unkept:
        await stage.run(flow(lambda before, values: object()), deps=deps)
    assert (unkept.value.step, unkept.value.path) == ("both", "$.key")
    assert (await stage.run(flow(reducers.last), deps=deps)).state == {"key": "y", "both[2] a": True}
    assert deps == ["both[2]/a"]


# Failing --------------------------------------------------------------------------------------------------------------


class Beside:
    """A lane that hangs, one that fails when the others have come to their end, and one that is soon done."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.is_mended = False
        self.hangs, self.is_done = asyncio.Event(), asyncio.Event()

    async def fail(self, state: State) -> None:
        """Fails alone."""
        self.log.append("fail")
        state["half"] = True
        if not self.is_mended:
            raise LookupError
        state["mended"] = True

    async def fail_in_the_end(self, state: State) -> None:
        await self.hangs.wait()
        await self.is_done.wait()
        await self.fail(state)

    async def done(self, state: State) -> None:
        self.is_done.set()

    async def hang(self, state: State) -> None:
        self.log.append("hang")
        self.hangs.set()
        state["half"] = True
        try:
            if not self.is_mended:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.log.append("cut")
            raise

    def flow(self, **more: Any) -> Flow:
        lanes = [works("a").then(self.hang), self.fail_in_the_end, works("b").then(self.done)]
        return new().parallel(lanes, reducer={"half": reducers.last}, **more)


async def test_when_a_lane_fails_the_others_are_cancelled(stage: Stage) -> None:
    """They keep the steps that they have done, and go on at the one that was cut off."""
    beside, deps = Beside(), list[str]()
    with pytest.raises(FlowError) as caught:
        await stage.run(beside.flow(), deps=deps)
    assert (caught.value.step, type(caught.value.cause)) == ("parallel[1]/fail_in_the_end", LookupError)
    assert (beside.log, await stage.status()) == (["hang", "fail", "cut"], "failed")
    assert {"parallel[0]/a", "parallel[2]/b"} <= set(await stage.paths())
    beside.is_mended = True
    result = await stage.run(beside.flow(), deps=deps)
    assert result.state == {"parallel[0] a": True, "parallel[2] b": True, "half": True, "mended": True}
    assert sorted(deps) == ["parallel[0]/a", "parallel[2]/b"]


async def test_or_the_others_are_let_to_their_end(stage: Stage) -> None:
    """With on_error="wait": then the run fails with what failed first, and only that is run again."""
    log: list[str] = []

    async def slow(state: State, ctx: Context[list[str]]) -> None:
        await turns(20)
        await work(state, ctx)

    async def fail_later(state: State) -> None:
        await turns(10)
        log.append("later")
        if log.count("later") == 1:
            raise OSError

    beside, deps = Beside(), list[str]()
    lanes = [piece().then(slow).then(work, name="a"), piece().then(beside.fail), piece().then(fail_later)]
    flow = new().parallel(lanes, on_error="wait")
    with pytest.raises(FlowError) as caught:
        await stage.run(flow, deps=deps)
    assert (caught.value.step, deps) == ("parallel[1]/fail", ["parallel[0]/slow", "parallel[0]/a"])
    beside.is_mended = True
    await stage.run(flow, deps=deps)
    assert (beside.log, log, len(deps)) == (["fail", "fail"], ["later", "later"], 2)


@every_keeping
async def test_a_failed_step_of_a_lane_is_raised_in_no_group(kept: Any) -> None:
    """As from anywhere else, with its cause; what lanes did is not in the state."""
    state, beside = {"before": 1}, Beside()
    with pytest.raises(FlowError) as caught:
        await kept(beside.flow()).run(state, deps=[])
    assert isinstance(caught.value.__cause__, LookupError)
    assert state == {"before": 1}


async def test_mistakes_in_a_lane_are_told_as_such() -> None:
    """A value returned, a jump out of it, what cannot be stored: whatever the policy, the other lanes are cut off."""

    async def returns(state: State) -> Any:
        return 7

    async def unkept(state: State) -> None:
        state["x"] = object()

    async def leaves(state: State) -> str:
        return "#outside"

    for step, error in ((returns, StepReturned), (unkept, StateNotSerializable), (leaves, UnknownAnchor)):
        for on_error in ("cancel", "wait"):
            lanes = [piece().then(step, name="s"), Beside().hang]
            flow = new().anchor("outside").parallel(lanes, on_error=on_error)  # type: ignore[arg-type]
            with pytest.raises(error) as caught:
                await flow.with_versioned_checkpoint(MemoryStore()).run({})
            assert caught.value.step == "parallel[0]/s"


@every_keeping
async def test_a_lane_that_ends_with_a_cancellation_of_its_own_is_not_done(kept: Any) -> None:
    """As when it awaits what somebody else has cancelled: the run is cancelled, as it is by any other step."""

    async def cut(state: State, ctx: Context[list[str]]) -> None:
        if "cut" not in ctx.deps:
            ctx.deps.append("cut")
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        state["cut"] = False

    flow, deps = kept(new().parallel([works("a"), cut]).then(work, name="end")), list[str]()
    with pytest.raises(asyncio.CancelledError):
        await flow.run({}, run_id="r", deps=deps)
    assert "end" not in deps
    result = await flow.run({}, run_id="r", deps=deps)
    assert result.state == {"parallel[0] a": True, "cut": False, "end": True}


# Out of time ----------------------------------------------------------------------------------------------------------


async def test_a_lane_has_so_much_time(tmp_path: Path) -> None:
    """Then it fails, and goes on at the step that was cut off when the run is run again, with as much time anew."""
    stage, deps = Stage("memory", tmp_path), list[str]()

    async def hang_once(state: State, ctx: Context[list[str]]) -> None:
        ctx.deps.append(ctx.step)
        if ctx.deps.count(ctx.step) == 1:
            await asyncio.Event().wait()

    def flow(seconds: float) -> Flow:
        return new().parallel([works("a").then(hang_once), works("b")], on_error="wait", timeout=seconds)

    with pytest.raises(FlowError) as caught:
        await stage.run(flow(0.1), deps=deps)
    assert (caught.value.step, type(caught.value.cause)) == ("parallel[0]", TimeoutError)
    result = await stage.run(flow(60), deps=deps)
    assert result.state == {"parallel[0] a": True, "parallel[1] b": True}
    assert sorted(deps) == ["parallel[0]/a", *["parallel[0]/hang_once"] * 2, "parallel[1]/b"]


async def test_the_time_of_a_lane_is_not_that_of_the_others() -> None:
    """A TimeoutError that a step raises by itself is the failure of that step."""

    async def raises(state: State) -> None:
        raise TimeoutError

    for more in ({}, {"timeout": 60.0}):
        with pytest.raises(FlowError) as caught:
            await new().parallel([raises], **more).run({})  # type: ignore[arg-type]
        assert caught.value.step == "parallel[0]/raises"


class Late:
    """Steps that go on to change what they were given when they are over."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def _change(self, state: State, ctx: Context) -> None:
        held = state["list"]
        await self.go.wait()
        held.append("late")
        state["late"] = True
        state.pop("early", None)
        await ctx.emit("late")
        await ctx.once("late", self._answer)

    async def _answer(self) -> str:
        return "late"

    async def leave_behind(self, state: State, ctx: Context) -> None:
        """A task that outlives its step, which has ended well."""
        state["early"] = True
        self.tasks.append(asyncio.create_task(self._change(state, ctx)))
        await asyncio.sleep(0)

    async def shield(self, state: State, ctx: Context) -> None:
        """A step that is cut off, and a task of it that is not."""
        await self.leave_behind(state, ctx)
        await asyncio.shield(self.tasks[-1])

    async def end(self, state: State, ctx: Context) -> None:
        """Now all that were left behind do what they like."""
        self.go.set()
        for task in self.tasks:
            await asyncio.wait({task})
        assert await ctx.once("late", self._again) == "again"

    async def _again(self) -> str:
        return "again"


@every_keeping
async def test_a_lane_that_is_over_changes_nothing_any_more(kept: Any) -> None:
    """Whatever it has left behind: neither the state, nor what is stored."""
    late = Late()
    flow = kept(new().parallel([late.leave_behind, works("a")]).then(late.end))
    result = await flow.run({"list": [1]}, run_id="r", deps=[])
    assert result.state == {"list": [1], "early": True, "parallel[1] a": True}


@every_keeping
async def test_a_lane_that_was_cut_off_changes_nothing_any_more(kept: Any) -> None:
    """It ran out of time and was given up, and what it had shielded goes on."""
    late = Late()
    flow = new().batch(lambda state: [1], late.shield, concurrency=2, timeout=0.001, max_failures=1, name="each")
    result = await kept(flow.then(late.end)).run({"list": [1]}, run_id="r")
    assert result.state == {"list": [1]}
    assert [failure.step for failure in result.failures] == ["each[0]"]


async def test_nothing_is_stored_for_a_lane_that_is_over() -> None:
    """No version, and no fact that would be carried on for ever."""
    for step in ("leave_behind", "shield"):
        late, store = Late(), MemoryStore()
        flow = new().batch(
            lambda state: [1], getattr(late, step), concurrency=2, timeout=0.05, max_failures=1, name="each"
        )
        await flow.then(late.end).with_versioned_checkpoint(store).run({"list": [1]}, run_id="r")
        paths = await paths_of(store)
        assert [path for path in paths[paths.index("each") :] if "each[" in path] == []
        assert await remembered(store) == ([] if step == "leave_behind" else [" failure:each[0]"])


async def test_a_cancelled_lane_that_shields_itself_is_waited_for() -> None:
    """No step of it goes on in the background when run() has ended."""
    log: list[str] = []

    async def stubborn(state: State) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await turns(20)
            log.append("cleaned up")

    with pytest.raises(FlowError):
        await new().parallel([stubborn, Beside().fail]).run({})
    assert log == ["cleaned up"]


# Going on after a crash -----------------------------------------------------------------------------------------------


@every_how
@pytest.mark.parametrize("kind", KINDS)
async def test_lanes_go_on_where_they_were(kind: str, how: Any, tmp_path: Path) -> None:
    """Wherever the process dies: lanes that are done stay so, those half done go on at their step."""
    flow = works("a").parallel([works("b", "c"), works("d"), works("e", "f", "g")]).then(work, name="end")
    assert await crash_everywhere(kind, tmp_path, how, flow) > 5


@every_how
async def test_nested_lanes_go_on_where_they_were(how: Any, tmp_path: Path) -> None:
    """At any depth."""
    assert await crash_everywhere("memory", tmp_path, how, nested()) > 8


@pytest.mark.parametrize(
    "options",
    [{}, {"durability": "async"}, {"durability": "exit"}, {"skip_unchanged": True}, {"filter": ["c", "e", "in", "l"]}],
    ids=str,
)
@pytest.mark.parametrize("more", [{}, {"timeout": 60.0}, {"max_failures": 1}], ids=str)
async def test_nested_lanes_end_the_same_from_everywhere(options: Any, more: Any) -> None:
    """From each version, as a fork and as the run itself, however it is kept."""

    async def note(state: State, ctx: Context) -> None:
        await asyncio.sleep(0)
        state[key_of(ctx.step)] = ctx.item or True

    def notes(*names: str) -> Flow:
        body = piece()
        for name in names:
            body = body.then(note, name=name)
        return body

    inner = notes("d").parallel([notes("e", "f"), notes("g")], name="in").then(note, name="h")
    items = notes("b").batch(lambda state: ["x", "y"], inner, name="each", concurrency=2, **more).then(note, name="i")
    flow = notes("a").parallel([items, notes("j", "k", "l")], name="out").then(note, name="end")
    await same_from_everywhere(flow, **options)


async def test_the_position_of_each_lane_is_part_of_its_versions() -> None:
    """And nothing of the lanes is left in the chain when they are merged."""
    store = MemoryStore()
    await nested().with_versioned_checkpoint(store).run({}, run_id="r", deps=[])
    paths = await paths_of(store)
    inside = {f"out[0]/each[{n}]/{step}" for n in (0, 1) for step in ("d", "in[0]/e", "in[0]/f", "in[1]/g", "in", "h")}
    lanes = {"out[0]/b", "out[0]/each/@items", *inside, "out[0]/each", "out[0]/i", "out[1]/j", "out[1]/k", "out[1]/l"}
    assert sorted(paths) == sorted(["", "a", *lanes, "out", "end"])
    assert (paths[:2], paths[-2:]) == (["", "a"], ["out", "end"])
    states = await stored_states(store, "r")
    assert [set(state) for state in states[1:-2]] == [{"a"}] * (len(states) - 3)
    assert await remembered(store) == []


async def test_a_fork_from_the_middle_of_lanes_keeps_those_that_are_done() -> None:
    """As a resume does."""
    store, deps = MemoryStore(), list[str]()
    flow = new().parallel([works("a"), works("b", "c")]).with_versioned_checkpoint(store)
    expected = await flow.run({}, run_id="r", deps=deps)
    paths = await paths_of(store)
    deps.clear()
    fork = await flow.resume_from(f"r@{paths.index('parallel[1]/b')}", store).run(deps=deps)
    assert (fork.state, sorted(deps)) == (expected.state, ["parallel[1]/c"])


async def test_a_run_whose_lanes_are_at_work_is_busy(stage: Stage) -> None:
    """Nobody else can go on with it meanwhile."""

    async def again(state: State) -> None:
        with pytest.raises(RunBusy):
            await stage.run(flow)

    flow = new().parallel([again, piece().then(again, name="too")])
    await stage.run(flow)


# Rights of the steps inside -------------------------------------------------------------------------------------------


@every_keeping
async def test_lanes_loop_branch_and_jump_within_themselves(kept: Any) -> None:
    """Each with counts of its own, and the same after a crash."""

    async def again(state: State, ctx: Context) -> str | None:
        state[key_of(ctx.step)] = True
        return "#top" if sum("again" in key for key in state) < 3 else None

    async def mark(state: State, ctx: Context) -> None:
        state[key_of(ctx.step)] = True

    def lane() -> Flow:
        jumps = piece().anchor("top", max_visits=2).loop(times(2), mark, name="loop").then(again)
        return jumps.branch(lambda state: "x", {"x": mark}, name="which")

    flow = new().parallel([lane(), lane()])
    state = (await kept(flow).run({})).state
    assert {key for key in state if key.startswith("parallel[0]")} == {
        *(f"parallel[0] {loop}[{n}] mark" for loop in ("loop", "loop~1", "loop~2") for n in (0, 1)),
        *(f"parallel[0] {step}" for step in ("again", "again~1", "again~2")),
        "parallel[0] which~2 x mark",
    }
    assert len(state) == 20
    await same_from_everywhere(flow)


@every_keeping
async def test_steps_of_lanes_are_tried_again_from_the_draft_as_it_was(kept: Any) -> None:
    """And when all attempts have failed, the fallback finds it so, too."""

    async def flaky(state: State, ctx: Context[list[str]]) -> None:
        assert state["deep"]["list"] == ["before"]
        assert f"{key_of(ctx.step).split()[0]} a" in state
        state["deep"]["list"].append("half")
        state[f"half {ctx.step}"] = True
        if ctx.attempt < 3:
            raise OSError
        state["deep"]["list"] = ["before", ctx.step]
        del state[f"half {ctx.step}"]

    async def instead(state: State, ctx: Context) -> None:
        assert state["deep"]["list"] == ["before"]
        state["instead"] = ctx.attempt

    lanes = [works("a").then(flaky, retries=2), works("a").then(flaky, retries=1, fallback=instead)]
    flow = new().parallel(lanes, reducer={"deep": reducers.union})
    result = await kept(flow).run({"deep": {"list": ["before"]}}, deps=[])
    assert result.state == {
        "deep": {"list": ["before", "parallel[0]/flaky"]},
        "parallel[0] a": True,
        "parallel[1] a": True,
        "instead": 1,
    }


async def test_what_a_lane_asked_once_it_is_not_asked_again(stage: Stage) -> None:
    """A lane that was cut off in the middle of a long step has the results that it had before."""
    beside, asked = Beside(), list[str]()

    async def ask(name: str) -> str:
        asked.append(name)
        return name

    async def long(state: State, ctx: Context) -> None:
        state["first"] = await ctx.once("first", ask, ctx.step)
        if not beside.is_mended:
            await asyncio.Event().wait()
        state["second"] = await ctx.once("second", ask, "second")

    flow = new().parallel([long, beside.fail])
    with pytest.raises(FlowError):
        await stage.run(flow)
    beside.is_mended = True
    result = await stage.run(flow)
    assert (result.state["first"], result.state["second"]) == ("parallel[0]/long", "second")
    assert asked == ["parallel[0]/long", "second"]


async def test_the_on_error_of_a_lane_is_for_that_lane_alone(stage: Stage) -> None:
    """It sees the draft as it was before the step that failed; the others do not notice."""

    async def mend(state: State, ctx: Context) -> None:
        assert ctx.failure is not None
        state["mended"] = [ctx.failure.step, "half" in state, "parallel[0] a" in state]

    lane = works("a").then(Beside().fail).on_error(mend)
    result = await stage.run(new().parallel([lane, works("b", "c")]).then(work, name="end"), deps=[])
    assert result.state["mended"] == ["parallel[0]/fail", False, True]
    assert {"parallel[1] b", "parallel[1] c", "end"} < set(result.state)


async def test_the_on_error_around_lanes_sees_nothing_of_them(stage: Stage) -> None:
    """What they did was on drafts, which nobody has merged."""

    async def mend(state: State, ctx: Context) -> None:
        assert ctx.failure is not None
        state["mended"] = [ctx.failure.step, *state]

    result = await stage.run(Beside().flow().on_error(mend), {"before": 1}, deps=[])
    assert result.state == {"before": 1, "mended": ["parallel[1]/fail_in_the_end", "before"]}


async def test_a_store_of_two_methods_keeps_lanes_as_a_whole() -> None:
    """One entry for all of them, from which a run goes on after them."""
    store, deps = DictStore(), list[str]()
    flow = works("a").parallel([works("b", "c"), works("d")]).then(work, name="end")
    await flow.with_versioned_checkpoint(store).run({}, run_id="r", deps=deps)
    assert [entry.step_index for entry in store.versions.values()] == [-1, 0, 1, 2]
    deps.clear()
    again = await flow.resume_from("r@1", store).run(deps=deps)
    assert sorted(deps) == ["end", "parallel[0]/b", "parallel[0]/c", "parallel[1]/d"]
    assert again.state == store.resolve("r@3").state
