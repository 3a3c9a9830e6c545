"""`delivery="at_most_once"`: a step that a crash has interrupted is not simply done again."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowneer_async import BadOption, BadStep, Context, FlowBuilder, FlowError, NotWaiting, Waiting, fragment
from flowneer_async.testing import Crash, CrashingStore, FakeWorld
from tests.support.stage import Flow, Stage, State
from tests.support.stores import KINDS


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage("memory", tmp_path)


class World:
    """The outside world: it is told each payment, and may end the process right after one, or right before."""

    def __init__(self, dies: str | None = None) -> None:
        self.paid: list[str] = []
        self.dies = dies

    def pay(self, step: str) -> None:
        if self.dies == "before":
            self.dies = None
            raise Crash
        self.paid.append(step)
        if self.dies == "after":
            self.dies = None
            raise Crash


async def pay(state: State, ctx: Context[World]) -> None:
    state["half"] = True
    ctx.deps.pay(ctx.step)
    state["receipt"] = ctx.deps.paid.index(ctx.step)
    del state["half"]


def was_paid(state: State, ctx: Context[World]) -> bool:
    """Asks the outside world; what it learns goes into the state."""
    if ctx.step.removesuffix("/@verify") not in ctx.deps.paid:
        return False
    state["receipt"] = "found"
    return True


def paying(**options: Any) -> Flow:
    return (
        FlowBuilder("order")
        .then(lambda s: s.update(before=1), name="before")
        .then(pay, delivery="at_most_once", **options)
    )


async def test_without_a_crash_it_is_a_step_like_any_other(stage: Stage) -> None:
    """Done once; that it was begun is stored before it is called."""
    world = World()
    assert (await stage.run(paying(), deps=world)).state == {"before": 1, "receipt": 0}
    assert await stage.paths() == ["before", "pay/@begun", "pay"]
    assert world.paid == ["pay"]


async def test_that_it_was_begun_is_stored_before_it_is_called(tmp_path: Path) -> None:
    """Whatever the durability: else a crash would let it be done twice."""
    for durability in ("sync", "async", "exit"):
        stage, seen = Stage("memory", tmp_path, durability=durability), list[str]()
        async with stage.store() as store:

            async def look(state: State, seen: list[str] = seen, store: Any = store) -> None:
                seen += [version.path for version in await store.versions("r")]

            await stage.run(FlowBuilder[State]("order").then(look, delivery="at_most_once"))
        assert seen[-1] == "look/@begun", durability


@pytest.mark.parametrize(("dies", "state"), [("before", {"receipt": 0}), ("after", {"receipt": "found"})])
async def test_verify_says_whether_an_interrupted_step_was_done(dies: str, state: State, stage: Stage) -> None:
    """If it was, it is done, with what verify put into the state; else it is done now. Paid is once, in any case."""
    world, flow = World(dies), paying(verify=was_paid)
    with pytest.raises(Crash):
        await stage.run(flow, deps=world)
    result = await stage.run(flow, deps=world)
    assert (result.status, result.state) == ("completed", {"before": 1, **state})
    assert world.paid == ["pay"]


@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("how", ["before", "after"])
async def test_wherever_the_process_dies_it_is_paid_once(at: int, how: Any, quick: Stage) -> None:
    """Before and after each commit; verify is asked only where the step was begun and not stored as done."""
    world, asked = World(), list[bool]()

    def verify(state: State, ctx: Context[World]) -> bool:
        asked.append(was_paid(state, ctx))
        return asked[-1]

    crashed = await quick.crash(paying(verify=verify), at, how, deps=world)
    result = await quick.run(paying(verify=verify), deps=world)
    assert result.status == "completed"
    assert world.paid == ["pay"]
    assert crashed == (at <= 5)  # create, before, begun, pay, the end
    in_doubt = {(3, "after"): [False], (4, "before"): [True]}
    assert asked == in_doubt.get((at, how), [])


async def test_verify_may_be_async_and_sees_the_state_before_the_step(quick: Stage) -> None:
    """Not what the interrupted step had half made."""
    seen: list[State] = []

    async def verify(state: State) -> bool:
        seen.append(dict(state))
        return True

    with pytest.raises(Crash):
        await quick.run(paying(verify=verify), deps=World("after"))
    assert (await quick.run(paying(verify=verify), deps=World())).status == "completed"
    assert seen == [{"before": 1}]


async def test_a_verify_that_fails_leaves_the_doubt(quick: Stage) -> None:
    """The run has failed, and nothing was paid; it is asked again when the run is run again."""
    world, broken = World("after"), [True]

    def verify(state: State, ctx: Context[World]) -> bool:
        if broken[0]:
            raise OSError
        return was_paid(state, ctx)

    flow = paying(verify=verify)
    with pytest.raises(Crash):
        await quick.run(flow, deps=world)
    for _ in range(2):
        with pytest.raises(FlowError) as caught:
            await quick.run(flow, deps=world)
        assert isinstance(caught.value.cause, OSError)
    assert (await quick.plan(flow)).in_doubt == ("pay",)
    broken[0] = False
    assert (await quick.run(flow, deps=world)).state == {"before": 1, "receipt": "found"}
    assert world.paid == ["pay"]


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_without_verify_the_run_waits_for_somebody_who_knows(dies: str, stage: Stage) -> None:
    """True: it was done, and the run goes on after it; False: it is done now."""
    world, flow = World(dies), paying().then(lambda s: s.update(after=1), name="after")
    with pytest.raises(Crash):
        await stage.run(flow, deps=world)
    result = await stage.run(flow, deps=world)
    assert (result.status, result.waits) == ("waiting", (Waiting("doubt", "pay"),))
    assert await stage.status() == "waiting"
    assert (await stage.run(flow, deps=world)).status == "waiting"
    result = await stage.resume(flow, answer=dies == "after", deps=world)
    expected = {"before": 1, "after": 1} if dies == "after" else {"before": 1, "after": 1, "receipt": 0}
    assert (result.status, result.state) == ("completed", expected)
    assert world.paid == ["pay"]


async def test_a_second_crash_is_a_second_doubt(quick: Stage) -> None:
    """The answer False was about the first one: done again after it, and interrupted again, the step is asked about."""
    world = World("before")
    with pytest.raises(Crash):
        await quick.run(paying(), deps=world)
    assert (await quick.run(paying(), deps=world)).status == "waiting"
    world.dies = "after"
    with pytest.raises(Crash):
        await quick.resume(paying(), answer=False, deps=world)
    assert (await quick.run(paying(), deps=world)).waits == (Waiting("doubt", "pay"),)
    assert (await quick.resume(paying(), answer=True, deps=world)).status == "completed"
    assert world.paid == ["pay"]


async def test_a_crash_right_after_the_answer_does_not_ask_again(stage: Stage) -> None:
    """The answer is stored before the run goes on."""
    world = World("after")
    with pytest.raises(Crash):
        await stage.run(paying(), deps=world)
    await stage.run(paying(), deps=world)
    async with stage.store() as store:
        dying = paying().with_versioned_checkpoint(CrashingStore(store, 2, "after"))
        with pytest.raises(Crash):
            await dying.resume("r", answer=True, deps=world, world=stage.world)
    assert (await stage.run(paying(), deps=world)).status == "completed"
    assert world.paid == ["pay"]


async def test_a_step_that_failed_is_in_doubt_as_well(stage: Stage) -> None:
    """Nobody knows how far it came: run again, it is verified, or asked about, and not simply done again."""
    broken = [True]

    async def pay_badly(state: State, ctx: Context[World]) -> None:
        await pay(state, ctx)
        if broken[0]:
            raise TimeoutError

    world = World()
    flow: Flow = FlowBuilder("order").then(pay_badly, name="pay", delivery="at_most_once", verify=was_paid)
    with pytest.raises(FlowError):
        await stage.run(flow, deps=world)
    assert (await stage.plan(flow)).in_doubt == ("pay",)
    broken[0] = False
    assert (await stage.run(flow, deps=world)).state == {"receipt": "found"}
    assert world.paid == ["pay"]


async def test_a_step_that_was_cancelled_is_in_doubt_as_well(stage: Stage) -> None:
    """It was in the middle of its effect, for all that can be known."""
    reached = asyncio.Event()

    async def slow(state: State) -> None:
        reached.set()
        await anyio.sleep_forever()

    flow: Flow = FlowBuilder("order").then(slow, delivery="at_most_once")
    async with stage.on(flow) as stored:
        task = asyncio.create_task(stored.run({}, run_id="r", world=stage.world))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await stage.run(flow)).waits == (Waiting("doubt", "slow"),)
    assert (await stage.resume(flow, answer=True)).status == "completed"


async def test_a_step_of_lanes_and_items_is_in_doubt_alone(stage: Stage) -> None:
    """Each by its own path; those that were done are not asked about, and the others are done."""
    world = World()

    async def pay_item(state: State, ctx: Context[World]) -> None:
        ctx.deps.pay(ctx.step)
        if ctx.item == "b" and len(state) == 0 and ctx.deps.dies is None:
            ctx.deps.dies = "never again"
            raise Crash

    flow: Flow = FlowBuilder("order").batch(
        lambda s: "abc", fragment().then(pay_item, name="pay", delivery="at_most_once"), name="all"
    )
    with pytest.raises(Crash):
        await stage.run(flow, deps=world)
    assert (await stage.run(flow, deps=world)).waits == (Waiting("doubt", "all[1]/pay"),)
    assert (await stage.resume(flow, answer=True, deps=world)).status == "completed"
    assert world.paid == ["all[0]/pay", "all[1]/pay", "all[2]/pay"]


async def test_lanes_in_doubt_are_answered_by_their_path(stage: Stage) -> None:
    """Both lanes had begun when the process died: each is asked about, and each answer is for one."""
    world, begun, died = World(), list[str](), [False]

    async def pay_in_lane(state: State, ctx: Context[World]) -> None:
        begun.append(ctx.step)
        if not died[0]:
            if len(begun) < 2:
                await anyio.sleep_forever()
            died[0] = True
            raise Crash
        ctx.deps.pay(ctx.step)

    lane = fragment().then(pay_in_lane, name="pay", delivery="at_most_once")
    flow: Flow = FlowBuilder("order").parallel([lane, lane])
    with pytest.raises(Crash):
        await stage.run(flow, deps=world)
    result = await stage.run(flow, deps=world)
    assert sorted(wait.step for wait in result.waits) == ["parallel[0]/pay", "parallel[1]/pay"]
    with pytest.raises(NotWaiting):
        await stage.resume(flow, answer=True, deps=world)
    assert (await stage.resume(flow, answer=False, at="parallel[1]/pay", deps=world)).status == "waiting"
    assert (await stage.resume(flow, answer=True, at="parallel[0]/pay", deps=world)).status == "completed"
    assert world.paid == ["parallel[1]/pay"]


async def test_a_step_found_to_be_done_can_be_undone(quick: Stage) -> None:
    """Whether verify or an answer said so."""
    world, log = World("after"), list[str]()

    def fail(state: State) -> None:
        raise ValueError

    flow = paying(verify=was_paid, compensate=lambda s, ctx: log.append(ctx.step)).then(fail)
    with pytest.raises(Crash):
        await quick.run(flow, deps=world)
    with pytest.raises(FlowError):
        await quick.run(flow, deps=world)
    assert log == ["pay/@undo"]


async def test_each_iteration_may_be_done_once(quick: Stage) -> None:
    """At most once is for one path: another iteration or visit is another delivery."""

    async def pay_each(state: State, ctx: Context[World]) -> None:
        ctx.deps.pay(ctx.step)
        state["n"] = state.get("n", 0) + 1

    world = World()
    body = fragment().then(pay_each, name="pay", delivery="at_most_once")
    flow = FlowBuilder[State]("order").loop(lambda s: s.get("n", 0) < 3, body, name="l")
    await quick.run(flow, deps=world)
    assert world.paid == ["l[0]/pay", "l[1]/pay", "l[2]/pay"]


async def test_without_a_store_it_is_simply_done() -> None:
    """There is no crash that a run could go on after."""
    world = World()
    assert (await paying().run({}, deps=world, world=FakeWorld())).state == {"before": 1, "receipt": 0}


@pytest.mark.parametrize(
    "options",
    [
        {"delivery": "at_most_once", "retries": 1},
        {"delivery": "twice"},
        {"verify": was_paid},
        {"delivery": "at_least_once", "verify": was_paid},
    ],
    ids=repr,
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    """Another try is another delivery; and verify is for at_most_once."""
    with pytest.raises(BadOption):
        FlowBuilder("order").then(pay, **options)


def test_verify_is_checked_while_the_flow_is_built() -> None:
    """It is a function of the state."""
    with pytest.raises(BadStep):
        FlowBuilder("order").then(pay, delivery="at_most_once", verify=lambda: True)  # type: ignore[arg-type]
