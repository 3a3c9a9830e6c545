"""A step that asks somebody outside: the run waits, the answer is stored, and the step begins anew with it."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pydantic
import pytest

from flowneer_async import (
    Context,
    FlowBuilder,
    FlowError,
    NotWaiting,
    RunBusy,
    StateNotSerializable,
    StoreNeeded,
    UnknownRun,
    Waiting,
    fragment,
)
from flowneer_async.testing import FakeWorld
from tests.support.stage import Flow, Stage, State
from tests.support.stores import KINDS

Ctx = Context[Any]


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage("memory", tmp_path)


async def approve(state: State, ctx: Ctx) -> None:
    state["asked"] = state.get("asked", 0) + 1
    state["answer"] = await ctx.interrupt({"amount": state.get("amount")})


def asking(**options: Any) -> Flow:
    return FlowBuilder("order").then(approve, **options)


# Asking and answering -------------------------------------------------------------------------------------------------


async def test_a_step_that_asks_puts_the_run_down(stage: Stage) -> None:
    """run() returns with the question; what the step had changed before it asked is taken back."""
    state = {"amount": 3}
    result = await stage.run(asking(), state)
    assert (result.status, await stage.status()) == ("waiting", "waiting")
    assert result.waits == (Waiting("answer", "approve", question={"amount": 3}),)
    assert result.state is state
    assert state == {"amount": 3}


@pytest.mark.parametrize("answer", ["yes", None, False, 0, "", [], {"by": ("me", 1.5)}], ids=repr)
async def test_any_value_is_an_answer(answer: object, stage: Stage) -> None:
    """None and False too; the step begins anew, and gets it with its type."""
    await stage.run(asking())
    result = await stage.resume(asking(), answer=answer)
    assert (result.status, result.state) == ("completed", {"asked": 1, "answer": answer})
    assert type(result.state["answer"]) is type(answer)


async def test_several_questions_of_one_step_are_asked_one_after_the_other(stage: Stage) -> None:
    """Each answer is kept: the step begins anew for each, and is asked no question twice."""
    begun: list[str] = []

    async def ask(state: State, ctx: Ctx) -> None:
        begun.append(ctx.step)
        state["answers"] = [await ctx.interrupt(f"question {number}") for number in range(3)]

    flow: Flow = FlowBuilder("order").then(ask)
    result = await stage.run(flow)
    for number in range(3):
        assert [wait.question for wait in result.waits] == [f"question {number}"]
        result = await stage.resume(flow, answer=number)
    assert (result.status, result.state, len(begun)) == ("completed", {"answers": [0, 1, 2]}, 4)


async def test_a_run_that_goes_on_without_an_answer_asks_again(stage: Stage) -> None:
    """With the question as it is now, and without a new version for each time it was tried."""
    first = await stage.run(asking())
    for _ in range(3):
        result = await stage.run(asking())
        assert (result.status, result.waits, result.version) == ("waiting", first.waits, first.version)


async def test_retries_and_time_limits_have_nothing_to_do_with_a_question(quick: Stage) -> None:
    """To ask is no failure; and what a step does after the answer is tried as often as it may."""
    tries: list[object] = []

    async def ask(state: State, ctx: Ctx) -> None:
        tries.append(await ctx.interrupt("?"))
        if len(tries) < 3:
            raise ValueError

    flow: Flow = FlowBuilder("order").then(ask, retries=2, timeout=60)
    assert (await quick.run(flow)).status == "waiting"
    assert (await quick.resume(flow, answer="yes")).status == "completed"
    assert tries == ["yes"] * 3


async def test_the_answer_of_a_step_that_failed_is_kept_for_when_it_is_run_again(stage: Stage) -> None:
    """Nobody is asked twice because of a failure."""
    broken = [True]

    async def ask(state: State, ctx: Ctx) -> None:
        state["answer"] = await ctx.interrupt("?")
        if broken[0]:
            raise ValueError

    flow: Flow = FlowBuilder("order").then(ask)
    await stage.run(flow)
    with pytest.raises(FlowError):
        await stage.resume(flow, answer="yes")
    broken[0] = False
    assert (await stage.run(flow)).state == {"answer": "yes"}


async def test_each_iteration_asks_a_question_of_its_own(quick: Stage) -> None:
    """And so does each item, and each visit that a jump makes."""

    async def ask(state: State, ctx: Ctx) -> str | None:
        state["answers"] = [*state.get("answers", []), await ctx.interrupt(ctx.step)]
        return "#top" if len(state["answers"]) == 2 else None

    flow = FlowBuilder[State]("order").loop(
        lambda s: len(s.get("answers", [])) < 4, fragment().anchor("top").then(ask), name="l"
    )
    result, asked = await quick.run(flow), list[object]()
    while result.status == "waiting":
        asked.append(result.waits[0].question)
        result = await quick.resume(flow, answer=len(asked))
    assert asked == ["l[0]/ask", "l[1]/ask", "l[1]/ask~1", "l[2]/ask"]
    assert result.state == {"answers": [1, 2, 3, 4]}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_an_answer_is_stored_before_the_step_goes_on(durability: str, tmp_path: Path) -> None:
    """A crash in the step, or right after the answer, does not ask for it again, whatever the durability."""
    stage = Stage("memory", tmp_path, durability=durability)
    killed = [True]

    async def ask(state: State, ctx: Ctx) -> None:
        state["answer"] = await ctx.interrupt("?")
        if killed[0]:
            await ctx.deps()

    async with stage.store() as store:

        async def die() -> None:
            killed[0] = False
            stored = [version.path for version in await store.versions("r")]
            assert stored[-1] == "ask/@answer"
            raise KeyboardInterrupt

        flow: Flow = FlowBuilder("order").then(ask)
        await stage.run(flow)
        with pytest.raises(KeyboardInterrupt):
            await stage.resume(flow, answer="yes", deps=die)
        assert (await stage.run(flow)).state == {"answer": "yes"}


async def test_half_made_changes_are_taken_back_with_a_filter_too(quick: Stage) -> None:
    """Where the step before was not stored, the state in hand still shows what that one did, and no more."""
    quick.options["filter"] = ["nothing"]
    flow = FlowBuilder[State]("order").then(lambda s: s.update(before=1), name="before").then(approve)
    assert (await quick.run(flow)).state == {"before": 1}
    assert (await quick.resume(flow, answer=True)).state == {"before": 1, "asked": 1, "answer": True}


@dataclass
class Plain:
    answer: str = ""
    log: list[str] = field(default_factory=list)


class Model(pydantic.BaseModel):
    answer: str = ""
    log: list[str] = []


class Struct(msgspec.Struct):
    answer: str = ""
    log: list[str] = []


@pytest.mark.parametrize("kind", [Plain, Model, Struct])
async def test_typed_states_wait_ask_and_go_on(kind: Any, stage: Stage) -> None:
    """What a step had half made is taken back, and answers and payloads go into the fields."""

    async def ask(state: Any, ctx: Ctx) -> None:
        state.log.append("asked")
        state.answer = await ctx.interrupt("?")

    lanes = [fragment(kind).sleep(10), fragment(kind).wait_for("paid", into="answer")]
    flow = FlowBuilder("order", kind).then(ask).parallel(lanes)
    state = kind()
    assert (await stage.run(flow, state)).state is state
    assert state == kind()
    result = await stage.resume(flow, answer="yes")
    assert (result.status, result.state) == ("waiting", kind(answer="yes", log=["asked"]))
    stage.world.move(10)
    await stage.signal(flow, "paid", "much")
    result = await stage.resume(flow)
    assert (result.status, type(result.state), result.state.answer) == ("completed", kind, "much")
    assert result.state.log == ["asked"]


# In lanes -------------------------------------------------------------------------------------------------------------


async def ask_for_item(state: State, ctx: Ctx) -> None:
    state[f"answer {ctx.item}"] = await ctx.interrupt(ctx.item)


def of_each(**options: Any) -> Flow:
    return FlowBuilder("order").batch(lambda s: ["a", "b", "c"], ask_for_item, name="each", **options)


async def test_questions_of_several_lanes_are_answered_one_by_one(stage: Stage) -> None:
    """`at=` says which of them is meant; the others wait on."""
    flow = of_each(concurrency=3)
    result = await stage.run(flow)
    assert [(wait.step, wait.question) for wait in result.waits] == [
        (f"each[{number}]/ask_for_item", item) for number, item in enumerate("abc")
    ]
    for number, answer in ((1, "B"), (2, None), (0, False)):
        result = await stage.resume(flow, answer=answer, at=f"each[{number}]/ask_for_item")
    assert result.state == {"answer a": False, "answer b": "B", "answer c": None}


async def test_where_several_ask_an_answer_has_to_say_whom_it_is_for(quick: Stage) -> None:
    """NotWaiting lists those that ask; the run waits on, and can still be answered."""
    flow = of_each(concurrency=2)
    await quick.run(flow)
    with pytest.raises(NotWaiting, match="at=") as caught:
        await quick.resume(flow, answer="?")
    assert caught.value.asking == tuple(f"each[{number}]/ask_for_item" for number in range(3))
    assert await quick.status() == "waiting"
    for number in range(3):
        await quick.resume(flow, answer=number, at=f"each[{number}]/ask_for_item")
    assert await quick.status() == "completed"


@pytest.mark.parametrize("options", [{}, {"max_failures": 1}], ids=repr)
async def test_items_one_after_the_other_ask_one_after_the_other(options: Any, quick: Stage) -> None:
    """The next item begins when the answer to the one before is there."""
    flow = of_each(**options)
    result = await quick.run(flow)
    for item in "abc":
        assert [wait.question for wait in result.waits] == [item]
        result = await quick.resume(flow, answer=item.upper())
    assert result.state == {"answer a": "A", "answer b": "B", "answer c": "C"}


async def test_the_other_lanes_go_on_while_one_asks(stage: Stage) -> None:
    """They come to their end, and are not done again when the answer is there."""
    done: list[str] = []

    async def work(state: State) -> None:
        await anyio.lowlevel.checkpoint()
        done.append("work")
        state["work"] = "done"

    flow: Flow = FlowBuilder("order").parallel([asking(), fragment().then(work).then(work, name="more")])
    result = await stage.run(flow)
    assert ([wait.step for wait in result.waits], done) == (["parallel[0]/approve"], ["work", "work"])
    result = await stage.resume(flow, answer=1)
    assert result.state == {"asked": 1, "answer": 1, "work": "done"}
    assert done == ["work", "work"]


async def test_a_lane_may_ask_sleep_and_wait_beside_the_others(stage: Stage) -> None:
    """All that the run waits for is told, and each of them can come first."""
    flow: Flow = FlowBuilder("order").parallel(
        [asking(), fragment().sleep(10), fragment().wait_for("paid", into="paid"), of_each()]
    )
    result = await stage.run(flow)
    assert [wait.kind for wait in result.waits] == ["answer", "sleep", "signal", "answer"]
    for number in range(3):
        result = await stage.resume(flow, answer=number, at=f"parallel[3]/each[{number}]/ask_for_item")
    assert [wait.kind for wait in result.waits] == ["answer", "sleep", "signal"]
    await stage.signal(flow, "paid", 1)
    assert [wait.kind for wait in (await stage.resume(flow)).waits] == ["answer", "sleep"]
    stage.world.move(10)
    result = await stage.resume(flow, answer=True)
    assert result.state == {"asked": 1, "answer": True, "paid": 1, "answer a": 0, "answer b": 1, "answer c": 2}


async def test_a_lane_that_fails_does_not_lose_the_question_of_another(quick: Stage) -> None:
    """The run has failed; when it goes on, an answer to the lane that asked is taken."""
    broken = [True]

    async def work(state: State) -> None:
        await anyio.wait_all_tasks_blocked()
        if broken[0]:
            raise ValueError

    flow: Flow = FlowBuilder("order").parallel([asking(), work])
    with pytest.raises(FlowError):
        await quick.run(flow)
    broken[0] = False
    assert (await quick.resume(flow, answer=1)).state == {"asked": 1, "answer": 1}


async def test_a_run_that_is_cancelled_while_a_lane_asks_keeps_the_question(stage: Stage) -> None:
    """The lane that still works is cancelled; the answer is taken later on."""
    reached, free = asyncio.Event(), [False]

    async def work(state: State) -> None:
        if not free[0]:
            reached.set()
            await anyio.sleep_forever()

    flow: Flow = FlowBuilder("order").parallel([asking(), work])
    async with stage.on(flow) as stored:
        task = asyncio.create_task(stored.run({}, run_id="r", world=stage.world))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await stage.status() == "cancelled"
    free[0] = True
    assert (await stage.resume(flow, answer=1)).state == {"asked": 1, "answer": 1}


async def test_a_question_asked_in_a_task_of_the_steps_own_puts_the_run_down(quick: Stage) -> None:
    """A step may ask from within a task group, which wraps what its tasks raise."""

    async def ask(state: State, ctx: Ctx) -> None:
        async def one(key: str) -> None:
            state[key] = await ctx.interrupt(key)

        async with asyncio.TaskGroup() as group:
            group.create_task(one("a"))

    flow: Flow = FlowBuilder("order").then(ask)
    result = await quick.run(flow)
    assert (result.status, result.waits[0].question) == ("waiting", "a")
    assert (await quick.resume(flow, answer=1)).state == {"a": 1}


# Who may ask ----------------------------------------------------------------------------------------------------------


def fail(state: State) -> None:
    raise ValueError


async def test_a_fallback_asks_a_question_of_its_own(quick: Stage) -> None:
    """The answer to the question of the step that failed is not taken for the fallback's."""

    async def ask_and_fail(state: State, ctx: Ctx) -> None:
        await ctx.interrupt("go on?")
        raise ValueError

    async def ask_instead(state: State, ctx: Ctx) -> None:
        state["instead"] = await ctx.interrupt("what instead?")

    flow: Flow = FlowBuilder("order").then(ask_and_fail, fallback=ask_instead)
    assert (await quick.run(flow)).waits[0].question == "go on?"
    assert (await quick.resume(flow, answer="yes")).waits[0].question == "what instead?"
    assert (await quick.resume(flow, answer="nothing")).state == {"instead": "nothing"}


