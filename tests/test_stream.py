"""`stream`: what happens in a run, read while it goes on."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from flowneer_async import (
    BadOption,
    Chunk,
    Context,
    Event,
    Events,
    FlowBuilder,
    FlowError,
    NotFinished,
    RunDone,
    RunFailed,
    RunStarted,
    RunWaiting,
    StateMissing,
    StateNotSerializable,
    StepDone,
    StepRetried,
    StepStarted,
    StoreFull,
    UnknownAnchor,
    UnknownRun,
    Waiting,
    reducers,
)
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.chains import stored_versions
from tests.support.entries import DictStore
from tests.support.stores import KINDS, Guarded, opened
from tests.support.traced import KEEPING, Flow, State, every_keeping, new, piece, times

every_store = pytest.mark.parametrize("kind", KINDS)
every_buffer = pytest.mark.parametrize("buffer", [0, 1, 64])
both_loops = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def add(state: State) -> None:
    state["n"] = state.get("n", 0) + 1


async def fail(state: State) -> None:
    raise LookupError


def letters(*names: str) -> Flow:
    flow = new()
    for name in names:
        flow = flow.then(add, name=name)
    return flow


async def all_of(events: Events[Any]) -> list[Event]:
    return [event async for event in events]


async def told(flow: Any, state: Any = None, **more: Any) -> list[Event]:
    """All events of a new run, `r`."""
    async with flow.stream({} if state is None else state, run_id="r", **more) as events:
        return await all_of(events)


async def turns(number: int = 30) -> None:
    """Let all others go as far as they can."""
    for _ in range(number):
        await anyio.lowlevel.checkpoint()


def shown(events: list[Event]) -> list[str]:
    """The kinds of events, with their paths."""
    return [" ".join([type(event).__name__, getattr(event, "step", "")]).strip() for event in events]


# The events -----------------------------------------------------------------------------------------------------------


@every_store
async def test_the_events_of_a_run(kind: str, tmp_path: Path) -> None:
    """Each with all that belongs to it: paths, the versions that were stored, the keys that were changed or removed."""

    async def change(state: State, ctx: Context) -> None:
        state["new"] = 1
        state["old"] = 2
        await ctx.emit({"half": True})
        del state["gone"]

    async def nothing(state: State) -> None: ...

    async with opened(kind, tmp_path) as store:
        flow = new().then(change).then(nothing).with_versioned_checkpoint(store)
        events = await told(flow, {"old": 1, "gone": 1, "same": 1})
        assert events == [
            RunStarted("r", "r@0"),
            StepStarted("change"),
            Chunk("change", {"half": True}),
            StepDone("change", "r@1", ("old", "new", "gone")),
            StepStarted("nothing"),
            StepDone("nothing", "r@2", ()),
            RunDone("r", "r@2"),
        ]
        assert [version.id for version in await stored_versions(store, "r")] == ["r@0", "r@1", "r@2"]


@every_keeping
async def test_every_way_of_keeping_tells_the_same(kept: Any) -> None:
    """But for the versions: what was not stored has none."""
    inner = letters("b")
    flow = letters("a").loop(times(2), inner, name="l").then(inner, name="s").batch(lambda s: "x", inner, name="i")
    flow = flow.branch(lambda state: "x", {"x": inner}, name="c")
    events = await told(kept(flow))
    steps = ["a", "l[0]/b", "l[1]/b", "s/b", "i", "i[0]/b", "c/x/b"]
    assert [event.step for event in events if isinstance(event, StepStarted)] == steps
    done = [event for event in events if isinstance(event, StepDone)]
    assert sorted(event.step for event in done) == sorted(steps)  # the batch is done after its items
    assert all(event.changed == ("n",) for event in done if event.step != "i")
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunDone)


async def test_what_is_not_stored_has_no_version() -> None:
    """Without a store none has; with a filter only the steps that it keeps; with durability exit only the end."""
    versions: dict[str, list[str | None]] = {}
    for name, kept in KEEPING.items():
        events = await told(kept(letters("a", "b")))
        versions[name] = [getattr(event, "version", "-") for event in events if not isinstance(event, StepStarted)]
    assert versions == {
        "not": [None] * 4,
        "sync": ["r@0", "r@1", "r@2", "r@2"],
        "async": ["r@0", "r@1", "r@2", "r@2"],
        "exit": ["r@0", None, None, "r@1"],
        "skip_unchanged": ["r@0", "r@1", "r@2", "r@2"],
        "filter": ["r@0", None, None, "r@1"],
        "two methods": ["r@0", "r@1", "r@2", "r@2"],
    }


@every_keeping
async def test_chunks_come_from_generators_and_from_emit(kept: Any) -> None:
    """In their order, with the path of the step; the objects themselves, never copies."""
    values: list[object] = [1, "text", object(), None, {"a": [1]}]

    async def stream(state: State, ctx: Context) -> AsyncIterator[object]:
        for value in values:
            yield value
            await ctx.emit(("emitted", value))

    events = await told(kept(new().then(piece().then(stream), name="s")))
    chunks = [event for event in events if isinstance(event, Chunk)]
    assert [chunk.step for chunk in chunks] == ["s/stream"] * 10
    assert [chunk.value for chunk in chunks[::2]] == values
    assert all(chunk.value is value for chunk, value in zip(chunks[::2], values, strict=True))
    assert [chunk.value for chunk in chunks[1::2]] == [("emitted", value) for value in values]


async def test_retries_are_told_with_their_error_and_the_time_to_wait() -> None:
    """The type of the error only: its message may hold a secret."""

    async def flaky(state: State, ctx: Context) -> AsyncIterator[object]:
        yield ctx.attempt
        if ctx.attempt < 3:
            raise LookupError("secret")

    events = await told(new().then(flaky, retries=2, delay=5), world=FakeWorld())
    assert events[1:-1] == [
        StepStarted("flaky"),
        Chunk("flaky", 1),
        StepRetried("flaky", 1, "LookupError", 5),
        Chunk("flaky", 2),
        StepRetried("flaky", 2, "LookupError", 5),
        Chunk("flaky", 3),
        StepDone("flaky", None, ()),
    ]


@every_keeping
async def test_jumps_and_fallbacks_are_told_as_they_happen(kept: Any) -> None:
    """Each visit of a step with its own path."""

    async def again(state: State) -> str | None:
        state["visits"] = state.get("visits", 0) + 1
        return "#top" if state["visits"] < 3 else None

    events = await told(kept(new().anchor("top").then(again).then(fail, fallback=add)))
    visits = [f"{kind} again{visit}" for visit in ("", "~1", "~2") for kind in ("StepStarted", "StepDone")]
    assert shown(events)[1:-1] == [*visits, "StepStarted fail~2", "StepDone fail~2"]


async def test_lanes_tell_of_themselves_and_of_their_merge() -> None:
    """Each in its own order, and after all of them the step that they are of, with the keys that came of it."""

    async def step(state: State, ctx: Context) -> None:
        state[ctx.step.rpartition("/")[2]] = True
        await ctx.emit(1)

    lanes = [piece().then(step, name="a").then(step, name="b"), piece().then(step, name="c")]
    flow = new().parallel(lanes).batch(lambda state: "xy", add, name="i", concurrency=2, reducer=reducers.sum)
    events = await told(flow.with_versioned_checkpoint(MemoryStore()))
    for lane, names in (("parallel[0]", "ab"), ("parallel[1]", "c")):
        of_lane = [event for event in events if getattr(event, "step", "").startswith(lane)]
        assert [type(event) for event in of_lane] == [StepStarted, Chunk, StepDone] * len(names)
        assert [event.changed for event in of_lane if isinstance(event, StepDone)] == [(name,) for name in names]
    paths = shown(events)
    joined = events[paths.index("StepDone parallel")]
    assert isinstance(joined, StepDone)
    assert (sorted(joined.changed), joined.version) == (["a", "b", "c"], "r@4")
    assert max(number for number, path in enumerate(paths) if "parallel[" in path) < paths.index("StepDone parallel")
    assert paths[-2:] == ["StepDone i", "RunDone"]


async def test_a_run_that_waits_says_for_what() -> None:
    """Then its events are over, and its result says the same."""

    async def ask(state: State, ctx: Context) -> None:
        state["answer"] = await ctx.interrupt("really?")

    flow = new().then(ask).sleep(5).with_versioned_checkpoint(MemoryStore())
    world = FakeWorld()
    async with flow.stream({}, run_id="r", world=world) as events:
        waits = (Waiting("answer", "ask", question="really?"),)
        assert (await all_of(events))[1:] == [StepStarted("ask"), RunWaiting(waits)]
        assert (events.result.status, events.result.waits, events.result.state) == ("waiting", waits, {})
    await flow.resume("r", answer="yes", world=world)
    async with flow.stream(run_id="r", world=world) as events:
        sleeping = (Waiting("sleep", "sleep", world.now() + 5000),)
        assert (await all_of(events))[1:] == [StepStarted("sleep"), RunWaiting(sleeping)]
    world.move(5)
    async with flow.stream(run_id="r", world=world) as events:
        assert shown(await all_of(events)) == ["RunStarted", "StepStarted sleep", "StepDone sleep", "RunDone"]
        assert events.result.state == {"answer": "yes"}


async def test_a_run_that_goes_on_tells_of_what_is_left() -> None:
    """And one that is finished only of its beginning and its end."""
    is_mended = False

    async def fail_first(state: State) -> None:
        if not is_mended:
            raise LookupError

    flow = letters("a").then(fail_first).then(add, name="b").with_versioned_checkpoint(MemoryStore())
    with pytest.raises(FlowError):
        await told(flow)
    is_mended = True
    events = await told(flow)
    assert events[0] == RunStarted("r", "r@1")
    assert shown(events)[1:] == [
        "StepStarted fail_first",
        "StepDone fail_first",
        "StepStarted b",
        "StepDone b",
        "RunDone",
    ]
    assert await told(flow) == [RunStarted("r", "r@3"), RunDone("r", "r@3")]


async def test_a_fork_is_streamed() -> None:
    """From the version on that it begins with."""
    store = MemoryStore()
    flow = letters("a", "b").with_versioned_checkpoint(store)
    await flow.run({}, run_id="r")
    async with flow.resume_from("r@1", store).stream(run_id="f") as events:
        assert await all_of(events) == [
            RunStarted("f", "f@0"),
            StepStarted("b"),
            StepDone("b", "f@1", ("n",)),
            RunDone("f", "f@1"),
        ]


def test_events_are_values() -> None:
    """Frozen, equal by what they hold; what a step emitted, asked or raised is not printed."""
    event = Chunk("step", "secret")
    assert event == Chunk("step", "secret") != Chunk("step", "other")
    assert "secret" not in repr(event)
    assert "secret" not in repr(Waiting("answer", "step", question="secret"))
    with pytest.raises(FrozenInstanceError):
        event.step = "other"  # type: ignore[misc]


@dataclass
class Order:
    lines: list[str] = field(default_factory=list[str])
    total: int = 0


async def test_typed_states_tell_the_fields_that_changed() -> None:
    """With a store and without; the result has the typed state."""

    async def total(state: Order) -> None:
        state.total = len(state.lines)

    flow = FlowBuilder("order", Order).then(total)
    for each in (flow, flow.with_versioned_checkpoint(MemoryStore())):
        async with each.stream(Order(["a"])) as events:
            done = [event for event in await all_of(events) if isinstance(event, StepDone)]
            assert ([event.changed for event in done], events.result.state) == ([("total",)], Order(["a"], 1))


# The result, and failures ---------------------------------------------------------------------------------------------


@every_keeping
@every_buffer
async def test_the_result_is_that_of_run(kept: Any, buffer: int) -> None:
    """Once all events were read; the state is the very object that was given."""
    state: State = {}
    async with kept(letters("a", "b")).stream(state, run_id="r", buffer=buffer) as events:
        await all_of(events)
        assert await all_of(events) == []
        result = events.result
    assert result.state is state
    assert result == await kept(letters("a", "b")).run({}, run_id="r")
    assert events.result is result


@every_buffer
async def test_a_run_that_goes_on_has_no_result(buffer: int) -> None:
    """Asked for too early, it says so; one that was left has none either."""

    async def hang(state: State) -> None:
        await asyncio.Event().wait()

    async with new().then(hang).stream({}, buffer=buffer) as events:
        with pytest.raises(NotFinished):
            _ = events.result
        await anext(events)
        with pytest.raises(NotFinished):
            _ = events.result
    with pytest.raises(NotFinished):
        _ = events.result


@every_keeping
@every_buffer
async def test_a_failed_run_raises_its_error_after_the_event_that_says_so(kept: Any, buffer: int) -> None:
    """The very one, each time that one reads on or asks for the result; nothing of it comes out of the block."""
    async with kept(letters("a").then(fail)).stream({}, run_id="r", buffer=buffer) as events:
        seen = [await anext(events) for _ in range(5)]
        with pytest.raises(FlowError) as caught:
            await anext(events)
        assert shown(seen) == ["RunStarted", "StepStarted a", "StepDone a", "StepStarted fail", "RunFailed"]
        assert seen[-1] == RunFailed("r", caught.value)
        assert (caught.value.step, type(caught.value.__cause__)) == ("fail", LookupError)
        for _ in range(2):
            with pytest.raises(FlowError) as again:
                await anext(events)
            assert again.value is caught.value
            with pytest.raises(FlowError) as again:
                _ = events.result
            assert again.value is caught.value


async def test_an_error_that_is_not_caught_leaves_the_block_as_it_is() -> None:
    """In no group."""
    with pytest.raises(FlowError):
        async with new().then(fail).stream({}) as events:
            await all_of(events)


async def test_mistakes_and_stores_that_fail_are_told_so_too() -> None:
    """The same error as run() raises, whatever it is."""

    async def unkept(state: State) -> None:
        state["x"] = object()

    async def lost(state: State) -> str:
        return "#nowhere"

    async def full(versions: Any) -> None:
        raise StoreFull("here")

    for flow, error in (
        (new().then(unkept), StateNotSerializable),
        (new().then(lost), UnknownAnchor),
        (letters("a").with_versioned_checkpoint(Guarded(full)), StoreFull),
    ):
        async with flow.stream({}) as events:
            with pytest.raises(error):
                await all_of(events)


async def test_a_run_that_cannot_begin_says_so_when_it_is_read() -> None:
    """With no event before."""
    async with letters("a").stream() as events:
        with pytest.raises(StateMissing):
            await anext(events)


@pytest.mark.parametrize("buffer", [-1, 1.5, None, "1", True])
def test_a_buffer_is_a_number_of_events(buffer: Any) -> None:
    """Anything else is refused at once."""
    with pytest.raises(BadOption, match="buffer"):
        letters("a").stream({}, buffer=buffer)


# Waiting for the reader -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [0, 1, 2, 5])
async def test_a_run_waits_while_so_many_events_are_unread(buffer: int) -> None:
    """It does nothing further until one of them is read."""
    emitted = 0

    async def emit(state: State, ctx: Context) -> None:
        nonlocal emitted
        for number in range(20):
            await ctx.emit(number)
            emitted += 1

    async with new().then(emit).stream({}, buffer=buffer) as events:
        for read in range(10):
            await turns()
            # Before the first chunk come two other events.
            assert emitted == max(0, buffer + read - 2)
            await anext(events)
        assert len(await all_of(events)) == 24 - 10


async def test_steps_wait_for_the_reader_too() -> None:
    """No step begins before it was told of; the one before is stored by then."""
    began: list[str] = []

    async def note(state: State, ctx: Context) -> None:
        began.append(ctx.step)

    store = MemoryStore()
    flow = new().then(note, name="a").then(note, name="b").with_versioned_checkpoint(store)
    async with flow.stream({}, run_id="r", buffer=0) as events:
        expected = [[], [], ["a"], ["a"], ["a", "b"]]
        for each in expected:
            await turns()
            assert began == each
            await anext(events)
        await turns()
        assert (await store.read("r")).head == 2


@pytest.mark.parametrize("buffer", [0, 3])
async def test_lanes_wait_for_the_reader_too(buffer: int) -> None:
    """All of them, and all events come through."""

    async def emit(state: State, ctx: Context) -> AsyncIterator[object]:
        for number in range(20):
            yield ctx.item, number

    flow = (
        new().batch(lambda state: range(10), emit, name="each", concurrency=5).with_versioned_checkpoint(MemoryStore())
    )
    async with flow.stream({}, buffer=buffer) as events:
        chunks: list[Any] = [event.value async for event in events if isinstance(event, Chunk)]
    assert len(chunks) == 200
    for item in range(10):
        assert [number for each, number in chunks if each == item] == [*range(20)]


# Leaving --------------------------------------------------------------------------------------------------------------


class Held:
    """A flow that hangs in its second step, the first time."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.is_mended = False

    async def hang(self, state: State) -> None:
        state["half"] = True
        if self.is_mended:
            return
        try:
            await anyio.sleep_forever()
        finally:
            self.log.append("left")

    @property
    def flow(self) -> Flow:
        return letters("a").then(self.hang).then(add, name="b")


