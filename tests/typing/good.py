"""Flows as users write them: no type checker complains."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NotRequired, TypedDict, assert_type

from flowneer_async import (
    Backoff,
    Chunk,
    Context,
    Event,
    Failure,
    FlowBuilder,
    Goto,
    Hooks,
    Result,
    RunDone,
    RunFailed,
    RunStarted,
    RunWaiting,
    Snapshot,
    StepDone,
    StepRetried,
    StepStarted,
    VersionedCheckpointEntry,
    Waiting,
    fragment,
    goto,
)
from flowneer_async.reducers import append, last, sum, union
from flowneer_stores import MemoryStore, SqliteStore


class Report(TypedDict):
    url: str
    pages: list[str]
    summary: NotRequired[str]


class Client:
    async def get(self, url: str) -> str:
        return url


async def fetch(state: Report, ctx: Context[Client]) -> None:
    assert_type(ctx.attempt, int)
    assert_type(ctx.idempotency_key, str)
    state["pages"] = [await ctx.deps.get(state["url"])]


def count(state: Report) -> None:
    state["summary"] = f"{len(state['pages'])} pages"


async def note(state: Report, ctx: Context) -> None:
    assert_type(ctx.deps, object)
    print(ctx.run_id, ctx.step, state["url"])


class Sender:
    async def __call__(self, state: Report, ctx: Context[Client]) -> None:
        await ctx.deps.get(state["url"])


report = (
    FlowBuilder("report", Report)
    .start_with(fetch, retries=3, delay=Backoff(first=1), timeout=30)
    .then(count, timeout=lambda state: len(state["pages"]) + 1.5, retries=lambda state: len(state["url"]))
    .then(note, name="note", delay=lambda state: 1.0 if state["pages"] else Backoff())
    .then(Sender(), name="send", timeout=None)
    .then(lambda state: state["pages"].clear(), name="clear")
)


async def run_report() -> None:
    result = await report.run({"url": "https://example.org", "pages": []}, deps=Client())
    assert_type(result, Result[Report])
    assert_type(result.state, Report)
    assert_type(result.state["pages"], list[str])
    assert_type(result.version, str | None)
    assert_type(result.run_id, str)
    async with SqliteStore("runs.db") as store:
        flow = report.with_versioned_checkpoint(store, ["fetch*"], durability="async", skip_unchanged=True)
        assert_type(flow, FlowBuilder[Report])
        assert_type((await flow.run(run_id="r")).state, Report)
        assert_type((await flow.resume_from("r@1", store).run(run_id="fork")).state, Report)


@dataclass
class Order:
    items: list[str] = field(default_factory=list[str])
    paid: bool = False


async def pay(state: Order) -> None:
    state.paid = True


async def order() -> None:
    flow = FlowBuilder("order", Order).then(pay, retries=lambda state: len(state.items))
    assert_type((await flow.with_versioned_checkpoint(MemoryStore()).run(Order())).state, Order)


async def plain(state: dict[str, object]) -> None:
    state["n"] = 1


async def loose(state: dict[str, Any]) -> None:
    state["n"] += 1


async def dicts() -> None:
    default = FlowBuilder("dict").then(plain).then(loose)
    assert_type((await default.run({"n": 1})).state, dict[str, object])
    chosen: FlowBuilder[dict[str, Any]] = FlowBuilder("dict")
    assert_type((await chosen.then(loose).run({"n": 1})).state, dict[str, Any])
    assert_type((await FlowBuilder[dict[str, int]]("dict").run({"n": 1})).state, dict[str, int])


class SyncStore:
    def save(self, entry: VersionedCheckpointEntry) -> None:
        assert_type(entry.diff.changed, dict[str, object])
        assert_type(entry.parent_version, str | None)

    def resolve(self, version: str) -> Snapshot[dict[str, object]]:
        return Snapshot(0, {"version": version})


class AsyncStore:
    async def save(self, entry: VersionedCheckpointEntry) -> None:
        print(entry.step_index, entry.timestamp)

    async def resolve(self, version: str) -> Snapshot[dict[str, Any]]:
        return Snapshot(0, {"version": version})


async def own_stores(durability: Literal["sync", "async", "exit"]) -> None:
    report.with_versioned_checkpoint(SyncStore(), lambda name: name.startswith("f"))
    assert_type((await report.resume_from("r@1", AsyncStore()).run()).state, Report)
    report.with_versioned_checkpoint(MemoryStore(), durability=durability)


# Steps of every kind --------------------------------------------------------------------------------------------------


async def jumps(state: Report, ctx: Context[Client]) -> Goto | None:
    return goto("again") if ctx.attempt == 1 else None


def jumps_to(state: Report) -> Literal["#again"] | None:
    return "#again" if state["pages"] else None


async def chunks(state: Report, ctx: Context) -> AsyncIterator[str]:
    for page in state["pages"]:
        yield page


async def undo(state: Report, ctx: Context[Client]) -> None:
    state["pages"].clear()


def was_done(state: Report) -> bool:
    return "summary" in state


async def was_done_there(state: Report, ctx: Context[Client]) -> bool:
    return await ctx.deps.get(ctx.idempotency_key) == "done"


def kind(state: Report) -> Literal["long", "short"]:
    return "long" if len(state["pages"]) > 9 else "short"


async def kind_of(state: Report, ctx: Context) -> str:
    return str(ctx.item)


def more(state: Report, ctx: Context) -> bool:
    return ctx.index < len(state["pages"])


async def pages(state: Report) -> list[str]:
    return state["pages"]


def newest(before: object, values: Sequence[object]) -> object:
    return values[-1] if values else before


tasks = (
    FlowBuilder("tasks", Report)
    .start_with(fetch, compensate=undo, fallback=count, aliases=["get"])
    .anchor("again", max_visits=3)
    .then(jumps)
    .then(jumps_to)
    .then(chunks)
    .then(lambda state: goto("again"), name="back")
    .then(lambda state: "#again" if state["pages"] else None, name="back too")
    .then(count, name="once", delivery="at_most_once", verify=was_done, compensate=lambda state: state["pages"].clear())
    .then(fetch, name="once there", delivery="at_most_once", verify=was_done_there)
)
assert_type(tasks, FlowBuilder[Report])

part = fragment(Report).then(count).then(note)
assert_type(part, FlowBuilder[Report])

bodies = (
    FlowBuilder("bodies", Report)
    .then(part, name="part")
    .add(part)
    .branch(kind, {"long": part, "short": fetch})
    .branch(kind_of, {"a": lambda body: body.then(count)}, default=lambda body: body.then(fetch).anchor("in"))
    .branch(lambda state: state["url"], {"a": fetch}, default=part, name="by url")
    .loop(more, fetch)
    .loop(lambda state: len(state["pages"]) < 3, lambda body: body.then(count).then(jumps), name="until full")
    .loop(lambda state, ctx: ctx.index < 3, chunks, name="three times")
    .batch(pages, fetch)
    .batch(
        lambda state: state["pages"],
        lambda body: body.then(fetch, retries=2).branch(kind, {"long": fetch, "short": lambda inner: inner.add(part)}),
        name="each",
        concurrency=10,
        max_failures=3,
        reducer={"pages": append, "summary": newest},
        on_error="wait",
        timeout=60,
    )
    .parallel([fetch, part, lambda body: body.then(count)], reducer=append)
    .parallel([fetch, Sender().__call__], name="both", reducer={"pages": union, "summary": last}, on_error="cancel")
    .parallel((lambda body: body.then(count), lambda body: body.parallel([fetch])), name="all", reducer=sum, timeout=5)
    .on_error(lambda body: body.then(note))
)
assert_type(bodies, FlowBuilder[Report])


def checked(payload: Any) -> str:
    return str(payload)


waiting = (
    FlowBuilder("waiting", Report)
    .sleep(5)
    .sleep(timedelta(days=1), name="a day")
    .sleep(datetime(2030, 1, 1, tzinfo=UTC), name="until 2030")
    .sleep(lambda state: len(state["pages"]) * 0.5, name="some time")
    .sleep(lambda state: datetime.now(UTC), name="until then")
    .wait_for("go")
    .wait_for("approved", into="summary", schema=str, timeout=60, fallback=count, name="approval")
    .wait_for("order", into="summary", schema=Order, timeout=lambda state: float(len(state["pages"])))
    .wait_for("any", schema=checked, timeout=None)
    .on_error(fetch)
)
assert_type(waiting, FlowBuilder[Report])


async def asks(state: Report, ctx: Context[Client]) -> None:
    assert_type(ctx.item, object)
    assert_type(ctx.index, int)
    assert_type(ctx.failure, Failure | None)
    assert_type(await ctx.interrupt({"question": 1}), object)
    assert_type(await ctx.once("get", ctx.deps.get, "x"), str)
    assert_type(await ctx.once("get too", ctx.deps.get, url="x"), str)
    await ctx.emit(["anything"])


async def around(proceed: Callable[[], Any], state: Report, ctx: Context) -> None:
    await proceed()


async def watch(state: Report, ctx: Context) -> None:
    print(state["url"], ctx.step)


class Audit:
    """A plugin for flows of any state."""

    def hooks(self) -> Hooks[object]:
        return Hooks(
            before_step=self.before, after_flow=lambda state, ctx, status: print(status), wrap_step=self.around
        )

    async def before(self, state: object, ctx: Context) -> None:
        print(ctx.step)

    async def around(self, proceed: Callable[[], Any], state: object, ctx: Context) -> Goto | str | None:
        await proceed()
        return None


hooked = (
    report.add_hooks(Hooks[Report](before_step=watch, wrap_step=around, on_anchor_hit=watch, on_loop_iteration=watch))
    .add_hooks(Hooks(after_step=watch, on_error=lambda state, ctx, error: print(state["url"], error)), ["fetch*"])
    .add_hooks(Hooks(wrap_parallel_fn=around, before_flow=watch), lambda name: name == "fetch")
    .add_hooks(Audit().hooks())
    .remove_hooks(Hooks())
)
assert_type(hooked, FlowBuilder[Report])


async def reads(kept: FlowBuilder[Report]) -> None:
    async with kept.stream({"url": "x", "pages": []}, run_id="r", deps=Client(), buffer=8, detach=True) as events:
        async for event in events:
            assert_type(event, Event)
            match event:
                case RunStarted():
                    assert_type(event.version, str | None)
                case StepStarted():
                    assert_type(event.step, str)
                case StepDone():
                    assert_type(event.changed, tuple[str, ...])
                case Chunk():
                    assert_type(event.value, object)
                case StepRetried():
                    assert_type(event.wait, float)
                case RunWaiting():
                    assert_type(event.waits, tuple[Waiting, ...])
                case RunDone():
                    assert_type(event.version, str | None)
                case RunFailed():
                    assert_type(event.error, Exception)
        assert_type(events.result, Result[Report])


async def goes_on(kept: FlowBuilder[Report]) -> None:
    result = await kept.resume("r", answer={"yes": True}, at="ask", deps=Client())
    assert_type(result, Result[Report])
    assert_type(result.state["pages"], list[str])
    assert_type(result.failures, tuple[Failure, ...])
    for wait in result.waits:
        assert_type(wait.kind, Literal["sleep", "signal", "answer", "doubt"])
        assert_type(wait.until, int | None)
    assert_type((await kept.resume("r")).status == "waiting", bool)
    await kept.signal("r", "approved", Order())
    await kept.signal("r", "go")
    plan = await kept.plan_resume("r")
    assert_type(plan.again, tuple[str, ...])
    assert_type(kept.to_mermaid(plan.progress), str)
    print(kept.describe(plan.progress)["steps"][0]["name"])


async def order_lines(state: Order, ctx: Context) -> None:
    state.items.append(str(ctx.item))


typed = (
    FlowBuilder("typed", Order)
    .batch(lambda state: state.items, lambda body: body.then(order_lines), name="lines")
    .loop(lambda state: not state.paid, pay, name="until paid")
    .branch(
        lambda state: "paid" if state.paid else "open", {"paid": pay, "open": lambda body: body.then(pay)}, name="b"
    )
    .parallel([pay, order_lines], reducer={"items": append})
)
assert_type(typed, FlowBuilder[Order])


class Twice(FlowBuilder[Report]):
    """A builder with a word of its own."""

    def twice(self) -> "Twice":
        return self.then(count, name="one").then(count, name="two")


assert_type(Twice("twice").twice().parallel([fetch]).twice(), Twice)


def every(items: Iterable[str]) -> FlowBuilder[Report]:
    """Bodies made by a program."""
    return FlowBuilder("every", Report).parallel([fragment(Report).then(count, name=item) for item in items])
