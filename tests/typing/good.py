"""Flows as users write them: no type checker complains."""

from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict, assert_type

from flowneer_async import Backoff, Context, FlowBuilder, Result, Snapshot, VersionedCheckpointEntry
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
