"""A flow that has changed since a run was stored: what may change, what may not, new names, and migrations."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import (
    BadOption,
    Context,
    DuplicateName,
    FlowBuilder,
    FlowChanged,
    FlowError,
    ForeignRun,
    NotWaiting,
    Undone,
    fragment,
)
from flowneer_async.testing import Crash
from tests.support.stage import Flow, Stage, State
from tests.support.stores import KINDS

Ctx = Context[Any]
Build = Callable[[Flow], Flow]


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage("memory", tmp_path)


def do(state: State, ctx: Ctx) -> None:
    state["done"] = [*state.get("done", []), ctx.step]


def steps(text: str, flow: Flow | None = None) -> Flow:
    """A flow of steps, by their names; `nap` is one that sleeps, where the run is stored when the code changes."""
    flow = FlowBuilder("flow") if flow is None else flow
    for name in text.split():
        flow = flow.sleep(10, name=name) if name.startswith("nap") else flow.then(do, name=name)
    return flow


def body(text: str) -> Flow:
    return steps(text, fragment())


async def begun(stage: Stage, flow: Flow) -> None:
    """A run that sleeps, and whose time has come: it goes on as soon as it may."""
    assert (await stage.run(flow)).status == "waiting"
    stage.world.move(10)


# What may change ------------------------------------------------------------------------------------------------------

BODIES: dict[str, Callable[[str], Flow]] = {
    "top": steps,
    "sub": lambda text: steps("z").then(body(text), name="sub"),
    "case": lambda text: steps("z").branch(lambda s: "x", {"x": body(text), "y": body("other")}, name="route"),
    "default": lambda text: steps("z").branch(lambda s: "?", {"y": body("other")}, default=body(text), name="route"),
    "loop": lambda text: steps("z").loop(lambda s, ctx: ctx.index < 1, body(text), name="poll"),
    "batch": lambda text: steps("z").batch(lambda s: [1], body(text), name="items"),
    "alone": lambda text: steps("z").batch(lambda s: [1], body(text), name="items", max_failures=1),
    "lanes": lambda text: steps("z").batch(lambda s: [1], body(text), name="items", concurrency=2),
    "lane": lambda text: steps("z").parallel([body(text)]),
    "on_error": lambda text: steps("z").then(fragment().then(fail).on_error(body(text)), name="sub"),
    "deep": lambda text: steps("z").then(
        fragment().loop(
            lambda s, ctx: ctx.index < 1,
            fragment().parallel([fragment().branch(lambda s: "x", {"x": body(text)}, name="b")]),
            name="l",
        ),
        name="sub",
    ),
}

every_body = pytest.mark.parametrize("build", BODIES.values(), ids=BODIES)


def fail(state: State) -> None:
    raise ValueError


def last_names(result: Any) -> str:
    """The names of the steps that were done, in order, but for the one before the body."""
    return " ".join(step.rpartition("/")[2] for step in result.state["done"] if step != "z")


@every_body
async def test_what_lies_ahead_may_change(build: Callable[[str], Flow], quick: Stage) -> None:
    """Steps that the run has not come to are removed, inserted, replaced and put in another order."""
    await begun(quick, build("a nap b c"))
    assert last_names(await quick.run(build("a nap c new b"))) == "a c new b"


@every_body
async def test_what_is_behind_may_be_added_to(build: Callable[[str], Flow], quick: Stage) -> None:
    """A step inserted before the position is not done any more: the run has passed that place."""
    await begun(quick, build("a nap b"))
    assert last_names(await quick.run(build("new a newer nap b"))) == "a b"


@every_body
@pytest.mark.parametrize("now", ["nap b", "b a nap", "nap a b", "a b nap", "a other b", "a b", "other"])
async def test_a_passed_step_may_not_leave_nor_change_its_place(
    build: Callable[[str], Flow], now: str, quick: Stage
) -> None:
    """FlowChanged, before any step: plan_resume says so too, the run stays as it was, and goes on with the old code."""
    await begun(quick, build("a nap b"))
    changed = build(now)
    assert isinstance((await quick.plan(changed)).reason, FlowChanged)
    paths = await quick.paths()
    with pytest.raises(FlowChanged) as caught:
        await quick.run(changed)
    assert caught.value.run_id == "r"
    assert (await quick.status(), await quick.paths()) == ("waiting", paths)
    assert last_names(await quick.run(build("a nap b"))) == "a b"


async def test_the_error_shows_both_lists(quick: Stage) -> None:
    """What the run has passed, and what the flow's steps are now."""
    await begun(quick, steps("a b nap c"))
    with pytest.raises(FlowChanged, match=r"\[a, b, nap\].*\[a, nap, c\]") as caught:
        await quick.run(steps("a nap c"))
    assert (caught.value.passed, caught.value.steps) == (("a", "b", "nap"), ("a", "nap", "c"))


