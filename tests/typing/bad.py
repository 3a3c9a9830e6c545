"""Mistakes that a type checker finds: on each line marked so, and on no other."""

from typing import TypedDict

from flowneer_async import Context, FlowBuilder, VersionedCheckpointEntry
from flowneer_stores import MemoryStore


class Report(TypedDict):
    url: str


class Client:
    async def get(self, url: str) -> str:
        return url


class Other(TypedDict):
    number: int


async def fine(state: Report) -> None:
    state["url"] = "x"


async def other(state: Other) -> None:
    state["number"] = 1


async def other_with_context(state: Other, ctx: Context[Client]) -> None:
    state["number"] = 1


async def misuses_deps(state: Report, ctx: Context[Client]) -> None:
    await ctx.deps.get(1)  # error
    await ctx.deps.post("x")  # error
    ctx.run_id = "mine"  # error


async def unknown_deps(state: Report, ctx: Context) -> None:
    await ctx.deps.get("x")  # error


async def returns(state: Report) -> int:
    return len(state["url"])


def returns_too(state: Report, ctx: Context) -> bytes:
    return (state["url"] + ctx.step).encode()


async def three(state: Report, ctx: Context, more: int) -> None:
    print(state, ctx, more)


async def none() -> None:
    pass


flow = FlowBuilder("report", Report)
flow.then(other)  # error
flow.then(other_with_context)  # error
flow.start_with(other)  # error
flow.then(returns)  # error
flow.then(returns_too)  # error
flow.then(three)  # error
flow.then(none)  # error
flow.then(fine, retries="3")  # error
flow.then(fine, retries=1.5)  # error
flow.then(fine, retries=None)  # error
flow.then(fine, delay="soon")  # error
flow.then(fine, timeout="30")  # error
flow.then(fine, name=3)  # error
flow.then(fine, retry=3)  # error
flow.then(fine, retries=lambda state: state["nope"])  # error
flow.then(fine, timeout=lambda state: state["url"])  # error
flow.with_versioned_checkpoint(object())  # error
flow.with_versioned_checkpoint(MemoryStore(), 3)  # error
flow.with_versioned_checkpoint(MemoryStore(), durability="later")  # error
flow.resume_from(3, MemoryStore())  # error


class HalfAStore:
    def save(self, entry: VersionedCheckpointEntry) -> None:
        entry.version = "mine"  # error


flow.with_versioned_checkpoint(HalfAStore())  # error


async def run() -> None:
    await flow.run({"link": "x"})  # error
    await flow.run({"url": 3})  # error
    await flow.run({"url": "x"}, run_id=7)  # error
    result = await flow.run({"url": "x"})
    number: int = result.state["url"]  # error
    print(number, result.state["nope"])  # error
    result.status = "failed"  # error
    print(flow.run({"url": "x"}).state)  # error
