"""Steps that leave a trace in the state, runs kept in every way, and runs that go on from everywhere."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from flowneer_async import Context, FlowBuilder, Version, fragment
from flowneer_stores import MemoryStore
from tests.support.chains import stored_versions
from tests.support.entries import DictStore
from tests.support.exact import exact

State = dict[str, Any]
Flow = FlowBuilder[State]


def new(name: str = "flow") -> Flow:
    return FlowBuilder(name)


def piece() -> Flow:
    """An empty fragment."""
    return fragment()


async def trace(state: State, ctx: Context[Any]) -> None:
    """A step that says where it was, in the state."""
    state["trace"] = [*state.get("trace", []), ctx.step]


def tracing(*names: str) -> Flow:
    """A fragment of such steps."""
    flow = piece()
    for name in names:
        flow = flow.then(trace, name=name)
    return flow


async def effect(state: State, ctx: Context[list[str]]) -> None:
    """A step that leaves its trace outside, and the state as it was."""
    ctx.deps.append(ctx.step)


def times(number: int) -> Any:
    """The condition of a loop of so many iterations."""
    return lambda state, ctx: ctx.index < number


KEEPING: dict[str, Callable[[Any], Any]] = {
    "not": lambda flow: flow,
    "sync": lambda flow: flow.with_versioned_checkpoint(MemoryStore()),
    "async": lambda flow: flow.with_versioned_checkpoint(MemoryStore(), durability="async"),
    "exit": lambda flow: flow.with_versioned_checkpoint(MemoryStore(), durability="exit"),
    "skip_unchanged": lambda flow: flow.with_versioned_checkpoint(MemoryStore(), skip_unchanged=True),
    "filter": lambda flow: flow.with_versioned_checkpoint(MemoryStore(), []),
    "two methods": lambda flow: flow.with_versioned_checkpoint(DictStore()),
}
"""The ways in which a flow is kept, or not kept."""

every_keeping = pytest.mark.parametrize("kept", KEEPING.values(), ids=KEEPING)


async def same_from_everywhere(flow: FlowBuilder[Any], start: Callable[[], Any] = dict, /, **options: Any) -> list[str]:
    """Does a run end the same when it goes on after any of its versions, as a fork or as itself? Gives their paths."""
    store = MemoryStore()
    kept = flow.with_versioned_checkpoint(store, **options)
    end = exact((await kept.run(start(), run_id="r")).state)
    versions = await stored_versions(store, "r")
    for version in versions:
        fork = await kept.resume_from(version.id, store).run(run_id=f"from-{version.seq}")
        assert exact(fork.state) == end, f"forked from {version.path!r}"
        again = await flow.with_versioned_checkpoint(await cut(store, version), **options).run(run_id="r")
        assert exact(again.state) == end, f"crashed after {version.path!r}"
    return [version.path for version in versions]


async def cut(store: MemoryStore, last: Version) -> MemoryStore:
    """What a process that died right after a version leaves behind."""
    left = MemoryStore()
    run = replace(await store.read(last.run_id), head=-1, status="running", owner=None, error=None)
    lease = await left.create(run, (await store.versions(last.run_id))[: last.seq + 1])
    assert lease is not None
    await left.release(lease, "running")
    return left


async def paths_of(store: MemoryStore, run_id: str = "r") -> list[str]:
    """The paths of a run's versions."""
    return [version.path for version in await stored_versions(store, run_id)]


def marks(paths: Sequence[str]) -> list[str]:
    """Of these, those that are the engine's own."""
    return [path for path in paths if "@" in path]


def steps(paths: Sequence[str]) -> list[str]:
    """Of these, those of steps."""
    return [path for path in paths if path and "@" not in path]