async def test_bodies_that_are_over_may_change(quick: Stage) -> None:
    """The run has left them for good: of what it has passed, only their steps as a whole count."""

    def flow(inner: str) -> Flow:
        lanes = [fragment().then(body(inner), name="lane"), body("other")]
        built = steps("z").then(body(inner), name="sub").loop(lambda s, ctx: ctx.index < 1, body(inner), name="poll")
        built = built.batch(lambda s: [1], body(inner), name="items")
        return steps("nap", built.parallel(lanes, reducer={"done": lambda before, values: before}))

    await begun(quick, flow("a b"))
    assert (await quick.run(flow("b new"))).status == "completed"


async def test_a_later_iteration_may_be_another(quick: Stage) -> None:
    """What comes after the position in a loop may change, though earlier iterations have passed it."""

    def flow(inner: str) -> Flow:
        return steps("").loop(lambda s, ctx: ctx.index < 3, body(inner), name="l")

    assert (await quick.run(flow("a nap b"))).status == "waiting"
    quick.world.move(10)
    assert (await quick.resume(flow("a nap b"))).waits[0].step == "l[1]/nap"
    quick.world.move(10)
    await quick.resume(flow("a nap c"))
    quick.world.move(10)
    state = (await quick.resume(flow("a nap c"))).state
    assert state["done"] == ["l[0]/a", "l[0]/b", "l[1]/a", "l[1]/c", "l[2]/a", "l[2]/c"]


async def test_functions_and_options_may_change(quick: Stage) -> None:
    """A step is its name: what it does, and how often it is tried, is up to the code of the day."""
    await begun(quick, steps("a nap b"))
    changed = steps("a nap").then(lambda s: s.update(new=1), name="b", retries=3, timeout=5, compensate=do)
    assert (await quick.run(changed)).state == {"done": ["a"], "new": 1}


MODES: list[dict[str, Any]] = [{}, {"max_failures": 1}, {"timeout": 60}, {"concurrency": 2}, {"concurrency": 4}]


@pytest.mark.parametrize("after", MODES, ids=repr)
@pytest.mark.parametrize("before", MODES, ids=repr)
async def test_a_batch_may_be_tuned_while_a_run_is_in_it(
    before: dict[str, Any], after: dict[str, Any], quick: Stage
) -> None:
    """From whichever version: no item is lost, and none is done twice, but for one that was in the middle."""

    def flow(options: dict[str, Any]) -> Flow:
        return FlowBuilder("flow").batch(lambda s: range(3), fragment().then(count), name="items", **options)

    await quick.run(flow(before))
    for seq in range(len(await quick.paths()) + 1):
        fork = await quick.fork(flow(after), seq, f"fork-{seq}")
        assert fork.state == {"0": 1, "1": 1, "2": 1}, seq


def count(state: State, ctx: Ctx) -> None:
    state[str(ctx.index)] = state.get(str(ctx.index), 0) + 1


KINDS_OF_BODY: dict[str, Callable[[Flow], Flow]] = {
    "sub": lambda inner: FlowBuilder("flow").then(inner, name="x"),
    "loop": lambda inner: FlowBuilder("flow").loop(lambda s, ctx: ctx.index < 1, inner, name="x"),
    "batch": lambda inner: FlowBuilder("flow").batch(lambda s: [1], inner, name="x"),
    "parallel": lambda inner: FlowBuilder("flow").parallel([inner], name="x"),
    "lanes": lambda inner: FlowBuilder("flow").batch(lambda s: [1], inner, name="x", concurrency=2),
}


