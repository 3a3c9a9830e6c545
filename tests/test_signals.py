"""Signals: kept, ordered and used once, by steps that wait for them, with a schema, a time limit and a fallback."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pydantic
import pytest

from flowneer_async import (
    BadOption,
    BadSignal,
    Context,
    FlowBuilder,
    FlowError,
    ForeignRun,
    RunBusy,
    RunOver,
    Signal,
    SignalTimeout,
    StateNotSerializable,
    StoreNeeded,
    UnknownRun,
    Waiting,
    fragment,
)
from flowneer_async.testing import Crash, FakeWorld
from flowneer_stores import MemoryStore
from tests.support.stage import Flow, Stage, State
from tests.support.stores import KINDS

START = FakeWorld().now()  # Unix ms


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


@pytest.fixture
def quick(tmp_path: Path) -> Stage:
    return Stage("memory", tmp_path)


def waiting(**options: Any) -> Flow:
    return FlowBuilder("order").wait_for("paid", into="paid", **options)


# Waiting --------------------------------------------------------------------------------------------------------------


async def test_a_run_waits_until_the_signal_has_come(stage: Stage) -> None:
    """run() returns, the run is stored as waiting, and, once the signal is there, it goes on with the payload."""
    flow = waiting()
    result = await stage.run(flow)
    assert (result.status, result.waits) == ("waiting", (Waiting("signal", "paid", None, "paid"),))
    assert await stage.status() == "waiting"
    assert (await stage.resume(flow)).status == "waiting"
    await stage.signal(flow, "paid", {"cents": 250})
    result = await stage.resume(flow)
    assert (result.status, result.state, result.waits) == ("completed", {"paid": {"cents": 250}}, ())
    assert await stage.status() == "completed"


async def test_run_goes_on_with_a_waiting_run_as_resume_does(stage: Stage) -> None:
    """The same run id once more is enough."""
    flow = waiting()
    await stage.run(flow)
    await stage.signal(flow, "paid", 1)
    assert (await stage.run(flow)).state == {"paid": 1}


async def test_a_signal_without_a_key_for_it_only_lets_the_run_go_on(quick: Stage) -> None:
    """Without into= the payload is dropped; None is a payload as any other."""
    flow = FlowBuilder("order").wait_for("go").wait_for("paid", into="paid")
    await quick.run(flow)
    await quick.signal(flow, "go", "dropped")
    await quick.signal(flow, "paid")
    assert (await quick.resume(flow)).state == {"paid": None}


async def test_a_signal_that_came_early_is_kept(stage: Stage) -> None:
    """It was sent before the run came to the step that waits for it, which then does not wait at all."""
    flow: Flow = FlowBuilder("order").sleep(10).wait_for("paid", into="paid")
    await stage.run(flow)
    await stage.signal(flow, "paid", 1)
    assert (await stage.resume(flow)).status == "waiting"
    stage.world.move(10)
    assert (await stage.resume(flow)).state == {"paid": 1}


async def test_signals_are_used_in_their_order_and_once_each(stage: Stage) -> None:
    """Three steps that wait for one name take three signals, whatever restarts and other names come between."""
    flow = FlowBuilder("order")
    for number in range(3):
        flow = flow.wait_for("paid", into=f"paid {number}", name=f"wait {number}")
    flow = flow.wait_for("other", into="other")
    await stage.run(flow)
    for payload in ("a", "b"):
        await stage.signal(flow, "paid", payload)
    await stage.signal(flow, "other", "x")
    result = await stage.resume(flow)
    assert result.state == {"paid 0": "a", "paid 1": "b"}
    assert [wait.step for wait in result.waits] == ["wait 2"]
    assert (await stage.resume(flow)).status == "waiting"
    await stage.signal(flow, "paid", "c")
    assert (await stage.resume(flow)).state == {"paid 0": "a", "paid 1": "b", "paid 2": "c", "other": "x"}


async def test_a_loop_takes_one_signal_in_each_iteration(quick: Stage) -> None:
    """Each comes in its order; when there is none left, the run waits in that iteration."""

    def add(state: State) -> None:
        state["seen"] = [*state.get("seen", []), state.pop("paid")]

    body = fragment().wait_for("paid", into="paid").then(add)
    flow = FlowBuilder[State]("order").loop(lambda s: len(s.get("seen", [])) < 3, body, name="each")
    await quick.run(flow)
    for payload in (1, 2):
        await quick.signal(flow, "paid", payload)
    result = await quick.resume(flow)
    assert [wait.step for wait in result.waits] == ["each[2]/paid"]
    await quick.signal(flow, "paid", 3)
    assert (await quick.resume(flow)).state == {"seen": [1, 2, 3]}


async def test_lanes_that_wait_for_one_name_share_its_signals(quick: Stage) -> None:
    """Each signal goes to one lane, and stays there over restarts."""
    lanes = [fragment().wait_for("paid", into=key, name="paid") for key in "abc"]
    flow: Flow = FlowBuilder("order").parallel(lanes)
    result = await quick.run(flow)
    assert [wait.step for wait in result.waits] == [f"parallel[{number}]/paid" for number in range(3)]
    for payload in (1, 2):
        await quick.signal(flow, "paid", payload)
    result = await quick.resume(flow)
    assert len(result.waits) == 1
    await quick.signal(flow, "paid", 3)
    state = (await quick.resume(flow)).state
    assert sorted(state) == ["a", "b", "c"]
    assert sorted(state.values()) == [1, 2, 3]


async def test_a_waiting_lane_does_not_hold_up_the_others(stage: Stage) -> None:
    """The others go on to their end before the run is put down, and are not done again after."""
    done: list[str] = []

    async def work(state: State) -> None:
        done.append("work")
        state["work"] = "done"

    flow: Flow = FlowBuilder("order").parallel([fragment().wait_for("paid", into="paid"), fragment().then(work)])
    result = await stage.run(flow)
    assert (result.status, done) == ("waiting", ["work"])
    await stage.signal(flow, "paid", 1)
    assert (await stage.resume(flow)).state == {"paid": 1, "work": "done"}
    assert done == ["work"]


async def test_a_batch_of_waiting_items_gives_its_lanes_free(quick: Stage) -> None:
    """More items than lanes: those that wait do not keep the rest from beginning."""
    flow: Flow = FlowBuilder("order").batch(
        lambda s: [0, 1, 2, 3], fragment().wait_for("paid"), name="all", concurrency=2
    )
    assert len((await quick.run(flow)).waits) == 4


async def test_a_forked_run_has_signals_of_its_own(stage: Stage) -> None:
    """It takes none of those of the run that it comes from, and its own from the first one on."""
    flow = waiting().then(lambda s: None, name="then").wait_for("paid", into="again", name="again")
    await stage.run(flow)
    await stage.signal(flow, "paid", 1)
    result = await stage.resume(flow)
    assert result.version is not None
    fork = await stage.fork(flow, int(result.version.rpartition("@")[2]), "fork")
    assert fork.status == "waiting"
    async with stage.on(flow) as stored:
        await stored.signal("fork", "paid", 2)
        result = await stored.resume("fork", world=stage.world)
    assert result.state == {"paid": 1, "again": 2}
    assert (await stage.resume(flow)).status == "waiting"


# Between the look and the putting down --------------------------------------------------------------------------------


class Crossing(MemoryStore):
    """A store where a signal of the run comes in just after it has looked for some, and time goes on."""

    def __init__(self, world: FakeWorld, payloads: list[object]) -> None:
        super().__init__(now=world.now)
        self.world, self.payloads = world, payloads

    async def signals(self, run_id: str) -> Sequence[Signal]:
        found = await super().signals(run_id)
        if self.payloads:
            self.world.move(0.01)
            await self.send(run_id, "paid", b"%d" % self.payloads.pop(0))
            self.world.move(0.01)
        return found


async def test_a_signal_that_comes_while_the_run_is_put_down_is_not_lost() -> None:
    """Whoever sent it found the run busy and will not resume it: so the run itself looks once more."""
    world = FakeWorld()
    flow = waiting().with_versioned_checkpoint(Crossing(world, [7]))
    assert (await flow.run({}, run_id="r", world=world)).state == {"paid": 7}


async def test_a_run_that_looks_again_does_not_take_a_used_signal_for_a_new_one() -> None:
    """Though all of it happens in one ms: the run waits for the second signal."""
    world = FakeWorld()
    store = MemoryStore(now=world.now)
    flow = waiting().wait_for("paid", into="again", name="again").with_versioned_checkpoint(store)
    await flow.run({}, run_id="r", world=world)
    await flow.signal("r", "paid", 1)
    result = await flow.resume("r", world=world)
    assert (result.status, [wait.step for wait in result.waits]) == ("waiting", ["again"])


async def test_each_of_several_signals_that_come_while_the_run_is_put_down_is_used() -> None:
    """One that comes while the run looks again is found, too."""
    world = FakeWorld()
    flow = waiting().wait_for("paid", into="again", name="again").with_versioned_checkpoint(Crossing(world, [1, 2]))
    assert (await flow.run({}, run_id="r", world=world)).state == {"paid": 1, "again": 2}


async def test_a_signal_that_another_lane_sends_is_taken_by_the_same_call(quick: Stage) -> None:
    """It comes after the waiting lane has looked for it: the run looks again before it returns."""

    async def send(state: State, ctx: Context[Any]) -> None:
        await ctx.deps.signal("r", "paid", 7)

    lanes = [fragment().wait_for("paid", into="paid"), fragment().then(send)]
    async with quick.on(FlowBuilder[State]("order").parallel(lanes)) as flow:
        assert (await flow.run({}, run_id="r", deps=flow, world=quick.world)).state == {"paid": 7}


class Taken(MemoryStore):
    """A store in which a signal comes while the run is put down, and whoever sent it takes the run over at once."""

    looks = 0

    async def signals(self, run_id: str) -> Sequence[Signal]:
        found = await super().signals(run_id)
        self.looks += 1
        if self.looks == 1:
            await self.send(run_id, "paid", b"1")
        elif self.looks == 2:
            await self.claim(await self.read(run_id))
        return found


async def test_a_run_that_somebody_else_has_taken_over_while_it_was_put_down_is_theirs() -> None:
    """Whoever called run() is told that it waits, as it did when they let it go, and gets no RunBusy."""
    world = FakeWorld()
    result = await waiting().with_versioned_checkpoint(Taken(now=world.now)).run({}, run_id="r", world=world)
    assert result.status == "waiting"


async def test_of_many_who_resume_a_run_at_once_one_does(stage: Stage) -> None:
    """The signal is used once, the step after it is done once; the others hear that the run is busy."""
    refused, done = list[object](), list[int]()
    all_refused = asyncio.Event()

    async def work(state: State) -> None:
        await all_refused.wait()
        done.append(1)

    async def resume(stored: Flow) -> None:
        try:
            await stored.resume("r", world=stage.world)
        except RunBusy as busy:
            refused.append(busy)
        if len(refused) == 4:
            all_refused.set()

    flow = waiting().then(work)
    await stage.run(flow)
    await stage.signal(flow, "paid", 1)
    async with stage.on(flow) as stored, asyncio.timeout(10):  # where two of them do, none is ever told
        await asyncio.gather(*(resume(stored) for _ in range(5)))
    assert (await stage.run(flow)).state == {"paid": 1}
    assert done == [1]


# Time limits ----------------------------------------------------------------------------------------------------------


async def test_a_signal_that_does_not_come_in_time_fails_the_step(stage: Stage) -> None:
    """The time counts from when the step was first reached, through restarts."""
    flow = waiting(timeout=60)
    result = await stage.run(flow)
    assert result.waits == (Waiting("signal", "paid", START + 60_000, "paid"),)
    stage.world.move(40)
    assert (await stage.resume(flow)).waits == result.waits
    stage.world.move(20)
    with pytest.raises(FlowError) as caught:
        await stage.resume(flow)
    cause = caught.value.cause
    assert isinstance(cause, SignalTimeout)
    assert (cause.step, cause.run_id, cause.signal, cause.seconds) == ("paid", "r", "paid", 60)
    assert await stage.status() == "failed"


async def test_a_time_limit_may_be_a_function_of_the_state(quick: Stage) -> None:
    """It is asked when the step is reached; the error tells the seconds that it gave."""
    flow = waiting(timeout=lambda state: state["limit"])
    await quick.run(flow, {"limit": 30})
    quick.world.move(30)
    with pytest.raises(FlowError) as caught:
        await quick.resume(flow)
    assert isinstance(caught.value.cause, SignalTimeout)
    assert caught.value.cause.seconds == 30


async def test_a_fallback_takes_the_place_of_a_signal_that_did_not_come(stage: Stage) -> None:
    """It may change the state, and jump."""

    def give_up(state: State) -> str:
        state["paid"] = "never"
        return "#end"

    flow = waiting(timeout=60, fallback=give_up).then(lambda s: s.update(sent=1), name="send").anchor("end")
    await stage.run(flow)
    stage.world.move(61)
    result = await stage.resume(flow)
    assert (result.status, result.state) == ("completed", {"paid": "never"})


async def test_a_signal_that_came_in_time_counts_however_late_it_is_looked_for(stage: Stage) -> None:
    """What counts is when it was sent, not when the run goes on."""
    flow = waiting(timeout=60)
    await stage.run(flow)
    stage.world.move(59)
    await stage.signal(flow, "paid", 1)
    stage.world.move(600)
    assert (await stage.resume(flow)).state == {"paid": 1}


async def test_a_signal_that_came_too_late_is_not_used(stage: Stage) -> None:
    """Even where the run goes on only after both; the next step that waits for this name takes it."""
    flow = waiting(timeout=60, fallback=lambda s: s.update(paid="late")).wait_for("paid", into="next", name="next")
    await stage.run(flow)
    stage.world.move(61)
    await stage.signal(flow, "paid", 1)
    assert (await stage.resume(flow)).state == {"paid": "late", "next": 1}


async def test_a_wait_that_failed_can_go_on_when_the_run_is_run_again(stage: Stage) -> None:
    """Its time is still over; a flow with a fallback now takes that."""
    await stage.run(waiting(timeout=60))
    stage.world.move(61)
    for _ in range(2):
        with pytest.raises(FlowError):
            await stage.run(waiting(timeout=60))
    result = await stage.run(waiting(timeout=60, fallback=lambda s: s.update(paid="late")))
    assert result.state == {"paid": "late"}


@pytest.mark.parametrize("at", [2, 3])
@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_crash_around_the_fallback_does_not_begin_the_time_anew(quick: Stage, at: int, how: Any) -> None:
    """Wherever the process dies, the time that is over stays over, and the signal that is too late too late."""
    flow = waiting(timeout=60, fallback=lambda s: s.update(paid="late"))
    await quick.run(flow)
    quick.world.move(61)
    await quick.signal(flow, "paid", 1)
    assert await quick.crash(flow, at, how)
    assert (await quick.run(flow)).state == {"paid": "late"}


async def test_a_lane_whose_fallback_was_interrupted_keeps_its_deadline(stage: Stage) -> None:
    """What another lane stores meanwhile does not make the time begin anew."""
    reached, killed = [0], [True]

    async def fall_back(state: State) -> None:
        reached[0] += 1
        if killed[0]:
            await anyio.wait_all_tasks_blocked()
            raise Crash
        state["paid"] = "late"

    flow: Flow = FlowBuilder("order").parallel(
        [
            fragment().wait_for("paid", timeout=60, fallback=fall_back),
            fragment().sleep(60).then(lambda s: None, name="x"),
        ]
    )
    await stage.run(flow)
    stage.world.move(60)
    with pytest.raises(Crash):
        await stage.run(flow)
    killed[0] = False
    assert (await stage.run(flow)).state == {"paid": "late"}
    assert reached == [2]


# Payloads -------------------------------------------------------------------------------------------------------------


class Model(pydantic.BaseModel):
    cents: int


class Struct(msgspec.Struct):
    cents: int


@dataclass
class Plain:
    cents: int


def at_least_one(payload: Any) -> int:
    if payload < 1:
        raise ValueError(f"{payload} is too little")
    return int(payload)


ACCEPTED: list[tuple[Any, object, object]] = [
    (None, {"any": ["thing", 1, None]}, {"any": ["thing", 1, None]}),
    (int, 250, 250),
    (float, 2.5, 2.5),
    (float, 2, 2.0),
    (str, "250", "250"),
    (bool, True, True),
    (list, [1], [1]),
    (dict, {"a": 1}, {"a": 1}),
    (bytes, b"\0\1", b"\0\1"),
    (tuple, (1, 2), (1, 2)),
    (Decimal, Decimal("2.50"), Decimal("2.50")),
    (Model, {"cents": 250}, Model(cents=250)),
    (Model, Model(cents=250), Model(cents=250)),
    (Struct, {"cents": 250}, Struct(250)),
    (Struct, Struct(250), Struct(250)),
    (Plain, {"cents": 250}, Plain(250)),
    (Plain, Plain(250), Plain(250)),
    (at_least_one, 250, 250),
]


@pytest.mark.parametrize(("schema", "payload", "expected"), ACCEPTED)
async def test_a_payload_comes_as_its_schema_has_it(
    schema: Any, payload: object, expected: object, quick: Stage
) -> None:
    """Of its type, with its value; sent as an object of it, or as the plain data it is made of."""
    flow = waiting(schema=schema)
    await quick.run(flow)
    await quick.signal(flow, "paid", payload)
    state = (await quick.resume(flow)).state
    assert state == {"paid": expected}
    assert type(state["paid"]) is type(expected)


REFUSED: list[tuple[Any, object]] = [
    (int, "s3cret"),
    (int, True),
    (int, 1.0),
    (str, 250),
    (bool, 1),
    (list, "s3cret"),
    (tuple, "s3cret"),
    (set, "s3cret"),
    (bytes, 5),
    (dict, []),
    (Model, {"cents": "s3cret"}),
    (Model, {}),
    (Model, "s3cret"),
    (Struct, {"cents": "s3cret"}),
    (Struct, "s3cret"),
    (Plain, {"euros": "s3cret"}),
    (Plain, {"cents": "s3cret"}),
    (Plain, "s3cret"),
    (at_least_one, -250),
]


@pytest.mark.parametrize(("schema", "payload"), REFUSED)
async def test_a_payload_that_is_not_what_the_flow_waits_for_is_refused(
    schema: Any, payload: object, quick: Stage
) -> None:
    """While it is sent, by an error that names signal, run and type, and shows no value; nothing is stored."""
    flow = waiting(schema=schema)
    await quick.run(flow)
    with pytest.raises(BadSignal) as caught:
        await quick.signal(flow, "paid", payload)
    assert (caught.value.signal, caught.value.run_id) == ("paid", "r")
    assert "s3cret" not in str(caught.value)
    assert "250" not in str(caught.value)
    async with quick.store() as store:
        assert await store.signals("r") == ()


async def test_a_generic_type_is_a_schema_too(quick: Stage) -> None:
    """`list[int]` is checked as such, not called: a text is not taken for the list of its letters."""
    flow = waiting(schema=list[int])
    await quick.run(flow)
    with pytest.raises(BadSignal):
        await quick.signal(flow, "paid", "abc")
    await quick.signal(flow, "paid", [1, 2])
    assert (await quick.resume(flow)).state == {"paid": [1, 2]}


async def test_a_payload_that_one_of_several_steps_waits_for_is_taken(quick: Stage) -> None:
    """Steps that wait for one name may want different things of it, one after the other."""
    flow = waiting(schema=int).wait_for("paid", into="note", schema=str, name="note")
    await quick.run(flow)
    await quick.signal(flow, "paid", 250)
    await quick.signal(flow, "paid", "thanks")
    assert (await quick.resume(flow)).state == {"paid": 250, "note": "thanks"}
    with pytest.raises(BadSignal):
        await quick.signal(flow, "paid", [])


async def test_a_completed_run_takes_no_signal_any_more(stage: Stage) -> None:
    """It would be kept for ever, and whoever sent it would wait in vain."""
    flow = waiting(schema=int)
    await stage.run(flow)
    await stage.signal(flow, "paid", 250)
    await stage.resume(flow)
    with pytest.raises(RunOver, match="'paid'"):
        await stage.signal(flow, "paid", 250)


async def test_a_stored_payload_that_the_flow_does_not_want_any_more_fails_the_step(stage: Stage) -> None:
    """It was sent to an older flow: the step fails with BadSignal, and, run again, takes the next signal."""
    await stage.run(waiting())
    await stage.signal(waiting(), "paid", "s3cret")
    flow = waiting(schema=int)
    with pytest.raises(FlowError) as caught:
        await stage.resume(flow)
    assert isinstance(caught.value.cause, BadSignal)
    assert "s3cret" not in str(caught.value) + str(caught.value.cause)
    await stage.signal(flow, "paid", 250)
    assert (await stage.resume(flow)).state == {"paid": 250}


async def test_a_payload_that_cannot_be_stored_is_refused(quick: Stage) -> None:
    """As a state with such a value would be."""
    await quick.run(waiting())
    with pytest.raises(StateNotSerializable):
        await quick.signal(waiting(), "paid", object())


# Mistakes -------------------------------------------------------------------------------------------------------------


async def test_a_signal_to_an_unknown_run_is_refused(stage: Stage) -> None:
    """There is nobody who could take it."""
    with pytest.raises(UnknownRun, match="'r'"):
        await stage.signal(waiting(), "paid", 1)


async def test_a_signal_that_no_step_waits_for_is_refused(quick: Stage) -> None:
    """A name that is misspelt is told to whoever sends it."""
    await quick.run(waiting())
    with pytest.raises(BadSignal, match=r"'piad'.*no signal of this name"):
        await quick.signal(waiting(), "piad", 1)


async def test_a_signal_to_a_run_of_another_flow_is_refused(quick: Stage) -> None:
    """As running it with this flow would be."""
    await quick.run(waiting())
    with pytest.raises(ForeignRun):
        await quick.signal(FlowBuilder("other").wait_for("paid"), "paid", 1)


async def test_a_wait_inside_any_body_can_be_signalled(quick: Stage) -> None:
    """Of cases, lanes, loops, flows and on_error bodies, too."""
    inner = fragment().wait_for("deep", into="deep")

    def fail(state: State) -> None:
        raise ValueError

    flow: Flow = FlowBuilder("order").then(
        fragment().branch(lambda s: "a", {"a": fragment().then(fail).on_error(inner)}, name="which"), name="sub"
    )
    result = await quick.run(flow)
    assert [wait.step for wait in result.waits] == ["sub/which/a/@error/deep"]
    await quick.signal(flow, "deep", 1)
    assert (await quick.resume(flow)).state == {"deep": 1}


async def test_a_wait_needs_a_store_of_the_full_kind() -> None:
    """Without one nobody could ever signal the run: StoreNeeded names the step."""
    with pytest.raises(StoreNeeded, match="'paid'"):
        await waiting().run({}, world=FakeWorld())
    with pytest.raises(StoreNeeded):
        await waiting().signal("r", "paid")
    with pytest.raises(StoreNeeded):
        await waiting().resume("r")


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1}, {"timeout": "soon"}, {"schema": 5}, {"into": 5}], ids=repr
)
def test_options_that_make_no_sense_are_refused_while_the_flow_is_built(options: dict[str, Any]) -> None:
    """Not in the middle of a run."""
    with pytest.raises(BadOption, match=next(iter(options))):
        FlowBuilder("order").wait_for("paid", **options)
