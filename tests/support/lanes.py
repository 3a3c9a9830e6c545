"""Steps for lanes, each with an effect and a key of its own, and runs that die or are disturbed at every point."""

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

from flowneer_async import Context, UnknownRun, VersionStore
from flowneer_async.memory import split
from flowneer_async.versions import resolved, version_id
from tests.support.stage import Stage
from tests.support.traced import Flow, State, piece


def key_of(path: str) -> str:
    """A key of the state for the step at this path."""
    return path.replace("/", " ")


async def work(state: State, ctx: Context[list[str]]) -> None:
    """An effect, some waiting, and a key for each step."""
    ctx.deps.append(ctx.step)
    await asyncio.sleep(0)
    state[key_of(ctx.step)] = ctx.item or True


def works(*names: str) -> Flow:
    body = piece()
    for name in names:
        body = body.then(work, name=name)
    return body


def nested(**more: Any) -> Flow:
    """Lanes in the lanes of items in lanes, and steps before and after each."""
    inner = works("d").parallel([works("e", "f"), works("g")], name="in").then(work, name="h")
    items = works("b").batch(lambda state: ["x", "y"], inner, name="each", concurrency=2, **more).then(work, name="i")
    return works("a").parallel([items, works("j", "k", "l")], name="out").then(work, name="end")


async def turns(number: int = 5) -> None:
    """Let all others go on."""
    for _ in range(number):
        await asyncio.sleep(0)


async def crash_everywhere(kind: str, folder: Path, how: Any, flow: Flow, **options: Any) -> int:
    """Let a process die at each of its commits: does the run end the same, each stored step having been done once?"""
    whole: list[str] = []
    expected = await flow.run({}, deps=whole)
    for at in count(1):
        (folder / str(at)).mkdir()
        stage, deps = Stage(kind, folder / str(at), **options), list[str]()
        if not await stage.crash(flow, at, how, deps=deps):
            return at
        stored = await stored_paths(stage)
        result = await stage.run(flow, deps=deps)
        assert (result.state, result.failures) == (expected.state, expected.failures)
        assert set(deps) == set(whole)
        for step in whole:
            assert deps.count(step) <= (1 if step in stored else 2), f"{step} after a crash at commit {at}"
    raise AssertionError


async def stored_paths(stage: Stage) -> set[str]:
    """The paths of the versions that there are."""
    try:
        return set(await stage.paths())
    except UnknownRun:
        return set()


async def remembered(store: VersionStore, run_id: str = "r") -> list[str]:
    """What a run remembers beside its state, after its last version: the paths and the kinds of the facts."""
    head = version_id(run_id, (await store.read(run_id)).head)
    _, facts = split(resolved(head, await store.chain(head)))
    return sorted(" ".join(fact.split("\0")[1:]) for fact in facts)