@pytest.mark.parametrize("after", KINDS_OF_BODY)
@pytest.mark.parametrize("before", KINDS_OF_BODY)
async def test_a_body_that_a_run_is_in_may_not_become_one_of_another_kind(
    before: str, after: str, quick: Stage
) -> None:
    """A loop is no flow, and lanes are no loop: FlowChanged, rather than work that is lost or done twice."""
    if before == after or {before, after} == {"batch", "lanes"}:
        return
    await begun(quick, KINDS_OF_BODY[before](body("a nap b")))
    with pytest.raises(FlowChanged):
        await quick.run(KINDS_OF_BODY[after](body("a nap b")))
    assert (await quick.run(KINDS_OF_BODY[before](body("a nap b")))).status == "completed"


def lanes(*texts: str) -> Flow:
    return FlowBuilder("flow").parallel(
        list(map(body, texts)), reducer={"done": lambda before, values: [*chain(*values)]}
    )


@pytest.mark.parametrize(
    "now",
    [["b nap b2", "a nap a2"], ["a nap a2"], ["b nap b2"], ["new", "a nap a2", "b nap b2"], ["a nap a2", "nap b2"]],
    ids=repr,
)
async def test_lanes_at_work_may_not_leave_nor_change_their_places(now: list[str], quick: Stage) -> None:
    """Each has its own draft and position, also where two of them have steps of the same name."""
    await begun(quick, lanes("a nap a2", "b nap b2"))
    assert isinstance((await quick.plan(lanes(*now))).reason, FlowChanged)
    with pytest.raises(FlowChanged):
        await quick.run(lanes(*now))
    assert len((await quick.run(lanes("a nap a2", "b nap b2"))).state["done"]) == 4


async def test_a_lane_may_be_added_after_the_others(quick: Stage) -> None:
    """It has not begun, as the others had not at first."""
    await begun(quick, lanes("a nap a2"))
    assert len((await quick.run(lanes("a nap a2", "new"))).state["done"]) == 3


@pytest.mark.parametrize("seq", range(1, 8))
async def test_a_passed_step_of_a_lane_counts_wherever_the_others_are(seq: int, quick: Stage) -> None:
    """From any version: FlowChanged where the lane has passed it, else it goes on without it."""
    before, after = lanes("a nap a2", "b nap-b b2"), lanes("a nap a2", "nap-b b2")
    await quick.run(before)
    quick.world.move(10)
    await quick.run(before)
    passed = "parallel[1]/b" in (await quick.paths())[:seq]
    if passed:
        with pytest.raises(FlowChanged):
            await quick.fork(after, seq, "fork")
    else:
        assert (await quick.fork(after, seq, "fork")).status == "waiting"


async def test_the_case_that_was_chosen_may_not_leave(quick: Stage) -> None:
    """Its choice is stored, and not made again; before it is made, the cases are free."""

    def flow(*cases: str) -> Flow:
        return steps("nap").branch(lambda s: cases[0], {case: body("a nap-2") for case in cases}, name="route")

    await begun(quick, flow("x", "y"))
    await quick.run(flow("x", "y"))
    assert (await quick.paths())[-3:] == ["route/x/@chosen", "route/x/a", "route/x/nap-2/@wait"]
    for seq in (3, 4, 5):
        with pytest.raises(FlowChanged):
            await quick.fork(flow("y"), seq, f"fork-{seq}")
    assert (await quick.fork(flow("y"), 2, "free")).status == "waiting"


async def test_the_anchor_that_a_run_has_jumped_to_may_not_leave(quick: Stage) -> None:
    """The position is there, and not at the step that has jumped."""
    flow: Flow = FlowBuilder("flow").then(lambda s: "#end", name="jump")
    await quick.run(flow.then(do, name="a").anchor("end").sleep(10))
    for seq in (1, 2):
        with pytest.raises(FlowChanged):
            await quick.fork(flow.then(do, name="a").sleep(10), seq, f"fork-{seq}")
    assert (await quick.fork(flow.then(do, name="a").anchor("end").then(do, name="new"), 1, "well")).state == {
        "done": ["new~1"]
    }