async def test_a_step_delivered_at_most_once_may_ask_first(stage: Stage) -> None:
    """To be put down at a question is no crash: with the answer the step is done, and in no doubt."""
    flow = asking(delivery="at_most_once")
    assert [wait.kind for wait in (await stage.run(flow)).waits] == ["answer"]
    result = await stage.resume(flow, answer="yes")
    assert (result.status, result.state) == ("completed", {"asked": 1, "answer": "yes"})


async def test_a_compensation_may_ask(stage: Stage) -> None:
    """The undoing waits for the answer, and then goes on."""

    async def refund(state: State, ctx: Ctx) -> None:
        state["refund"] = await ctx.interrupt("refund?")

    flow: Flow = FlowBuilder("order").then(
        fragment().then(lambda s: None, name="pay", compensate=refund).then(fail).on_error(fragment().then(tell)),
        name="s",
    )
    result = await stage.run(flow)
    assert [(wait.step, wait.question) for wait in result.waits] == [("s/pay/@undo", "refund?")]
    assert (await stage.resume(flow, answer=True)).state == {"refund": True, "told": "s/fail"}


def tell(state: State, ctx: Ctx) -> None:
    assert ctx.failure is not None
    state["told"] = ctx.failure.step


async def test_an_on_error_body_may_ask(quick: Stage) -> None:
    """The step that failed is not done again while it waits."""
    flow: Flow = FlowBuilder("order").then(fail).on_error(asking())
    assert [wait.step for wait in (await quick.run(flow)).waits] == ["@error/approve"]
    assert (await quick.resume(flow, answer=1)).state == {"asked": 1, "answer": 1}


