"""Hooks: who is told of what, in which order, and what becomes of a run whose hooks misbehave."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowneer_async import (
    BadOption,
    CircuitOpen,
    Context,
    FlowError,
    Hooks,
    StepReturned,
    StoreFull,
    UnknownAnchor,
    Version,
    goto,
    reducers,
)
from flowneer_stores import MemoryStore
from tests.support.chains import stored_versions
from tests.support.stores import KINDS, Guarded, opened
from tests.support.traced import KEEPING, Flow, State, every_keeping, new, piece, times

Told = list[Any]
OBSERVERS = ("before_flow", "before_step", "after_step", "on_loop_iteration", "on_anchor_hit")
every_store = pytest.mark.parametrize("kind", KINDS)


async def add(state: State) -> None:
    state["n"] = state.get("n", 0) + 1


async def fail(state: State) -> None:
    state["half"] = True
    raise LookupError


def hears(told: Told, prefix: str = "", is_async: bool = False) -> Hooks[State]:
    """Hooks of every kind, which write down what they are told, with the path of the step."""

    def observer(kind: str) -> Callable[..., Any]:
        def observe(state: State, ctx: Context, *more: object) -> None:
            told.append((f"{prefix}{kind}", ctx.step, *more))

        async def observe_later(state: State, ctx: Context, *more: object) -> None:
            await anyio.lowlevel.checkpoint()
            observe(state, ctx, *more)

        return observe_later if is_async else observe

    def middleware(kind: str) -> Callable[..., Any]:
        async def around(proceed: Any, state: State, ctx: Context) -> Any:
            told.append((f"{prefix}{kind} in", ctx.step))
            try:
                return await proceed()
            finally:
                told.append((f"{prefix}{kind} out", ctx.step))

        return around

    observers = {kind: observer(kind) for kind in (*OBSERVERS, "after_flow", "on_error")}
    return Hooks[State](
        **observers,
        wrap_step=middleware("wrap_step"),
        wrap_parallel_fn=middleware("wrap_parallel_fn"),
    )


def around_step(name: str) -> Told:
    return [("before_step", name), ("wrap_step in", name), ("wrap_step out", name), ("after_step", name)]


# What they are told ---------------------------------------------------------------------------------------------------


@every_keeping
@pytest.mark.parametrize("is_async", [False, True])
async def test_everything_that_happens_is_told_in_its_order(kept: Any, is_async: bool) -> None:
    """To observers that are async or not, with the path of the step."""

    async def jump_once(state: State) -> str | None:
        state["jumps"] = state.get("jumps", 0) + 1
        return "#top" if state["jumps"] == 1 else None

    inner = piece().then(add, name="b")
    flow = new().then(add, name="a").loop(times(2), inner, name="l").batch(lambda state: "xy", inner, name="i")
    flow = flow.anchor("top").then(jump_once).branch(lambda state: "x", {"x": inner}, name="c").then(inner, name="s")
    told: Told = []
    await kept(flow.add_hooks(hears(told, is_async=is_async))).run({})
    expected: Told = [("before_flow", ""), *around_step("a")]
    for body in ("l[0]", "l[1]", "i[0]", "i[1]"):
        expected += [("on_loop_iteration", body), *around_step(f"{body}/b")]
    expected += [*around_step("jump_once"), ("on_anchor_hit", "top~1"), *around_step("jump_once~1")]
    expected += [*around_step("c~1/x/b"), *around_step("s~1/b"), ("after_flow", "", "completed")]
    assert told == expected


@every_keeping
async def test_a_hook_is_told_the_state_and_the_context_of_the_step(kept: Any) -> None:
    """The very state, with the run, the attempt, the item, its number, and the live objects."""
    state: State = {}
    told: Told = []

    def note(given: State, ctx: Context[Any]) -> None:
        assert given is state
        told.append((ctx.run_id, ctx.step, ctx.attempt, ctx.item, ctx.index, ctx.deps, ctx.idempotency_key))

    flow = new().batch(lambda state: ["x", "y"], add, name="each").add_hooks(Hooks(before_step=note))
    await kept(flow).run(state, run_id="r", deps=["d"])
    assert told == [("r", f"each[{n}]/add", 1, "xy"[n], n, ["d"], f"r/each[{n}]/add") for n in (0, 1)]


@every_keeping
async def test_each_attempt_is_wrapped_and_the_step_told_once(kept: Any) -> None:
    """A failed attempt is no error of the step; the error, if there is one in the end, is the step's own."""

    async def flaky(state: State, ctx: Context) -> None:
        if ctx.attempt < 3:
            raise OSError(str(ctx.attempt))

    told: Told = []
    await kept(new().then(flaky, retries=2).add_hooks(hears(told), ["flaky"])).run({})
    wrapped = [("wrap_step in", "flaky"), ("wrap_step out", "flaky")]
    flow_told = [("before_flow", ""), ("after_flow", "", "completed")]
    assert told == [flow_told[0], ("before_step", "flaky"), *wrapped * 3, ("after_step", "flaky"), flow_told[1]]
    told.clear()
    with pytest.raises(FlowError) as caught:
        await kept(new().then(flaky, retries=1).add_hooks(hears(told))).run({})
    assert told[1:-1] == [("before_step", "flaky"), *wrapped * 2, ("on_error", "flaky", caught.value.cause)]
    assert isinstance(caught.value.cause, OSError)
    assert told[-1] == ("after_flow", "", "failed")