async def test_a_run_of_another_flow_is_not_migrated_but_refused(quick: Stage) -> None:
    """The flow's name is what its runs are found by."""
    await begun(quick, steps("a nap"))
    with pytest.raises(ForeignRun):
        await quick.run(steps("a nap", FlowBuilder("other")))
    assert isinstance((await quick.plan(steps("a nap", FlowBuilder("other")))).reason, ForeignRun)


async def test_a_finished_run_is_given_whatever_the_flow_is_now(quick: Stage) -> None:
    """There is nothing to go on with."""
    result = await quick.run(steps("a b"))
    assert (await quick.run(steps("x"))).state == result.state
    assert (await quick.plan(steps("x"))).reason is None


# New names ------------------------------------------------------------------------------------------------------------


def renamed(text: str, flow: Flow | None = None) -> Flow:
    """The same steps, each with another name, which knows the old one."""
    flow = FlowBuilder("flow") if flow is None else flow
    for name in text.split():
        if name.startswith("nap"):
            flow = flow.sleep(10, name=f"{name}-2", aliases=[name])
        else:
            flow = flow.then(do, name=f"{name}-2", aliases=[name])
    return flow


RENAMED: dict[str, tuple[Flow, Flow]] = {
    "top": (steps("a nap b"), renamed("a nap b")),
    "sub": (
        steps("").then(body("a nap b"), name="s"),
        steps("").then(renamed("a nap b", fragment()), name="s-2", aliases=["s"]),
    ),
    "case": (
        steps("").branch(lambda s: "x", {"x": body("a nap b")}, name="s"),
        steps("").branch(lambda s: "x", {"x": renamed("a nap b", fragment())}, name="s-2", aliases=["s"]),
    ),
    "loop": (
        steps("").loop(lambda s, ctx: ctx.index < 1, body("a nap b"), name="s"),
        steps("").loop(lambda s, ctx: ctx.index < 1, renamed("a nap b", fragment()), name="s-2", aliases=["s"]),
    ),
    "batch": (
        steps("").batch(lambda s: [1], body("a nap b"), name="s"),
        steps("").batch(lambda s: [2, 3], renamed("a nap b", fragment()), name="s-2", aliases=["s"]),
    ),
    "lanes": (
        steps("").batch(lambda s: [1], body("a nap b"), name="s", concurrency=2),
        steps("").batch(lambda s: [], renamed("a nap b", fragment()), name="s-2", aliases=["s"], concurrency=2),
    ),
    "parallel": (
        steps("").parallel([body("a nap b")], name="s"),
        steps("").parallel([renamed("a nap b", fragment())], name="s-2", aliases=["s"]),
    ),
    "on_error": (
        steps("").then(fragment().then(fail).on_error(body("a nap b")), name="s"),
        steps("").then(
            fragment().then(fail, name="fail-2", aliases=["fail"]).on_error(renamed("a nap b", fragment())),
            name="s-2",
            aliases=["s"],
        ),
    ),
}


@pytest.mark.parametrize(("before", "after"), RENAMED.values(), ids=RENAMED)
async def test_a_step_may_have_a_new_name_that_knows_the_old_one(before: Flow, after: Flow, quick: Stage) -> None:
    """At every level: from each version, the run goes on as it would have; deadlines and items are found, too."""
    await begun(quick, before)
    for seq in range(len(await quick.paths()) + 1):
        await quick.fork(after, seq, f"fork-{seq}")
    assert (await quick.plan(after)).reason is None
    state = (await quick.run(after)).state
    assert [step.rpartition("/")[2] for step in state["done"]] == ["a", "b-2"]


@pytest.mark.parametrize(("before", "after"), RENAMED.values(), ids=RENAMED)
async def test_a_run_that_has_gone_on_under_the_new_names_knows_both(before: Flow, after: Flow, quick: Stage) -> None:
    """Versions of both are in its chain: all of them can be forked, and read by plan_resume."""
    await quick.run(before)
    await quick.run(after)
    quick.world.move(10)
    await quick.run(after)
    for seq in range(len(await quick.paths()) + 1):
        assert (await quick.fork(after, seq, f"fork-{seq}")).status in ("waiting", "completed")