@every_store
@every_buffer
@pytest.mark.parametrize("read", range(5))
async def test_leaving_the_block_cancels_the_run(kind: str, buffer: int, read: int, tmp_path: Path) -> None:
    """However many events were read: when the block is over the run is, stored as cancelled, and goes on later."""
    held = Held()
    async with opened(kind, tmp_path) as store:
        flow = held.flow.with_versioned_checkpoint(store)
        async with flow.stream({}, run_id="r", buffer=buffer) as events:
            for _ in range(read):
                await anext(events)
            while not read and "r" not in await known(store):
                await asyncio.sleep(0)
        run = await store.read("r")
        assert (run.status, run.owner) == ("cancelled", None)
        assert held.log in ([], ["left"])
        held.is_mended = True
        assert (await flow.run(run_id="r")).state == {"n": 2, "half": True}


async def known(store: Any) -> set[str]:
    """Is the run there, and has it begun?"""
    try:
        await store.read("r")
    except Exception:
        return set()
    await turns()
    return {"r"}


async def test_leaving_the_block_cancels_lanes() -> None:
    """All of them, wherever they are; what they have done is kept."""
    held = Held()
    store = MemoryStore()
    flow = new().parallel([held.flow, held.flow, letters("c")], reducer=reducers.last).with_versioned_checkpoint(store)
    async with flow.stream({}, run_id="r") as events:
        async for event in events:
            if isinstance(event, StepDone) and event.step == "parallel[2]/c":
                break
    assert held.log == ["left", "left"]
    assert (await store.read("r")).status == "cancelled"
    held.is_mended = True
    assert (await flow.run(run_id="r")).status == "completed"