@every_keeping
async def test_an_error_is_told_whatever_becomes_of_it(kept: Any) -> None:
    """Where a fallback or an on_error body takes over, too; the steps of that body are told as all are."""

    async def mend(state: State) -> None:
        assert "half" not in state

    told: Told = []
    flow = new().then(fail, fallback=mend).then(piece().then(fail).on_error(mend), name="sub")
    await kept(flow.add_hooks(hears(told))).run({})
    errors = [(each[1], type(each[2])) for each in told if each[0] == "on_error"]
    assert errors == [("fail", LookupError), ("sub/fail", LookupError)]
    assert [each[1] for each in told if each[0] == "before_step"] == ["fail", "sub/fail", "sub/@error/mend"]


async def test_lanes_are_wrapped_and_their_steps_told() -> None:
    """Items of a concurrent batch and the bodies of parallel alike; each with the path of the lane."""
    told: Told = []
    flow = new().parallel([piece().then(add, name="a"), piece().then(add, name="b")], reducer=reducers.sum, name="p")
    flow = flow.batch(lambda state: "x", piece().then(add, name="c"), concurrency=2, name="i")
    await flow.add_hooks(hears(told)).run({})
    for path, name in (("p[0]", "a"), ("p[1]", "b")):
        of_lane = [each for each in told if each[1].startswith(path)]
        inside = around_step(f"{path}/{name}")
        assert of_lane == [("wrap_parallel_fn in", path), *inside, ("wrap_parallel_fn out", path)]
    assert [each for each in told if each[1].startswith("i[0]")] == [
        ("on_loop_iteration", "i[0]"),
        ("wrap_parallel_fn in", "i[0]"),
        *around_step("i[0]/c"),
        ("wrap_parallel_fn out", "i[0]"),
    ]


async def test_hooks_of_lanes_are_told_their_draft() -> None:
    """What they do to it is done to that lane alone; before it and after it."""

    def mark(state: State, ctx: Context) -> None:
        state[f"seen by {ctx.step}"] = sorted(key for key in state if "seen" not in key)

    async def around(proceed: Any, state: State, ctx: Context) -> None:
        state[f"before {ctx.step}"] = True
        await proceed()
        state[f"after {ctx.step}"] = True

    async def step(state: State, ctx: Context) -> None:
        state[f"in {ctx.step}"] = True

    flow = new().parallel([step, step]).add_hooks(Hooks(wrap_parallel_fn=around, after_step=mark))
    state = (await flow.run({})).state
    for lane in ("parallel[0]", "parallel[1]"):
        assert state[f"seen by {lane}/step"] == [f"before {lane}", f"in {lane}/step"]
        assert state[f"after {lane}"]


# The beginning and the end --------------------------------------------------------------------------------------------