async def route(state: State, ctx: Ctx) -> str:
    return str(await ctx.interrupt("which?"))


async def test_a_router_may_ask(quick: Stage) -> None:
    """The answer is the case that it names."""
    flow: Flow = FlowBuilder("order").branch(route, {"a": fragment().then(lambda s: s.update(a=1), name="a")})
    assert [(wait.step, wait.question) for wait in (await quick.run(flow)).waits] == [("route/@router", "which?")]
    assert (await quick.resume(flow, answer="a")).state == {"a": 1}


async def test_the_items_of_a_batch_may_be_asked_for(quick: Stage) -> None:
    """The batch begins with the answer."""

    async def items(state: State, ctx: Ctx) -> Any:
        return await ctx.interrupt("which?")

    def note(state: State, ctx: Ctx) -> None:
        state["items"] = [*state.get("items", []), ctx.item]

    flow: Flow = FlowBuilder("order").batch(items, fragment().then(note))
    assert (await quick.run(flow)).waits[0].question == "which?"
    assert (await quick.resume(flow, answer=[1, 2])).state == {"items": [1, 2]}


def add(state: State) -> None:
    state["n"] = state.get("n", 0) + 1


async def test_each_asking_of_a_condition_is_a_question_of_its_own(quick: Stage) -> None:
    """The answer that let one iteration begin does not let the next one."""

    async def more(state: State, ctx: Ctx) -> bool:
        return bool(await ctx.interrupt("more?"))

    flow = FlowBuilder[State]("order").loop(more, fragment().then(add))
    result = await quick.run(flow)
    for answer in (True, True, False):
        assert (result.status, result.waits[0].question) == ("waiting", "more?")
        result = await quick.resume(flow, answer=answer)
    assert (result.status, result.state) == ("completed", {"n": 2})