class Mine(Exception):
    """What a reader raises."""


@every_store
@every_buffer
@pytest.mark.parametrize("error", [Mine, KeyboardInterrupt, SystemExit], ids=lambda error: error.__name__)
async def test_what_is_raised_inside_the_block_comes_out_as_it_is(
    kind: str, buffer: int, error: Any, tmp_path: Path
) -> None:
    """In no group, with no other error behind it; the run is cancelled, and goes on later."""
    held, raised = Held(), error()
    async with opened(kind, tmp_path) as store:
        flow = held.flow.with_versioned_checkpoint(store)

        async def read() -> None:
            async with flow.stream({}, run_id="r", buffer=buffer) as events:
                await anext(events)
                raise raised

        with pytest.raises(error) as caught:
            await read()
        assert caught.value is raised
        assert (raised.__cause__, raised.__context__) == (None, None)
        assert (await store.read("r")).status == "cancelled"
        held.is_mended = True
        assert (await flow.run(run_id="r")).status == "completed"


async def test_a_reader_that_is_cancelled_cancels_the_run() -> None:
    """As a task or by a scope; and that cancellation goes on."""
    held, store = Held(), MemoryStore()
    flow = held.flow.with_versioned_checkpoint(store)

    async def read(run_id: str) -> None:
        async with flow.stream({}, run_id=run_id) as events:
            await all_of(events)

    task = asyncio.ensure_future(read("task"))
    await turns()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task

    async def cancel(scope: anyio.CancelScope) -> None:
        await turns()
        scope.cancel()

    scope = anyio.CancelScope()
    cancelling = asyncio.ensure_future(cancel(scope))
    with scope:
        await read("scope")
    assert scope.cancelled_caught
    await cancelling
    assert [(await store.read(run_id)).status for run_id in ("task", "scope")] == ["cancelled"] * 2
    assert held.log == ["left", "left"]