@every_store
async def test_the_end_is_told_with_the_status_that_is_stored(kind: str, tmp_path: Path) -> None:
    """Completed, failed, waiting, cancelled: each once, when the run is free already."""
    statuses: list[tuple[str, str, str | None]] = []

    async def told(state: State, ctx: Context, status: str) -> None:
        await anyio.lowlevel.checkpoint()
        run = await store.read(ctx.run_id)
        statuses.append((status, run.status, run.owner))

    async def stop(state: State) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with opened(kind, tmp_path) as store:
        hooks = Hooks(after_flow=told)
        for step in (add, fail, stop):
            flow = new().then(step).add_hooks(hooks).with_versioned_checkpoint(store)
            await asyncio.wait({asyncio.ensure_future(flow.run({}, run_id=step.__name__))})
        await new().sleep(60).add_hooks(hooks).with_versioned_checkpoint(store).run({}, run_id="sleep")
        assert statuses == [(each, each, None) for each in ("completed", "failed", "cancelled", "waiting")]


async def test_beginning_and_end_are_told_in_pairs() -> None:
    """For a run that goes on once more, but not for one that is finished; and where the store fails: still running."""
    failing = True

    async def guard(versions: Any) -> None:
        if failing:
            raise StoreFull("here")

    told: Told = []
    flow = new().then(add).add_hooks(hears(told), []).with_versioned_checkpoint(Guarded(guard))
    with pytest.raises(StoreFull):
        await flow.run({}, run_id="r")
    failing = False
    for _ in range(2):
        await flow.run({}, run_id="r")
    begin = ("before_flow", "")
    assert told == [begin, ("after_flow", "", "running"), begin, ("after_flow", "", "completed")]


async def test_an_end_is_told_whole_in_a_run_that_is_cancelled() -> None:
    """An observer that has to await something then is not cut off."""
    told: Told = []

    async def later(state: State, ctx: Context, status: str) -> None:
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        told.append(status)

    with anyio.CancelScope() as scope:

        async def stop(state: State) -> None:
            scope.cancel()
            await anyio.lowlevel.checkpoint()

        await new().then(stop).add_hooks(Hooks(after_flow=later)).run({})
    assert (scope.cancelled_caught, told) == (True, ["cancelled"])


# Several, and which ---------------------------------------------------------------------------------------------------


async def test_the_hooks_added_first_are_the_outermost() -> None:
    """Of middleware; observers are told in the order they were added."""
    told: Told = []
    flow = new().then(add)
    for prefix in ("1 ", "2 ", "3 "):
        flow = flow.add_hooks(hears(told, prefix))
    await flow.run({})
    assert [each[0] for each in told] == [
        *(f"{n} before_flow" for n in (1, 2, 3)),
        *(f"{n} before_step" for n in (1, 2, 3)),
        *(f"{n} wrap_step in" for n in (1, 2, 3)),
        *(f"{n} wrap_step out" for n in (3, 2, 1)),
        *(f"{n} after_step" for n in (1, 2, 3)),
        *(f"{n} after_flow" for n in (1, 2, 3)),
    ]


@pytest.mark.parametrize(
    ("filter", "named"),
    [
        (None, "send sender re-send x[1]"),
        ([], ""),
        (["send"], "send"),
        (["send*"], "send sender"),
        (["*send"], "send re-send"),
        (["s?nd", "x*"], "send x[1]"),
        (["[rs]e*"], "send sender re-send"),
        (["SEND"], ""),
        (["x[[]1]"], "x[1]"),
        (("send", "sender"), "send sender"),
        (lambda name: len(name) == 4, "send x[1]"),
    ],
)
async def test_a_filter_names_steps_by_globs_or_by_a_function(filter: Any, named: str) -> None:
    """Of their own names, wherever they stand; the beginning and the end of the run are told to all."""
    told: Told = []
    flow = new().then(add, name="send").then(piece().then(add, name="sender"), name="sub")
    flow = flow.loop(times(1), piece().then(add, name="re-send"), name="loop").then(add, name="x[1]")
    await flow.add_hooks(hears(told), filter).run({})
    steps = {"send": "send", "sub/sender": "sender", "loop[0]/re-send": "re-send", "x%5B1%5D": "x[1]"}
    assert [steps[each[1]] for each in told if each[0] == "before_step"] == named.split()
    assert [each[0] for each in told if not each[1]] == ["before_flow", "after_flow"]