async def test_an_answer_a_doubt_and_a_signal_find_the_step_by_its_old_name(quick: Stage) -> None:
    """All that the run remembers of a step goes with it."""

    async def ask(state: State, ctx: Ctx) -> None:
        state["once"] = await ctx.once("x", answer)
        state["answer"] = await ctx.interrupt("?")

    async def answer() -> int:
        calls.append(1)
        return len(calls)

    def dies(state: State) -> None:
        if not calls[1:]:
            calls.append(2)
            raise Crash

    calls: list[int] = []
    before = fragment().then(ask).wait_for("paid", into="paid").then(dies, delivery="at_most_once")
    after = fragment().then(ask, name="ask-2", aliases=["ask"])
    after = after.wait_for("paid", into="paid", name="paid-2", aliases=["paid"])
    after = after.then(dies, name="dies-2", aliases=["dies"], delivery="at_most_once")
    old: Flow = FlowBuilder("flow").then(before, name="s")
    new: Flow = FlowBuilder("flow").then(after, name="s-2", aliases=["s"])
    await quick.run(old)
    assert (await quick.plan(new)).asks == ("s-2/ask-2",)
    with pytest.raises(NotWaiting):
        await quick.resume(new, answer=1, at="s/ask")
    result = await quick.resume(new, answer=1, at="s-2/ask-2")
    assert (result.state, [wait.step for wait in result.waits]) == ({"once": 1, "answer": 1}, ["s-2/paid-2"])
    await quick.signal(new, "paid", 5)
    with pytest.raises(Crash):
        await quick.run(new)
    assert (await quick.plan(new)).in_doubt == ("s-2/dies-2",)
    result = await quick.resume(new, answer=True)
    assert (result.status, result.state) == ("completed", {"once": 1, "answer": 1, "paid": 5})


async def test_a_doubt_is_about_the_step_of_the_new_name(quick: Stage) -> None:
    """It was begun under the old one."""
    dead: list[int] = []

    def dies(state: State) -> None:
        if not dead:
            dead.append(1)
            raise Crash
        state["paid"] = True

    with pytest.raises(Crash):
        await quick.run(
            FlowBuilder[State]("flow").batch(lambda s: [1], fragment().then(dies, delivery="at_most_once"), name="b")
        )
    inner = fragment().then(dies, name="pays", aliases=["dies"], delivery="at_most_once")
    flow: Flow = FlowBuilder("flow").batch(lambda s: [1], inner, name="b-2", aliases=["b"])
    assert (await quick.plan(flow)).in_doubt == ("b-2[0]/pays",)
    assert (await quick.run(flow)).waits[0].step == "b-2[0]/pays"
    assert (await quick.resume(flow, answer=False)).state == {"paid": True}


async def test_an_undoing_finds_its_steps_by_their_old_names(quick: Stage) -> None:
    """In reverse, by the compensations that they have now; a failure that is stored keeps its step."""
    log: list[str] = []

    def undo(state: State, ctx: Ctx) -> None:
        log.append(ctx.step)
        if len(log) == 1:
            raise OSError

    def flow(suffix: str) -> Flow:
        def named(name: str) -> dict[str, Any]:
            return {"name": name + suffix, "aliases": [name] if suffix else []}

        inner = (
            fragment()
            .then(do, **named("a"), compensate=undo)
            .parallel([fragment().then(do, **named("b"), compensate=undo)], **named("lanes"))
        )
        return steps("").then(inner, **named("s")).then(fail, **named("fail"))

    with pytest.raises(FlowError):
        await quick.run(flow(""))
    assert (await quick.plan(flow("-2"))).again == ("s-2/lanes-2[0]/b-2/@undo",)
    with pytest.raises(Undone) as caught:
        await quick.run(flow("-2"))
    assert log == ["s/lanes[0]/b/@undo", "s-2/lanes-2[0]/b-2/@undo", "s-2/a-2/@undo"]
    assert caught.value.step == "fail-2"