@every_buffer
async def test_a_step_that_ends_the_process_ends_it(buffer: int) -> None:
    """A SystemExit comes out of the block, whether or not somebody reads it."""

    async def end(state: State) -> None:
        raise SystemExit(3)

    for reads in (True, False):
        with pytest.raises(SystemExit):
            async with new().then(end).stream({}, buffer=buffer) as events:
                await (all_of(events) if reads else until_silent(events))


async def until_silent(events: Events[Any]) -> None:
    """Read what is there, but not what comes of it."""
    for _ in range(2):
        await anext(events)
    await turns()


async def test_a_generator_that_is_left_is_closed_before_the_block_ends() -> None:
    """Its cleaning up is part of the step, and on the state that it worked on."""
    log: list[str] = []

    async def chunks(state: State) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            log.append("closed")

    async with new().then(chunks).stream({}, buffer=0) as events:
        for _ in range(3):
            await anext(events)
        await turns()
    assert log == ["closed"]


async def test_a_generator_that_ran_out_of_time_is_closed_before_it_is_tried_again() -> None:
    """What it does when it is closed, it does to its own attempt."""

    async def chunks(state: State, ctx: Context) -> AsyncIterator[int]:
        assert "dirty" not in state
        state["dirty"] = True
        try:
            for number in range(3):
                yield number
        finally:
            state["closed"] = [*state.get("closed", []), ctx.attempt]
        del state["dirty"]

    async with new().then(chunks, retries=1, timeout=0.1).then(add).stream({}, buffer=0) as events:
        while not isinstance(await anext(events), Chunk):
            pass
        await asyncio.sleep(0.15)  # the reader pauses for longer than the step may take
        retried = [event for event in await all_of(events) if isinstance(event, StepRetried)]
        assert [event.error for event in retried] == ["TimeoutError"]
        assert events.result.state == {"closed": [2], "n": 1}