async def test_a_filter_names_lanes_loops_and_anchors_by_the_names_of_their_steps() -> None:
    """What is told of a loop, a batch, lanes or an anchor is told to who has named it."""
    told: Told = []

    async def jump_once(state: State) -> Any:
        state["jumps"] = state.get("jumps", 0) + 1
        return goto("top") if state["jumps"] == 1 else None

    flow = new().anchor("top").then(jump_once).loop(times(1), add, name="loop").parallel([add], name="lanes")
    for name in ("top", "loop", "lanes"):
        await flow.add_hooks(hears(told), [name]).run({})
    assert [each[:2] for each in told if each[1]] == [
        ("on_anchor_hit", "top~1"),
        ("on_loop_iteration", "loop~1[0]"),
        ("wrap_parallel_fn in", "lanes~1[0]"),
        ("wrap_parallel_fn out", "lanes~1[0]"),
    ]


async def test_hooks_are_of_the_flow_that_they_were_added_to() -> None:
    """And of none that it was made from; they can be taken away again, with the same object only."""
    told: Told = []
    hooks, others = hears(told), hears(told, "other ")
    bare = new().then(add)
    both = bare.add_hooks(hooks, ["add"]).add_hooks(others).add_hooks(hooks, ["*"])
    await bare.run({})
    assert told == []
    await both.remove_hooks(hooks).run({})
    assert {each[0].split()[0] for each in told} == {"other"}
    told.clear()
    await both.remove_hooks(hooks).remove_hooks(others).remove_hooks(others).run({})
    assert told == []
    await both.remove_hooks(others).run({})
    assert [each[0] for each in told].count("before_step") == 2


async def test_a_run_keeps_the_hooks_that_it_began_with() -> None:
    """A flow never changes: what is added or taken away while it runs is for others."""
    told: Told = []
    hooks = hears(told)

    async def change(state: State) -> None:
        flow.remove_hooks(hooks)
        flow.add_hooks(hears(told, "new "))

    flow = new().then(change).then(add).add_hooks(hooks)
    await flow.run({})
    assert [each[:2] for each in told if each[0] == "before_step"] == [
        ("before_step", "change"),
        ("before_step", "add"),
    ]
    assert not any(each[0].startswith("new") for each in told)


@pytest.mark.parametrize("kind", [*OBSERVERS, "after_flow", "on_error", "wrap_step", "wrap_parallel_fn"])
@pytest.mark.parametrize("hook", ["print", 7, ["x"]], ids=str)
def test_a_hook_is_a_function(kind: str, hook: Any) -> None:
    """Anything else is refused at once."""
    with pytest.raises(BadOption, match=kind):
        Hooks(**{kind: hook})


def test_hooks_are_hooks() -> None:
    """What else is given as such is refused while building."""
    with pytest.raises(BadOption, match="hooks"):
        new().then(add).add_hooks(print)  # type: ignore[arg-type]


# Hooks that fail ------------------------------------------------------------------------------------------------------


def broken(*args: object) -> Any:
    raise OSError("a hook")


async def broken_later(*args: object) -> Any:
    await anyio.lowlevel.checkpoint()
    raise OSError("a hook")


async def jump(state: State) -> str | None:
    state["n"] = state.get("n", 0) + 1
    return "#top" if state["n"] == 1 else None


BROKEN: dict[str, tuple[Callable[[], Flow], str]] = {
    "before_flow": (lambda: new().then(add), "@before_flow"),
    "before_step": (lambda: new().then(add), "add"),
    "after_step": (lambda: new().then(add), "add"),
    "wrap_step": (lambda: new().then(add), "add"),
    "wrap_parallel_fn": (lambda: new().parallel([add]), "parallel[0]"),
    "on_loop_iteration": (lambda: new().loop(lambda state: "n" not in state, add, name="loop"), "loop[0]"),
    "on_anchor_hit": (lambda: new().anchor("top").then(jump), "top~1"),
    "on_error": (lambda: new().then(fail), "fail"),
}


