"""Mistakes that a type checker finds: on each line marked so, and on no other."""

from collections.abc import AsyncIterator
from typing import Any, TypedDict

import aiosqlite

from flowneer_async import Context, FlowBuilder, Hooks, StepDone, VersionedCheckpointEntry, fragment
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


async def misuses_connections(state: Report, ctx: Context[Client]) -> None:
    async with ctx.transaction(aiosqlite.Connection) as connection:
        await connection.execute("SELECT 1")
        await connection.do("SELECT 1")  # error
    async with ctx.transaction() as untyped:
        await untyped.execute("SELECT 1")  # error


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


# Steps of every kind --------------------------------------------------------------------------------------------------


def name_of(state: Report) -> str:
    return state["url"]


def number_of(state: Report) -> int:
    return len(state["url"])


def other_name(state: Other) -> str:
    return str(state["number"])


async def other_chunks(state: Other) -> AsyncIterator[str]:
    yield str(state["number"])


async def other_around(proceed: Any, state: Other, ctx: Context) -> None:
    await proceed()


theirs = fragment(Other).then(other)

flow.then(theirs)  # error
flow.add(theirs)  # error
flow.add(fine)  # error
flow.then(other_chunks)  # error
flow.then(fine, compensate=other)  # error
flow.then(fine, compensate=name_of)  # error
flow.then(fine, fallback=other)  # error
flow.then(fine, fallback=number_of)  # error
flow.then(fine, delivery="exactly_once")  # error
flow.then(fine, delivery="at_most_once", verify=name_of)  # error
flow.then(fine, aliases=3)  # error
flow.branch(name_of, {"a": theirs})  # error
flow.branch(name_of, {"a": lambda body: body.nope()})  # error
flow.branch(name_of, {"a": lambda body: body.then(other)})  # error
flow.branch(name_of, {1: fine})  # error
flow.branch(name_of, [fine])  # error
flow.branch(number_of, {"a": fine})  # error
flow.branch(other_name, {"a": fine})  # error
flow.loop(other_name, fine)  # error
flow.loop(number_of, theirs)  # error
flow.loop(number_of, lambda body: body.then(other))  # error
flow.batch(number_of, fine)  # error
flow.batch(name_of, theirs)  # error
flow.batch(name_of, fine, concurrency="10")  # error
flow.batch(name_of, fine, max_failures=0.5)  # error
flow.batch(name_of, fine, timeout="1")  # error
flow.batch(name_of, fine, on_error="stop")  # error
flow.batch(name_of, lambda body: body.then(fine, retries="3"))  # error
flow.parallel(fine)  # error
flow.parallel([theirs])  # error
flow.parallel([lambda body: body.then(other)])  # error
flow.parallel([fine], reducer="sum")  # error
flow.parallel([fine], on_error="ignore")  # error
flow.anchor(3)  # error
flow.anchor("top", max_visits="3")  # error
flow.sleep("5")  # error
flow.sleep(lambda state: state["url"])  # error
flow.wait_for(3)  # error
flow.wait_for("go", into=3)  # error
flow.wait_for("go", timeout="1")  # error
flow.wait_for("go", fallback=other)  # error
flow.wait_for("go", schema=3)  # error
flow.on_error(theirs)  # error
flow.add_hooks(fine)  # error
flow.add_hooks(Hooks[Other]())  # error
flow.add_hooks(Hooks(wrap_step=other_around))  # error
flow.add_hooks(Hooks[Report](), 3)  # error
Hooks[Report](before_step=other)  # error
Hooks[Report](before_steps=fine)  # error


async def asks(state: Report, ctx: Context[Client]) -> None:
    answer: str = await ctx.interrupt("?")  # error
    await ctx.once("get", ctx.deps.get, 3)  # error
    await ctx.once("get", ctx.deps.get)  # error
    await ctx.once(ctx.deps.get, "x")  # error
    number: int = await ctx.once("get", ctx.deps.get, "x")  # error
    ctx.item = answer  # error
    print(number, ctx.item["x"])  # error


async def reads() -> None:
    async with flow.stream({"url": 3}) as events:  # error
        async for event in events:
            print(event.step)  # error
            if isinstance(event, StepDone):
                event.version = "mine"  # error
    async with flow.stream({"url": "x"}, buffer="8") as more:  # error
        print(more.result.state["nope"])  # error
    await flow.resume(7)  # error
    await flow.resume("r", at=3)  # error
    await flow.signal("r", 3)  # error
    await flow.plan_resume(7)  # error
    flow.to_mermaid("x")  # error