async def test_events_that_were_not_read_are_gone_when_the_block_is_left() -> None:
    """Reading on afterwards finds an end, and not an error of something inside."""
    async with letters("a").stream({}) as events:
        await anext(events)
    assert await all_of(events) == []


# Detached -------------------------------------------------------------------------------------------------------------


class Slow:
    """A flow whose steps wait for a sign."""

    def __init__(self) -> None:
        self.sign = asyncio.Event()

    async def wait(self, state: State, ctx: Context) -> None:
        await self.sign.wait()
        await ctx.emit("chunk")
        state[ctx.step] = True

    def flow(self, store: Any) -> Flow:
        return new().then(self.wait, name="a").then(self.wait, name="b").with_versioned_checkpoint(store)


async def until_free(store: Any, run_id: str = "r") -> str:
    while (await store.read(run_id)).owner is not None:
        await asyncio.sleep(0)
    return (await store.read(run_id)).status


@every_store
@every_buffer
@pytest.mark.parametrize("read", range(3))
async def test_a_detached_run_goes_on_to_its_end(kind: str, buffer: int, read: int, tmp_path: Path) -> None:
    """Unwatched, and whether or not it was waiting for the reader."""
    slow = Slow()
    async with opened(kind, tmp_path) as store:
        async with slow.flow(store).stream({}, run_id="r", buffer=buffer, detach=True) as events:
            for _ in range(read):
                await anext(events)
            while "r" not in await known(store):
                await asyncio.sleep(0)
        slow.sign.set()
        assert await until_free(store) == "completed"
        assert (await slow.flow(store).run(run_id="r")).state == {"a": True, "b": True}