@pytest.mark.parametrize("hook", [broken, broken_later], ids=lambda hook: hook.__name__)
@pytest.mark.parametrize("kind", BROKEN)
async def test_what_a_hook_raises_makes_the_step_fail(kind: str, hook: Any) -> None:
    """A FlowError that names it; the run is failed, and goes on without that hook."""
    build, step = BROKEN[kind]
    store = MemoryStore()
    flow = build().with_versioned_checkpoint(store)
    with pytest.raises(FlowError) as caught:
        await flow.add_hooks(Hooks(**{kind: hook})).run({}, run_id="r")
    assert caught.value.step == step
    assert (await store.read("r")).status == "failed"
    if kind != "on_error":
        assert str(caught.value.cause) == "a hook"
        assert (await flow.run({}, run_id="r")).status == "completed"


@pytest.mark.parametrize("kind", ["before_step", "wrap_step", "after_step", "wrap_parallel_fn", "on_loop_iteration"])
async def test_what_a_hook_raises_in_a_lane_is_a_failure_of_that_lane(kind: str) -> None:
    """It counts as any other, and the other lanes are not touched."""

    async def fail_first(*args: Any) -> None:
        ctx: Context = args[-1]
        if ctx.index == 0:
            raise OSError
        if kind.startswith("wrap"):
            await args[0]()

    async def mark(state: State, ctx: Context) -> None:
        state[f"{ctx.item}"] = True

    flow = new().batch(lambda state: "xyz", mark, name="each", concurrency=2, max_failures=1)
    result = await flow.add_hooks(Hooks(**{kind: fail_first})).run({})
    assert result.state == {"y": True, "z": True}
    assert [(each.step[:7], each.error) for each in result.failures] == [("each[0]", "OSError")]


async def test_what_a_hook_raises_is_caught_by_on_error() -> None:
    """As any other failure of the step; retries are for the step, and not for hooks around all of them."""

    async def mend(state: State, ctx: Context) -> None:
        assert ctx.failure is not None
        state["failed"] = (ctx.failure.step, ctx.failure.error)

    for kind in ("before_step", "after_step", "wrap_step"):
        flow = new().then(add, retries=1).add_hooks(Hooks(**{kind: broken}), ["add"]).on_error(mend)
        assert (await flow.run({})).state == {"failed": ("add", "OSError")}


async def test_the_end_of_a_complete_run_may_fail() -> None:
    """What after_flow raises reaches the caller, and the run is complete; that of a failed run hides nothing."""
    hooks, store = Hooks[State](after_flow=broken), MemoryStore()
    with pytest.raises(OSError, match="a hook"):
        await new().then(add).add_hooks(hooks).with_versioned_checkpoint(store).run({}, run_id="r")
    assert (await store.read("r")).status == "completed"
    with pytest.raises(FlowError) as caught:
        await new().then(fail).add_hooks(hooks).with_versioned_checkpoint(store).run({}, run_id="f")
    assert isinstance(caught.value.cause, LookupError)
    assert (await store.read("f")).status == "failed"


# Middleware -----------------------------------------------------------------------------------------------------------


@every_keeping
async def test_a_middleware_may_take_the_place_of_the_step(kept: Any) -> None:
    """One that does not proceed: the step is done, without having been called."""

    async def instead(proceed: Any, state: State, ctx: Context) -> None:
        state["instead"] = ctx.step

    flow = new().then(fail).then(add).add_hooks(Hooks(wrap_step=instead), ["fail"])
    assert (await kept(flow).run({})).state == {"instead": "fail", "n": 1}


async def test_a_middleware_may_jump() -> None:
    """What it returns is what the step returned: without the step, or in place of what the step says."""

    async def to_end(proceed: Any, state: State, ctx: Context) -> Any:
        if "proceed" in state:
            assert await proceed() == "#other"
        return goto("end")

    async def elsewhere(state: State) -> str:
        state["called"] = True
        return "#other"

    flow = new().then(elsewhere).then(fail).anchor("end").then(add).anchor("other").then(add, name="too")
    flow = flow.add_hooks(Hooks(wrap_step=to_end), ["elsewhere"])
    assert (await flow.run({})).state == {"n": 2}
    assert (await flow.run({"proceed": 1})).state == {"proceed": 1, "called": True, "n": 2}