# Mistakes -------------------------------------------------------------------------------------------------------------


async def test_an_answer_that_nobody_asked_for_leaves_the_run_as_it_was(stage: Stage) -> None:
    """NotWaiting names who does ask; the run still waits, and takes the right answer."""
    await stage.run(asking())
    with pytest.raises(NotWaiting) as caught:
        await stage.resume(asking(), answer=1, at="aprove")
    assert (caught.value.run_id, caught.value.step, caught.value.asking) == ("r", "aprove", ("approve",))
    assert await stage.status() == "waiting"
    assert (await stage.resume(asking(), answer=1)).status == "completed"


async def test_an_answer_that_cannot_be_stored_leaves_the_run_as_it_was(stage: Stage) -> None:
    """It is refused as a state with such a value is."""
    await stage.run(asking())
    with pytest.raises(StateNotSerializable):
        await stage.resume(asking(), answer=object())
    assert await stage.status() == "waiting"
    assert (await stage.resume(asking(), answer=1)).status == "completed"


async def test_an_answer_to_a_run_that_asks_nothing_is_refused(stage: Stage) -> None:
    """Neither one that sleeps, nor one that is finished, drops it without a word."""
    flow: Flow = FlowBuilder("order").sleep(10)
    await stage.run(flow)
    for status in ("waiting", "completed"):
        with pytest.raises(NotWaiting, match="without one"):
            await stage.resume(flow, answer=1)
        assert await stage.status() == status
        stage.world.move(10)
        await stage.resume(flow)