async def test_a_detached_run_can_be_read_to_its_end() -> None:
    """As any other."""
    slow = Slow()
    slow.sign.set()
    async with slow.flow(MemoryStore()).stream({}, detach=True, buffer=0) as events:
        assert shown(await all_of(events))[-2:] == ["StepDone b", "RunDone"]
        assert events.result.state == {"a": True, "b": True}


@pytest.mark.parametrize("way", ["error", "cancelled"])
async def test_a_detached_run_does_not_care_how_its_block_was_left(way: str) -> None:
    """By an error, or by the cancellation of the reader: these go on, and so does the run."""
    slow, store = Slow(), MemoryStore()

    async def read() -> None:
        async with slow.flow(store).stream({}, run_id="r", detach=True) as events:
            await anext(events)
            if way == "error":
                raise Mine
            await all_of(events)

    task = asyncio.ensure_future(read())
    await turns()
    task.cancel()
    with pytest.raises(Mine if way == "error" else asyncio.CancelledError):
        await task
    slow.sign.set()
    assert await until_free(store) == "completed"


async def test_a_detached_run_may_fail_where_nobody_reads() -> None:
    """It is stored as failed; nobody is warned of an error that was lost, for the store has it."""
    slow, store = Slow(), MemoryStore()
    flow = new().then(slow.wait).then(fail).with_versioned_checkpoint(store)
    async with flow.stream({}, run_id="r", detach=True) as events:
        await anext(events)
    slow.sign.set()
    assert await until_free(store) == "failed"
    await turns()
    gc.collect()
    with pytest.raises(FlowError):
        _ = events.result