async def test_what_a_middleware_returns_is_looked_at_as_what_a_step_returns() -> None:
    """An anchor that is not there, and what is no jump at all."""
    for value, error in (("#nowhere", UnknownAnchor), ("text", StepReturned), (7, StepReturned), (False, StepReturned)):

        async def give(proceed: Any, state: State, ctx: Context, value: Any = value) -> Any:
            return value

        with pytest.raises(error) as caught:
            await new().then(add).add_hooks(Hooks(wrap_step=give)).run({})
        assert caught.value.step == "add"


async def test_a_jump_of_the_step_stands_where_middleware_returns_nothing() -> None:
    """Through several of them; what an inner one returns, the outer ones are given."""
    given: Told = []

    async def forget(proceed: Any, state: State, ctx: Context) -> None:
        given.append(await proceed())

    flow = new().anchor("top").then(jump)
    for _ in range(3):
        flow = flow.add_hooks(Hooks(wrap_step=forget))
    assert (await flow.run({})).state == {"n": 2}
    assert given == ["#top"] * 3 + [None] * 3


@every_keeping
async def test_a_middleware_may_catch_what_the_step_raised(kept: Any) -> None:
    """Then the step is done; or it raises something else, which is then the failure."""

    async def catch(proceed: Any, state: State, ctx: Context) -> None:
        try:
            await proceed()
        except LookupError:
            state["caught"] = True

    async def translate(proceed: Any, state: State, ctx: Context) -> None:
        try:
            await proceed()
        except LookupError as error:
            raise PermissionError from error

    flow = kept(new().then(fail).then(add))
    assert (await flow.add_hooks(Hooks(wrap_step=catch)).run({})).state["caught"]
    with pytest.raises(FlowError) as failed:
        await flow.add_hooks(Hooks(wrap_step=translate)).run({})
    assert isinstance(failed.value.cause, PermissionError)