async def test_an_item_that_was_given_up_is_listed_by_its_new_name(quick: Stage) -> None:
    """In the result of the run that went on."""

    def flow(suffix: str) -> Flow:
        item = fragment().then(fail, name="fail" + suffix, aliases=["fail"] if suffix else [])
        batch: Flow = FlowBuilder("flow").batch(
            lambda s: [1], item, name="all" + suffix, aliases=["all"] if suffix else [], max_failures=1
        )
        return batch.sleep(10, name="nap")

    await begun(quick, flow(""))
    assert [failure.step for failure in (await quick.run(flow("-2"))).failures] == ["all-2[0]/fail-2"]


async def test_a_step_may_have_had_several_names(quick: Stage) -> None:
    """A run of any of the days before goes on."""
    for number, name in enumerate(("first", "second", "third")):
        changed = steps("").then(do, name="third", aliases=["first", "second"]).sleep(5, name="nap")
        stage = Stage("memory", Path())
        await stage.run(steps("").then(do, name=name).sleep(5, name="nap"))
        stage.world.move(5)
        assert (await stage.run(changed)).state == {"done": [name]}, number


def test_an_alias_is_a_name_that_no_other_step_has() -> None:
    """Else a stored position could mean two steps."""
    with pytest.raises(DuplicateName):
        steps("a").then(do, name="b", aliases=["a"])
    with pytest.raises(DuplicateName):
        steps("").then(do, name="b", aliases=["a"]).then(do, name="a")
    with pytest.raises(BadOption):
        steps("").then(do, name="b", aliases="a")


# Migrations -----------------------------------------------------------------------------------------------------------


def migrating(stage: Stage, to: Any) -> list[FlowChanged]:
    """Let the stage's flows migrate: `to` is the name to go on after, or a function of the state that gives it."""
    changes: list[FlowChanged] = []

    def migrate(state: State, change: FlowChanged) -> Any:
        changes.append(change)
        return to(state) if callable(to) else to

    stage.options["migrate"] = migrate
    return changes


async def test_a_migration_says_where_a_changed_run_goes_on(stage: Stage) -> None:
    """After the step that it names; it is told what was passed, and what it changes in the state is kept."""

    def to(state: State) -> str:
        state["migrated"] = state.pop("done")
        return "x"

    await begun(stage, steps("a b nap c"))
    changes = migrating(stage, to)
    result = await stage.run(steps("x y c nap"))
    assert (result.state, result.waits[0].step) == ({"migrated": ["a", "b"], "done": ["y", "c"]}, "nap")
    assert [(change.passed, change.steps) for change in changes] == [(("a", "b", "nap"), ("x", "y", "c", "nap"))]
    stage.world.move(10)
    assert (await stage.run(steps("x y c nap"))).status == "completed"
    assert len(changes) == 1


async def test_a_migration_may_be_async_and_may_begin_anew(stage: Stage) -> None:
    """An empty name is the beginning of the flow, with the state as it is."""

    async def migrate(state: State, change: FlowChanged) -> str:
        return ""

    await begun(stage, steps("a nap"))
    stage.options["migrate"] = migrate
    assert (await stage.run(steps("x y"))).state == {"done": ["a", "x", "y"]}


async def test_a_run_that_fits_is_not_migrated(quick: Stage) -> None:
    """Nor is one that is finished, or new."""
    await begun(quick, steps("a nap b"))
    changes = migrating(quick, "nap")
    assert (await quick.run(steps("a nap c"))).state == {"done": ["a", "c"]}
    await quick.run(steps("x"))
    assert changes == []


@pytest.mark.parametrize("answer", ["nowhere", None, 5, "sub/inner"], ids=repr)
async def test_a_migration_that_names_no_step_leaves_the_run_as_it_was(answer: Any, stage: Stage) -> None:
    """The names are those of the outermost body."""
    await begun(stage, steps("a nap b"))
    paths = await stage.paths()
    migrating(stage, answer)
    with pytest.raises(BadOption, match="migrate"):
        await stage.run(steps("x").then(body("inner"), name="sub"))
    assert (await stage.status(), await stage.paths()) == ("waiting", paths)
    assert isinstance((await stage.plan(steps("x"))).reason, BadOption)
    assert (await stage.run(steps("a nap b"))).state == {"done": ["a", "b"]}