def test_a_loop_that_ends_cancels_a_detached_run(tmp_path: Path) -> None:
    """As it does all tasks; the run is stored as cancelled, and goes on in the next process."""
    store = MemoryStore()
    held = Held()

    async def main() -> None:
        async with held.flow.with_versioned_checkpoint(store).stream({}, run_id="r", detach=True) as events:
            await anext(events)
        await turns()

    asyncio.run(main())

    async def again() -> None:
        assert (await store.read("r")).status == "cancelled"
        held.is_mended = True
        assert (await held.flow.with_versioned_checkpoint(store).run(run_id="r")).status == "completed"

    asyncio.run(again())


def test_only_asyncio_lets_a_run_outlive_its_block() -> None:
    """Under trio detach is refused, when the block is entered."""

    async def main() -> None:
        with pytest.raises(BadOption, match="detach"):
            async with letters("a").stream({}, detach=True):
                raise AssertionError

    anyio.run(main, backend="trio")


# Several, none, and other loops ---------------------------------------------------------------------------------------


async def test_two_streams_never_mix() -> None:
    """Of one flow, at once, with a third run that nobody watches."""

    async def emit(state: State, ctx: Context) -> AsyncIterator[object]:
        for number in range(10):
            await asyncio.sleep(0)
            yield ctx.run_id, number

    flow = new().then(emit).parallel([emit, emit]).with_versioned_checkpoint(MemoryStore())

    async def read(run_id: str) -> list[Any]:
        async with flow.stream({}, run_id=run_id, buffer=1) as events:
            return [event async for event in events]

    first, second, _ = await asyncio.gather(read("1"), read("2"), flow.run({}, run_id="3"))
    for run_id, events in (("1", first), ("2", second)):
        assert {event.run_id for event in events if hasattr(event, "run_id")} == {run_id}
        assert {cast(Any, event.value)[0] for event in events if isinstance(event, Chunk)} == {run_id}
        assert len([event for event in events if isinstance(event, Chunk)]) == 30
    async with flow.stream({}, run_id="4") as outer, flow.stream({}, run_id="5") as inner:
        assert (await anext(outer), await anext(inner)) == (RunStarted("4", "4@0"), RunStarted("5", "5@0"))