async def test_what_a_middleware_makes_of_an_attempt_counts_for_its_retries() -> None:
    """One that raises has made it fail; one that catches has made it succeed."""
    attempts: list[int] = []

    async def around(proceed: Any, state: State, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        await proceed()
        if ctx.attempt < 3:
            raise OSError

    assert (await new().then(add, retries=5).add_hooks(Hooks(wrap_step=around)).run({})).state == {"n": 1}
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize("kept", [KEEPING[name] for name in KEEPING if name != "not"])
async def test_a_middleware_may_proceed_again_when_the_step_has_failed(kept: Any) -> None:
    """From the state as it was before the step, as a retry does, where the run is kept."""
    calls: list[bool] = []

    async def again(proceed: Any, state: State, ctx: Context) -> None:
        try:
            await proceed()
        except LookupError:
            await proceed()

    async def flaky(state: State) -> None:
        calls.append("half" in state)
        state["half"] = True
        if len(calls) == 1:
            raise LookupError
        del state["half"]

    flow = new().then(add).then(flaky).add_hooks(Hooks(wrap_step=again), ["flaky"])
    assert (await kept(flow).run({})).state == {"n": 1}
    assert calls == [False, False]


async def test_hooks_ask_nothing_of_a_state_that_is_not_kept() -> None:
    """Without a store it may hold what cannot be stored, as in a flow without hooks."""
    client = object()
    result = await new().then(add).then(piece().then(add), name="sub").add_hooks(hears([])).run({"client": client})
    assert result.state == {"client": client, "n": 2}


async def test_the_time_of_an_attempt_is_that_of_the_step_alone() -> None:
    """A middleware sees the TimeoutError, and may take longer than that itself."""
    seen: Told = []

    async def around(proceed: Any, state: State, ctx: Context) -> None:
        await anyio.sleep(0.02)
        try:
            await proceed()
        except TimeoutError as error:
            seen.append(type(error))
            raise

    flow = new().then(add, timeout=0.01).add_hooks(Hooks(wrap_step=around))
    assert (await flow.run({})).state == {"n": 1}

    async def hang(state: State) -> None:
        await asyncio.Event().wait()

    with pytest.raises(FlowError):
        await new().then(hang, timeout=0.001).add_hooks(Hooks(wrap_step=around)).run({})
    assert seen == [TimeoutError]


# Middleware of lanes --------------------------------------------------------------------------------------------------


@every_keeping
async def test_a_middleware_may_leave_a_lane_out(kept: Any) -> None:
    """By not proceeding; the others are not touched."""

    async def around(proceed: Any, state: State, ctx: Context) -> None:
        if ctx.step != "parallel[1]":
            await proceed()

    async def mark(state: State, ctx: Context) -> None:
        state[ctx.step] = True

    result = await kept(new().parallel([mark, mark, mark]).add_hooks(Hooks(wrap_parallel_fn=around))).run({})
    assert set(result.state) == {"parallel[0]/mark", "parallel[2]/mark"}


@every_keeping
async def test_a_middleware_may_catch_the_failure_of_a_lane(kept: Any) -> None:
    """Then the lane is done, with what its steps did before, and without what the failed one half did."""

    async def catch(proceed: Any, state: State, ctx: Context) -> None:
        try:
            await proceed()
        except FlowError as error:
            caught.append((error.step, type(error.cause)))

    caught: Told = []
    flow = new().parallel([piece().then(add).then(fail)]).then(add).add_hooks(Hooks(wrap_parallel_fn=catch))
    assert (await kept(flow).run({})).state == {"n": 2}
    assert caught == [("parallel[0]/fail", LookupError)]


@every_keeping
async def test_a_middleware_may_proceed_again_with_a_lane_that_has_failed(kept: Any) -> None:
    """It goes on at the step that failed, and does no step again that is done."""
    calls: list[str] = []

    async def again(proceed: Any, state: State, ctx: Context) -> None:
        try:
            await proceed()
        except FlowError:
            await proceed()

    async def flaky(state: State, ctx: Context) -> None:
        assert "half" not in state
        state["half"] = True
        calls.append(ctx.step)
        if len(calls) == 1:
            raise LookupError
        del state["half"]

    flow = new().parallel([piece().then(add).then(flaky)]).add_hooks(Hooks(wrap_parallel_fn=again))
    assert (await kept(flow).run({})).state == {"n": 1}
    assert calls == ["parallel[0]/flaky"] * 2


@pytest.mark.parametrize("error", [TimeoutError(), CircuitOpen("s", "r", 1), OSError()], ids=lambda e: type(e).__name__)
async def test_whatever_a_middleware_of_lanes_raises_is_the_failure_of_the_lane(error: Exception) -> None:
    """Of ours, or of anybody's: items are given up for it, and on_error bodies mend it."""

    async def around(proceed: Any, state: State, ctx: Context) -> None:
        await proceed()
        if ctx.step in ("each[1]", "parallel[0]"):
            raise error

    async def mend(state: State, ctx: Context) -> None:
        assert ctx.failure is not None
        state["mended"] = (ctx.failure.step, ctx.failure.error)

    hooks, name = Hooks[State](wrap_parallel_fn=around), type(error).__qualname__
    items = new().batch(lambda state: range(3), add, name="each", concurrency=2, max_failures=1, reducer=reducers.sum)
    result = await items.add_hooks(hooks).run({})
    assert (result.state, [(each.step, each.error) for each in result.failures]) == ({"n": 2}, [("each[1]", name)])
    assert (await new().parallel([add]).on_error(mend).add_hooks(hooks).run({})).state == {
        "mended": ("parallel[0]", name)
    }


async def test_the_time_of_a_lane_counts_what_is_around_it() -> None:
    """A lane that hangs in its middleware runs out of time too."""

    async def hang(proceed: Any, state: State, ctx: Context) -> None:
        await proceed()
        await asyncio.Event().wait()

    flow = new().parallel([add], timeout=0.001).add_hooks(Hooks(wrap_parallel_fn=hang))
    with pytest.raises(FlowError) as caught:
        await flow.run({})
    assert (caught.value.step, type(caught.value.cause)) == ("parallel[0]", TimeoutError)


# What is stored -------------------------------------------------------------------------------------------------------


def varied() -> Flow:
    """Steps of most kinds."""
    inner = piece().then(add, name="b")
    flow = new().then(add, name="a").loop(times(2), inner, name="l").batch(lambda state: "xy", inner, name="i")
    flow = flow.parallel([inner, piece().then(add, name="c")], reducer=reducers.sum).then(inner, name="s")
    return flow.batch(lambda state: "xy", inner, name="j", concurrency=2, reducer=reducers.sum)


def told_versions(versions: list[Version]) -> list[tuple[object, ...]]:
    return [(each.seq, each.path, each.step_index, each.body, each.base) for each in versions]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_hooks_change_nothing_of_what_is_stored(durability: Any) -> None:
    """A run with hooks of every kind has the very versions of one without."""
    store = MemoryStore()
    flow = varied().with_versioned_checkpoint(store, durability=durability)
    bare = await flow.run({}, run_id="bare")
    hooked = await flow.add_hooks(hears([])).add_hooks(hears([], is_async=True), ["a", "l"]).run({}, run_id="hooked")
    assert hooked.state == bare.state
    assert told_versions(await stored_versions(store, "hooked")) == told_versions(await stored_versions(store, "bare"))


async def test_a_run_that_goes_on_tells_of_the_steps_that_it_does() -> None:
    """And not of those that were done before."""
    is_mended, told = False, list[Any]()

    async def fail_first(state: State) -> None:
        if not is_mended:
            raise LookupError

    flow = new().then(add).then(fail_first).add_hooks(hears(told)).with_versioned_checkpoint(MemoryStore())
    with pytest.raises(FlowError):
        await flow.run({}, run_id="r")
    told.clear()
    is_mended = True
    await flow.run({}, run_id="r")
    assert told == [("before_flow", ""), *around_step("fail_first"), ("after_flow", "", "completed")]


@pytest.mark.parametrize(
    "error", [StoreFull("here"), OSError("disk"), TimeoutError("db")], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_save_that_fails_is_no_failure_of_a_step(error: Exception, durability: Any) -> None:
    """Whichever save it is: neither hooks nor on_error hear of it, the caller does; and the run goes on later."""
    told: Told = []

    async def answer() -> str:
        return "once"

    async def long(state: State, ctx: Context) -> None:
        try:
            state["long"] = await ctx.once("x", answer)
        except Exception as caught:  # the step could not do anything about it
            told.append(caught)
            raise

    async def mend(state: State) -> None:
        told.append("mend")

    async def around(proceed: Any, state: State, ctx: Context) -> None:
        try:
            await proceed()
        except Exception as caught:
            told.append(caught)
            raise PermissionError from caught

    hooks = Hooks[State](wrap_step=around, wrap_parallel_fn=around, on_error=lambda state, ctx, e: told.append(e))
    body = (
        varied()
        .then(long)
        .parallel([piece().then(long).then(add), piece().then(add, name="d")], name="p2", reducer=reducers.sum)
    )
    flow = new().then(body.on_error(mend), name="sub").on_error(mend).add_hooks(hooks)
    for at in range(1, 100):
        store = Failing(error, at)
        kept = flow.with_versioned_checkpoint(store, durability=durability)
        ran = asyncio.ensure_future(kept.run({}, run_id="r"))
        await asyncio.wait({ran})
        assert told == []
        if store.saves < at:
            assert ran.result().state == {"n": 12, "long": "once"}
            return
        assert (ran.exception(), (await store.read("r")).status) == (error, "running")
        assert (await kept.run({}, run_id="r")).state == {"n": 12, "long": "once"}
    raise AssertionError


class Failing(Guarded):
    """A store whose save number `at` fails."""

    def __init__(self, error: Exception, at: int) -> None:
        super().__init__(self._count)
        self._error, self._at = error, at
        self.saves = 0

    async def _count(self, versions: Sequence[Version]) -> None:
        self.saves += 1
        if self.saves == self._at:
            raise self._error