async def test_a_second_answer_to_one_question_is_refused(quick: Stage) -> None:
    """Two people answer: the first one counts."""
    flow = asking().sleep(10)
    await quick.run(flow)
    assert (await quick.resume(flow, answer="first")).status == "waiting"
    with pytest.raises(NotWaiting):
        await quick.resume(flow, answer="second")
    quick.world.move(10)
    assert (await quick.resume(flow)).state["answer"] == "first"


async def test_an_answer_to_a_run_that_is_at_work_is_refused(stage: Stage) -> None:
    """RunBusy, as for anyone who would go on with it; it can be given again later."""
    reached = asyncio.Event()

    async def work(state: State) -> None:
        reached.set()
        await anyio.sleep_forever()

    flow: Flow = FlowBuilder("order").parallel([asking(), work])
    async with stage.on(flow) as stored:
        task = asyncio.create_task(stored.run({}, run_id="r", world=stage.world))
        await reached.wait()
        while not (await stored.plan_resume("r")).asks:  # until the question is stored
            await asyncio.sleep(0)
        with pytest.raises(RunBusy):
            await stored.resume("r", answer=1, world=stage.world)
        task.cancel()
        await asyncio.wait([task])


async def test_what_a_failed_and_handled_step_had_asked_is_asked_no_more(stage: Stage) -> None:
    """An on_error, or an item given up, takes its questions and doubts along: one answer has one address."""
    item = fragment().then(fail, name="pay", delivery="at_most_once")
    flow: Flow = (
        FlowBuilder("order")
        .then(item.on_error(fragment().then(lambda s: None, name="nothing")), name="s")
        .batch(lambda s: [1], item, name="all", max_failures=1)
        .batch(lambda s: [1], item, name="lanes", max_failures=1, concurrency=2)
        .then(approve)
    )
    assert [wait.step for wait in (await stage.run(flow)).waits] == ["approve"]
    assert (await stage.plan(flow)).asks == ("approve",)
    assert (await stage.plan(flow)).in_doubt == ()
    assert (await stage.resume(flow, answer=1)).state == {"asked": 1, "answer": 1}


async def test_a_question_that_cannot_be_stored_fails_the_step(quick: Stage) -> None:
    """It is kept as states are."""

    async def ask(state: State, ctx: Ctx) -> None:
        await ctx.interrupt(object())

    with pytest.raises(FlowError) as caught:
        await quick.run(FlowBuilder("order").then(ask))
    assert isinstance(caught.value.cause, StateNotSerializable)


async def test_without_a_store_nobody_can_be_asked(stage: Stage) -> None:
    """The step fails with StoreNeeded; and an unknown run cannot be resumed."""
    with pytest.raises(FlowError) as caught:
        await asking().run({}, world=FakeWorld())
    assert isinstance(caught.value.cause, StoreNeeded)
    with pytest.raises(StoreNeeded):
        await asking().resume("r", answer=1)
    with pytest.raises(UnknownRun):
        await stage.resume(asking(), answer=1)


async def test_a_version_that_asks_can_be_forked_and_answered_otherwise(stage: Stage) -> None:
    """What if the answer had been another: the fork asks the question of its own run."""
    await stage.run(asking())
    assert (await stage.resume(asking(), answer="yes")).state["answer"] == "yes"
    assert (await stage.fork(asking(), 1, "fork")).status == "waiting"
    async with stage.on(asking()) as stored:
        assert (await stored.resume("fork", answer="no", world=stage.world)).state["answer"] == "no"
