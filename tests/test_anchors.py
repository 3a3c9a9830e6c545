"""Anchors, and the jumps that lead to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from flowneer_async import (
    Context,
    FlowBuilder,
    FlowError,
    Hooks,
    StepReturned,
    TooManyVisits,
    UnknownAnchor,
    goto,
)
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.chains import stored_states, stored_versions
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
    tracing,
)

WAYS: dict[str, Callable[[str], Any]] = {"goto": goto, "text": lambda name: f"#{name}"}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def jumps(target: str, number: int, way: Callable[[str], Any] = goto) -> Callable[[State], Any]:
    """A step that jumps so often, and then lets the run go on."""

    def jump(state: State) -> Any:
        state["jumps"] = state.get("jumps", 0) + 1
        return way(target) if state["jumps"] <= number else None

    return jump


def back(number: int = 2, max_visits: int | None = None, way: Callable[[str], Any] = goto) -> Flow:
    flow = new().then(trace, name="a").anchor("top", max_visits).then(trace, name="b")
    return flow.then(jumps("top", number, way), name="jump").then(trace, name="c")


@every_keeping
@every_way
async def test_a_jump_back_goes_on_after_the_anchor(kept: Any, way: Callable[[str], Any]) -> None:
    """By goto("name") or "#name"; the steps that are done again have the number of the visit in their paths."""
    result = await kept(back(way=way)).run({})
    assert result.state == {"jumps": 3, "trace": ["a", "b", "b~1", "b~2", "c~2"]}


@every_keeping
@every_way
async def test_a_jump_forward_passes_over_what_is_between(kept: Any, way: Callable[[str], Any]) -> None:
    """The steps between are not done."""
    flow = new().then(jumps("end", 1, way), name="jump").then(trace, name="between").anchor("end").then(trace, name="z")
    assert (await kept(flow).run({})).state["trace"] == ["z~1"]


async def test_an_async_step_and_a_fallback_may_jump() -> None:
    """As any other step."""

    async def jump(state: State, ctx: Context) -> Any:
        raise OSError

    async def fall(state: State, ctx: Context) -> Any:
        return goto("end")

    for step, options in ((fall, {}), (jump, {"fallback": fall}), (jump, {"fallback": fall, "retries": 1})):
        options: dict[str, Any]
        flow = new().then(step, name="jump", **options).then(trace, name="between").anchor("end").then(trace, name="z")
        assert (await flow.run({})).state["trace"] == ["z~1"]
        await same_from_everywhere(flow)


async def test_an_anchor_at_the_very_end_ends_the_body() -> None:
    """A jump there passes over all that is left."""
    flow = new().then(jumps("end", 1), name="jump").then(trace).anchor("end")
    assert (await flow.run({})).state == {"jumps": 1}
    await same_from_everywhere(flow)


async def test_an_anchor_is_passed_without_a_trace() -> None:
    """It makes no version."""
    store = MemoryStore()
    flow = new().anchor("x").then(trace, name="a").anchor("y").with_versioned_checkpoint(store)
    await flow.run({}, run_id="r")
    assert await paths_of(store) == ["", "a"]


# Out of bodies --------------------------------------------------------------------------------------------------------


def around(body: Any, kind: str, top: str = "top", end: str = "end") -> Flow:
    """A flow of one body of this kind between an anchor and another."""
    flow = new().anchor(top).then(trace, name="a")
    forms: dict[str, Callable[[], Flow]] = {
        "sub": lambda: flow.then(body, name="it"),
        "branch": lambda: flow.branch(lambda state: "x", {"x": body}, name="it"),
        "loop": lambda: flow.loop(times(2), body, name="it"),
        "batch": lambda: flow.batch(lambda state: "pq", body, name="it"),
    }
    return forms[kind]().then(trace, name="z").anchor(end).then(trace, name="end-step")


every_kind = pytest.mark.parametrize("kind", ["sub", "branch", "loop", "batch"])
every_target = pytest.mark.parametrize(
    ("target", "after"), [("top", ["a~1", "x", "y", "z~1", "end-step~1"]), ("end", ["end-step~1"])]
)


@every_keeping
@every_kind
@every_target
async def test_a_jump_leads_out_of_a_body(kept: Any, kind: str, target: str, after: list[str]) -> None:
    """To an anchor of the body around it, before or after the step that is left."""
    flow = around(tracing("x").then(jumps(target, 1), name="jump").then(trace, name="y"), kind)
    found = (await kept(flow).run({})).state["trace"]
    number = {"sub": "", "branch": "/x", "loop": "[0]", "batch": "[0]"}[kind]
    assert found[:2] == ["a", f"it{number}/x"]
    assert found[2] == after[0]
    assert [name.rpartition("/")[2] for name in found if name.endswith(after[-1])] == after[-1:]


@every_kind
@every_target
async def test_a_run_that_has_jumped_goes_on_where_it_landed(kind: str, target: str, after: list[str]) -> None:
    """From each version, and after a crash at each."""
    flow = around(tracing("x").then(jumps(target, 2), name="jump").then(trace, name="y"), kind)
    some: list[dict[str, Any]] = [{}, {"durability": "async"}, {"skip_unchanged": True}]
    for options in some:
        await same_from_everywhere(flow, **options)


@every_keeping
async def test_a_jump_leads_out_of_many_bodies_at_once(kept: Any) -> None:
    """The nearest body that has the anchor is where it lands."""
    inner = tracing("x").then(jumps("far", 2), name="jump").then(trace, name="y")
    for kind in ("batch", "branch", "loop", "sub"):
        inner = around(inner, kind, f"before {kind}", f"after {kind}")
    flow = new().anchor("far").then(trace, name="a").then(inner, name="deep").then(trace, name="z")
    result = await kept(flow).run({})
    assert [path for path in result.state["trace"] if "/" not in path] == ["a", "a~1", "a~2", "z~2"]
    deepest = "it/it[0]/it/x/it[0]/x"
    found = [path for path in result.state["trace"] if path.endswith("/x")]
    assert found[:3] == [f"deep{visit}/{deepest}" for visit in ("", "~1", "~2")]
    await same_from_everywhere(flow)


async def test_a_body_that_is_left_is_forgotten() -> None:
    """The run remembers nothing of it: neither its items nor its visits, however often it is left."""

    sizes: list[int] = []
    for number in (1, 6):
        body = piece().anchor("near", 3).then(jumps("far", number), name="jump")
        store = MemoryStore()
        flow = new().anchor("far").batch(lambda state: "pqr", body, name="it").then(trace)
        kept = flow.with_versioned_checkpoint(store)
        result = await kept.run({"jumps": 0}, run_id="r")
        assert result.state["jumps"] == number + 3
        await kept.resume_from(str(result.version), store).run(run_id="f")
        (version,) = await stored_versions(store, "f")
        sizes.append(len(version.body) - len(str(number)))
    assert sizes[0] == sizes[1]


# Where it cannot lead -------------------------------------------------------------------------------------------------


@every_keeping
@every_way
async def test_a_jump_to_no_anchor_is_told(kept: Any, way: Callable[[str], Any]) -> None:
    """The error names step and anchor; the step is not taken for done."""
    flow = new().anchor("one").then(trace, name="a").then(lambda state: way("two"), name="jump")
    with pytest.raises(UnknownAnchor) as caught:
        await kept(flow).run({}, run_id="r")
    assert (caught.value.step, caught.value.run_id, caught.value.anchor) == ("jump", "r", "two")


async def test_a_jump_that_led_nowhere_is_made_again() -> None:
    """The run goes on at that step, once the flow has the anchor."""
    store, deps = MemoryStore(), list[str]()

    def jump(state: State, ctx: Context[list[str]]) -> str:
        ctx.deps.append(ctx.step)
        state["jumped"] = True
        return "#end"

    flow = new().then(trace, name="a").then(jump).then(trace, name="b")
    with pytest.raises(UnknownAnchor):
        await flow.with_versioned_checkpoint(store).run({}, run_id="r", deps=deps)
    assert (await stored_states(store, "r"))[-1] == {"trace": ["a"]}
    mended = flow.anchor("end").then(trace, name="c").with_versioned_checkpoint(store)
    assert (await mended.run(run_id="r", deps=deps)).state == {"trace": ["a", "c~1"], "jumped": True}
    assert deps == ["jump", "jump"]


@pytest.mark.parametrize(
    "build",
    [
        lambda flow, body: flow.parallel([body]),
        lambda flow, body: flow.batch(lambda state: "p", body, name="it", concurrency=2),
        lambda flow, body: flow.batch(lambda state: "p", body, name="it", max_failures=0, timeout=60),
    ],
    ids=["parallel", "concurrent batch", "batch with a limit of time"],
)
async def test_a_jump_cannot_leave_its_lane(build: Any) -> None:
    """For the others go on; within the lane it can lead anywhere."""
    flow = build(new().anchor("out"), piece().anchor("in").then(jumps("out", 1), name="jump"))
    with pytest.raises(UnknownAnchor, match="'out'"):
        await flow.run({})
    inside = build(new().anchor("out"), piece().anchor("in").then(jumps("in", 3), name="jump"))
    assert (await inside.run({})).state == {"jumps": 4}
    await same_from_everywhere(inside)


async def test_a_jump_cannot_lead_into_a_body() -> None:
    """An anchor is seen from its own body and from those inside of it."""
    for body in (piece().anchor("inside").then(trace), lambda b: b.anchor("inside").then(trace)):
        flow = new().branch(lambda state: "x", {"x": body}, name="it").then(lambda state: "#inside", name="jump")
        with pytest.raises(UnknownAnchor):
            await flow.run({})


@pytest.mark.parametrize("value", ["top", "", 7, True, ["#top"], b"#top", {}], ids=repr)
async def test_what_is_no_jump_is_refused(value: Any) -> None:
    """A step changes the state in place, and returns nothing else; the value is not shown."""
    with pytest.raises(StepReturned) as caught:
        await new().anchor("top").then(lambda state: value, name="jump").run({}, run_id="r")
    assert (caught.value.step, caught.value.value_type) == ("jump", type(value))


async def test_a_jump_from_on_error_leads_out_of_what_has_failed() -> None:
    """To an anchor around it, as out of any other body."""

    def fail(state: State) -> None:
        raise OSError

    out = piece().then(fail).on_error(lambda b: b.then(jumps("end", 1), name="jump"))
    flow = new().then(out, name="it").then(trace, name="never").anchor("end").then(trace, name="z")
    assert (await flow.run({})).state["trace"] == ["z~1"]
    await same_from_everywhere(flow)


async def test_a_jump_from_on_error_tries_what_has_failed_again() -> None:
    """From an anchor of it on, as often as that allows; each time has keys of its own."""

    def fail(state: State) -> None:
        state["half"] = True
        if len(state["trace"]) < 6:
            raise OSError
        del state["half"]

    def again(state: State, ctx: Context) -> Any:
        assert ctx.failure is not None
        assert "half" not in state
        state["failures"] = [*state.get("failures", []), ctx.failure.step]
        return goto("again")

    body = tracing("a").anchor("again", 2).then(trace, name="b").then(fail).then(trace, name="c")
    flow = new().then(body.on_error(tracing("d").then(again)), name="it").then(trace, name="z")
    result = await flow.run({})
    found = result.state["trace"]
    assert [path.rpartition("/")[2] for path in found] == ["a", "b", "d", "b~1", "d", "b~2", "c~2", "z"]
    assert result.state["failures"] == ["it/fail", "it/fail~1"]
    assert len(set(found)) == len(found)
    await same_from_everywhere(flow)
    hopeless = tracing("a").anchor("again", 1).then(fail)
    with pytest.raises(FlowError) as caught:
        await new().then(hopeless.on_error(piece().then(again)), name="it").run({})
    assert isinstance(caught.value.cause, TooManyVisits)


# max_visits -----------------------------------------------------------------------------------------------------------


@every_keeping
async def test_so_many_jumps_may_lead_to_an_anchor(kept: Any) -> None:
    """To come to it without a jump does not count; one jump more is the failure of the anchor."""
    assert (await kept(back(2, max_visits=2)).run({})).state["jumps"] == 3
    with pytest.raises(FlowError) as caught:
        await kept(back(3, max_visits=2)).run({}, run_id="r")
    cause = caught.value.cause
    assert isinstance(cause, TooManyVisits)
    assert (caught.value.step, cause.anchor, cause.run_id, cause.max_visits) == ("top", "top", "r", 2)


async def test_visits_survive_a_crash() -> None:
    """A run that goes on has as many left as it had; one jump too many is one after a resume, too."""
    store = MemoryStore()
    flow = back(3, max_visits=2).with_versioned_checkpoint(store)
    with pytest.raises(FlowError):
        await flow.run({}, run_id="r")
    for version in await stored_versions(store, "r"):
        with pytest.raises(FlowError) as caught:
            await flow.resume_from(version.id, store).run()
        assert isinstance(caught.value.cause, TooManyVisits)
    with pytest.raises(FlowError):
        await flow.run(run_id="r")
    assert (await stored_states(store, "r"))[-1]["trace"] == ["a", "b", "b~1", "b~2"]


async def test_each_anchor_counts_for_itself() -> None:
    """And jumps to one without a limit do not count at all."""

    def jump(state: State) -> str | None:
        state["jumps"] = state.get("jumps", 0) + 1
        return {1: "#x", 2: "#x", 3: "#y", 4: "#free", 5: "#free", 6: "#free"}.get(state["jumps"])

    flow = new().anchor("x", 2).anchor("y", 1).anchor("free").then(jump)
    assert (await flow.run({})).state == {"jumps": 7}


async def test_an_anchor_in_a_body_counts_anew_each_time_the_body_is_entered() -> None:
    """In the next iteration it has all its visits again."""
    body = piece().anchor("in", 1).then(lambda state, ctx: "#in" if "~" not in ctx.step else None, name="jump")
    flow = new().loop(times(3), body, name="lo").then(trace)
    assert (await flow.run({})).state == {"trace": ["trace"]}
    paths = await same_from_everywhere(flow)
    assert steps(paths) == [*(f"lo[{n}]/jump{visit}" for n in range(3) for visit in ("", "~1")), "trace"]


async def test_a_step_that_jumps_too_often_may_be_caught() -> None:
    """It is a failure like any other: on_error takes over, with the state before the step that jumped."""

    async def give_up(state: State, ctx: Context) -> None:
        assert ctx.failure is not None
        state["gave up"] = [ctx.failure.step, ctx.failure.error]

    flow = back(3, max_visits=1).on_error(give_up)
    state = (await flow.run({})).state
    assert state == {"jumps": 1, "trace": ["a", "b", "b~1"], "gave up": ["top", "TooManyVisits"]}
    await same_from_everywhere(flow)


# What is stored -------------------------------------------------------------------------------------------------------


async def test_a_jump_and_where_it_landed_are_one_version() -> None:
    """The version has the path of the step that jumped; a run that goes on from it is at the anchor already."""
    store = MemoryStore()
    flow = back(1).with_versioned_checkpoint(store)
    await flow.run({}, run_id="r")
    assert await paths_of(store) == ["", "a", "b", "jump", "b~1", "jump~1", "c~1"]
    assert [v.step_index for v in await stored_versions(store, "r")] == [-1, 0, 2, 1, 2, 3, 4]
    keys: list[str] = []
    hooks = Hooks[State](before_step=lambda state, ctx: keys.append(ctx.step))
    await flow.add_hooks(hooks).resume_from("r@3", store).run()
    assert keys == ["b~1", "jump~1", "c~1"]


async def test_each_visit_has_idempotency_keys_of_its_own() -> None:
    """A step that is done again is another call for the outside world."""
    keys: list[str] = []

    async def pay(state: State, ctx: Context) -> None:
        keys.append(ctx.idempotency_key)

    await new().anchor("top").then(pay).then(jumps("top", 2), name="jump").run({}, run_id="r")
    assert keys == ["r/pay", "r/pay~1", "r/pay~2"]


async def test_a_run_goes_on_the_same_from_everywhere() -> None:
    """After jumps back, forward, and of two steps to two anchors, however it is kept."""
    flow = back(3).then(jumps("top", 5), name="more").then(lambda state: "#end", name="on").then(trace, name="never")
    flow = flow.anchor("end").then(trace, name="z")
    some: list[dict[str, Any]] = [{}, {"durability": "async"}, {"durability": "exit"}, {"skip_unchanged": True}]
    for options in some:
        await same_from_everywhere(flow, **options)
    for kept_names in (["a", "b"], ["jump"], ["c", "more"], []):
        await same_from_everywhere(flow, filter=kept_names)


async def test_a_jump_that_the_filter_passed_over_is_made_again_with_all_before_it() -> None:
    """Where the run waits after it, too: what was not stored is not taken for done."""
    world = FakeWorld()
    flow = new().then(trace, name="a").then(lambda state: "#end", name="jump").then(trace, name="never")
    flow = flow.anchor("end").sleep(5).then(trace, name="z").with_versioned_checkpoint(MemoryStore(), ["z"])
    assert (await flow.run({}, run_id="r", world=world)).status == "waiting"
    world.move(5)
    assert (await flow.resume("r", world=world)).state["trace"] == ["a", "z~1"]


async def test_a_jump_is_told_to_the_hooks() -> None:
    """With the anchor, and the number of the visit."""
    told: list[str] = []
    hooks = Hooks[State](on_anchor_hit=lambda state, ctx: told.append(ctx.step))
    await back(2).add_hooks(hooks).run({})
    assert told == ["top~1", "top~2"]
    told.clear()
    await back(2).add_hooks(hooks, ["other"]).run({})
    assert told == []


@dataclass
class Draft:
    text: str = ""
    reviews: int = 0


async def test_a_typed_state_goes_round_in_a_jump() -> None:
    """And comes back as its type after a resume at any visit."""

    async def write(state: Draft, ctx: Context) -> None:
        state.text += ctx.step

    def review(state: Draft) -> str | None:
        state.reviews += 1
        return None if state.reviews == 3 else "#write again"

    flow = FlowBuilder("draft", Draft).anchor("write again", max_visits=5).then(write).then(review)
    assert (await flow.run(Draft())).state == Draft("writewrite~1write~2", 3)
    await same_from_everywhere(flow, Draft)