async def test_a_step_may_stream_another_run() -> None:
    """Whose events are its own matter."""

    async def relay(state: State) -> AsyncIterator[object]:
        async with letters("a").stream({}, run_id="inner") as events:
            async for event in events:
                yield event

    chunks = [event.value for event in await told(new().then(relay)) if isinstance(event, Chunk)]
    assert chunks[0] == RunStarted("inner", None)
    assert shown(chunks)[1:] == ["StepStarted a", "StepDone a", "RunDone"]  # type: ignore[arg-type]


async def test_emitting_where_nobody_reads_does_nothing() -> None:
    """Neither in a run, nor in a context that was made by hand."""

    async def stream(state: State, ctx: Context) -> AsyncIterator[object]:
        await ctx.emit(object())
        yield object()
        state["done"] = True

    assert (await new().then(stream).run({})).state == {"done": True}
    await Context("r", "s", 1, None).emit(object())


async def test_a_stream_that_is_thrown_away_leaves_nothing_behind() -> None:
    """Never entered, left at once, left in the middle: no task, no warning, no run that was not asked for."""
    store, before = MemoryStore(), asyncio.all_tasks()
    flow = letters("a", "b").with_versioned_checkpoint(store)
    flow.stream({}, run_id="never")
    for read in range(5):
        async with flow.stream({}, run_id=f"r{read}", buffer=0) as events:
            for _ in range(read):
                await anext(events)
    with pytest.raises(UnknownRun):
        await store.read("never")
    gc.collect()
    await turns()
    assert asyncio.all_tasks() == before


async def raising(flow: Flow, buffer: int) -> None:
    async with flow.stream({}, buffer=buffer) as events:
        await anext(events)
        raise Mine


@both_loops
@every_buffer
@pytest.mark.parametrize("make", [MemoryStore, DictStore, None], ids=["memory", "two methods", "none"])
def test_streams_under_both_loops(backend: str, buffer: int, make: Callable[[], Any] | None) -> None:
    """Read to the end, failed, left in the middle, left by an error."""

    async def stream(state: State, ctx: Context) -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async def main() -> None:
        flow = letters("a").then(stream).parallel([stream, piece().then(add, name="b")])
        kept = flow if make is None else flow.with_versioned_checkpoint(make())
        async with kept.stream({}, buffer=buffer) as events:
            values = [event.value async for event in events if isinstance(event, Chunk)]
            assert (values, events.result.state) == ([*range(5)] * 2, {"n": 2})
        with pytest.raises(FlowError):
            async with flow.then(fail).stream({}, buffer=buffer) as events:
                await all_of(events)
        async with kept.stream({}, buffer=buffer) as events:
            await anext(events)
        with pytest.raises(Mine):
            await raising(kept, buffer)
        with anyio.CancelScope() as scope:
            async with kept.then(Held().hang).stream({}, buffer=buffer) as events:
                async for event in events:
                    if event == StepStarted("hang"):
                        scope.cancel()
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)