async def test_a_migration_that_raises_leaves_the_run_as_it_was(stage: Stage) -> None:
    """Its error is the caller's."""

    def broken(state: State) -> str:
        state.clear()
        raise LookupError

    await begun(stage, steps("a nap b"))
    migrating(stage, broken)
    with pytest.raises(LookupError):
        await stage.run(steps("x"))
    assert await stage.status() == "waiting"
    assert (await stage.run(steps("a nap b"))).state == {"done": ["a", "b"]}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_migration_is_done_once_wherever_the_process_dies(durability: str, how: Any, tmp_path: Path) -> None:
    """Before it is stored the run is the old one; after it the new one: never half of each."""

    def to(state: State) -> str:
        state["migrated"] = state.get("migrated", 0) + 1
        return ""

    at = 0
    while True:
        at += 1
        stage = Stage("memory", tmp_path, durability=durability)
        await begun(stage, steps("a b c nap"))
        migrating(stage, to)
        changed = steps("nap c a b")  # the old position means something in it, too
        crashed = await stage.crash(changed, at, how)
        stage.world.move(10)
        await stage.run(changed)
        stage.world.move(10)
        state = (await stage.run(changed)).state
        assert state == {"migrated": 1, "done": ["a", "b", "c", "c", "a", "b"]}, at
        if not crashed:
            break
    assert at > 3


async def test_a_fork_of_an_older_version_is_migrated_too(stage: Stage) -> None:
    """The run that it comes from is left as it is; the fork's root has the migrated state."""

    def to(state: State) -> str:
        state["migrated"] = True
        return "x"

    await begun(stage, steps("a b nap"))
    migrating(stage, to)
    fork = await stage.fork(steps("x y"), 2, "fork")
    assert fork.state == {"done": ["a", "b", "y"], "migrated": True}
    assert (await stage.run(steps("a b nap"))).state == {"done": ["a", "b"]}


async def test_versions_from_before_and_after_a_migration_can_be_forked(stage: Stage) -> None:
    """Each is compared with the steps of its own day."""
    await begun(stage, steps("a b nap"))
    migrating(stage, "")
    await stage.run(steps("nap b a c"))
    stage.world.move(10)
    await stage.run(steps("nap b a c"))
    del stage.options["migrate"]
    assert (await stage.paths())[:3] == ["a", "b", "nap/@wait"]
    for seq, path in enumerate(await stage.paths(), 1):
        flow = steps("a b nap") if seq <= 3 else steps("nap b a c")
        assert (await stage.fork(flow, seq, f"fork-{seq}")).status in ("waiting", "completed"), path
    for seq in (1, 2, 3):
        with pytest.raises(FlowChanged):
            await stage.fork(steps("nap b a c"), seq, f"wrong-{seq}")


async def test_a_migrated_run_forgets_what_belongs_to_its_old_position(stage: Stage) -> None:
    """Deadlines, questions and doubts of steps that it left; its signals stay used, and what was done can be undone."""
    log: list[str] = []

    def undo(state: State, ctx: Ctx) -> None:
        log.append(ctx.step)

    async def ask(state: State, ctx: Ctx) -> None:
        await ctx.interrupt("?")

    old = FlowBuilder[State]("flow").then(do, name="a", compensate=undo).wait_for("paid").parallel([ask, body("nap")])
    new = FlowBuilder[State]("flow").then(do, name="a", compensate=undo).then(do, name="b").wait_for("paid")
    await stage.run(old)
    await stage.signal(old, "paid")
    assert len((await stage.run(old)).waits) == 2
    migrating(stage, "b")
    result = await stage.run(new)
    assert [(wait.kind, wait.step) for wait in result.waits] == [("signal", "paid")]
    assert (await stage.plan(new)).asks == ()
    await stage.signal(new, "paid")
    with pytest.raises(FlowError):
        await stage.run(new.then(fail))
    assert log == ["a/@undo"]
