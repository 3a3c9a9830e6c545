"""Flows end the same wherever their process dies; and what is said of those that do not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async import Context, FlowBuilder, StoreNeeded, Waiting
from flowneer_async.answers import NO_ANSWER
from flowneer_async.testing import Effects, crash_points
from flowneer_stores import MemoryStore, SqliteStore
from tests.support.building import built, reply
from tests.support.children import ENVIRONMENT
from tests.support.generated import Bodies, flows
from tests.support.trees import SLOW

State = dict[str, Any]
Ctx = Context[Effects]
Flow = FlowBuilder[State]

QUICK = settings(deadline=None, max_examples=8, suppress_health_check=SLOW)
LONG = settings(QUICK, max_examples=50)


def _stored(made: Bodies, **options: Any) -> Flow:
    return built(made).with_versioned_checkpoint(MemoryStore(), **options)


# Generated flows ------------------------------------------------------------------------------------------------------


@QUICK
@given(flows())
async def test_a_generated_flow_lives_through_a_crash_at_some_commits(made: Bodies) -> None:
    """Five levels of all kinds of steps, in one another, end the same after a crash at any commit that is tried."""
    await crash_points(_stored(made), {}, reply=reply, most=12)


@QUICK
@given(flows(2), st.sampled_from(["sync", "async", "exit"]))
async def test_a_small_generated_flow_lives_through_a_crash_at_any_commit(made: Bodies, durability: str) -> None:
    """Two levels end the same after a crash at any commit, whatever the durability."""
    await crash_points(_stored(made, durability=durability), {}, reply=reply, most=60)


@settings(QUICK, max_examples=6)
@given(flows(3))
async def test_a_fork_of_a_generated_flow_ends_as_its_origin(made: Bodies) -> None:
    """A run that is resumed from any version of another has the same last state."""
    await crash_points(_stored(made), {}, reply=reply, most=0, again=0, forks=True)


@settings(QUICK, max_examples=3)
@given(made=flows(3))
async def test_a_generated_flow_lives_through_a_crash_in_sqlite(tmp_path_factory: Any, made: Bodies) -> None:
    """The same in a file."""
    async with SqliteStore(tmp_path_factory.mktemp("runs") / "runs.db") as store:
        await crash_points(built(made).with_versioned_checkpoint(store), {}, reply=reply, most=6)


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("depth", [2, 5])
@LONG
@given(data=st.data())
async def test_generated_flows_live_through_a_crash_at_any_commit(durability: str, depth: int, data: Any) -> None:
    """All kinds of steps in one another, each commit, and a fork of each version."""
    flow = _stored(data.draw(flows(depth)), durability=durability)
    await crash_points(flow, {}, reply=reply, most=60, forks=True)


@pytest.mark.torture
@pytest.mark.parametrize("options", [{"skip_unchanged": True}, {"filter": ["*1", "*3", "*5", "*7", "*9"]}], ids=str)
@LONG
@given(data=st.data())
async def test_generated_flows_that_keep_few_versions_live_through_a_crash(options: Any, data: Any) -> None:
    """Steps that made no version are done again, to the same end."""
    await crash_points(_stored(data.draw(flows(3)), **options), {}, reply=reply, most=100)


@pytest.mark.torture
@settings(LONG, max_examples=15)
@given(made=flows(4))
async def test_generated_flows_live_through_a_crash_in_sqlite(tmp_path_factory: Any, made: Bodies) -> None:
    """The same in a file, the forks too."""
    async with SqliteStore(tmp_path_factory.mktemp("runs") / "runs.db") as store:
        await crash_points(built(made).with_versioned_checkpoint(store), {}, reply=reply, most=60, forks=True)


# What the harness finds -----------------------------------------------------------------------------------------------


async def count(state: State) -> None:
    state["n"] = state.get("n", 0) + 1


COUNTING = Flow("counting").start_with(count).then(count, name="again")


def _kept(flow: Flow) -> Flow:
    return flow.with_versioned_checkpoint(MemoryStore())


@pytest.mark.parametrize(("durability", "commits"), [("sync", 4), ("async", 3), ("exit", 3)])
async def test_each_commit_is_tried_in_three_ways(durability: Any, commits: int) -> None:
    """A run is created, appended to, and given back; it dies before each, after it, or unheard, and some die often."""
    assert await crash_points(_kept(COUNTING), {}, again=0, durability=durability) == 3 * commits
    assert await crash_points(_kept(COUNTING), {}, again=7, durability=durability) == 3 * commits + 7
    assert await crash_points(_kept(COUNTING), {}, most=5, durability=durability) == 5


async def test_a_state_that_a_crash_changes_is_found() -> None:
    """A flow that depends on what is not in its state ends otherwise after a crash; the message shows no value."""
    calls: list[str] = []

    async def remember(state: State) -> None:
        calls.append("secret")
        state["calls"] = calls

    with pytest.raises(
        AssertionError, match=r"after a crash before commit 1: .* another state, in \['calls'\]"
    ) as caught:
        await crash_points(_kept(Flow("f").start_with(count).then(remember)), {})
    assert "secret" not in str(caught.value)


async def test_another_failure_after_a_crash_is_found() -> None:
    """A run that fails elsewhere, or with another error, or only after a crash, has ended otherwise."""
    calls: list[None] = []

    def fails_again(state: State) -> None:
        calls.append(None)
        if len(calls) > 1:
            raise ValueError

    with pytest.raises(AssertionError, match=r"ended as End\(status='failed'.*ValueError.*, not as .*completed"):
        await crash_points(_kept(Flow("f").then(fails_again)), {})


async def test_an_effect_that_is_lost_is_found() -> None:
    """What a step does only the first time that it is called, in any process, a crash may undo."""
    calls: list[None] = []

    async def charge(state: State, ctx: Ctx) -> None:
        calls.append(None)
        if len(calls) == 1:
            ctx.deps.do(ctx, "charged")

    with pytest.raises(AssertionError, match=r"did not happen.*\('charge', 'charged'\)"):
        await crash_points(_kept(Flow("f").then(charge)), {})


async def test_an_effect_under_another_key_is_found() -> None:
    """What happens only after a crash should not have happened."""
    calls: list[None] = []

    async def charge(state: State, ctx: Ctx) -> None:
        calls.append(None)
        ctx.deps.do(ctx, f"charged {len(calls)}")

    with pytest.raises(AssertionError, match=r"charged"):
        await crash_points(_kept(Flow("f").then(charge)), {})


async def test_what_a_dead_process_would_do_does_not_happen() -> None:
    """A lane that has not ended yet when another dies does nothing any more."""

    async def charge(state: State, ctx: Ctx) -> None:
        ctx.deps.do(ctx)

    def lane(name: str) -> Any:
        return lambda body: body.then(charge, name=f"{name}1").then(charge, name=f"{name}2")

    assert await crash_points(_kept(Flow("f").parallel([lane("a"), lane("b"), lane("c")])), {}) > 20


async def test_steps_are_given_deps_made_of_the_effects() -> None:
    """Where a flow has deps of its own, they are made for each process, of what it does outside."""

    class Bank:
        def __init__(self, effects: Effects) -> None:
            self.effects = effects

        def charge(self, ctx: Any) -> None:
            self.effects.do(ctx, "charged")

    async def charge(state: State, ctx: Context[Bank]) -> None:
        ctx.deps.charge(ctx)

    assert await crash_points(_kept(Flow("f").then(charge)), {}, again=0, deps=Bank) == 9


async def test_a_run_that_waits_is_given_what_it_waits_for() -> None:
    """Time passes for those that sleep; `reply` says what is sent, what is answered, and what never comes."""

    async def ask(state: State, ctx: Ctx) -> None:
        state["answer"] = await ctx.interrupt("how many?")

    def late(state: State) -> None:
        state["late"] = True

    def told(wait: Waiting) -> object:
        return {"go": "gone", None: 3}.get(wait.name, NO_ANSWER)

    flow = Flow("f").sleep(60).wait_for("go", into="go").then(ask).wait_for("never", timeout=5, fallback=late)
    assert await crash_points(_kept(flow), {}, reply=told, forks=True) > 20
    with pytest.raises(AssertionError, match=r"nobody has an answer for 'go': give reply="):
        await crash_points(_kept(flow), {})


async def test_a_flow_without_a_store_cannot_crash() -> None:
    """It takes one that keeps runs."""
    with pytest.raises(StoreNeeded):
        await crash_points(COUNTING, {})


_CONFTEST = 'pytest_plugins = ["flowneer_async.testing.fixtures"]'
_TEST = """
import asyncio
from flowneer_async import FlowBuilder
from flowneer_stores import MemoryStore

async def one(state):
    state["one"] = 1

def test_it(crash_points):
    flow = FlowBuilder("f").then(one).with_versioned_checkpoint(MemoryStore())
    assert asyncio.run(crash_points(flow, {}, again=0)) == 9
"""


def test_the_fixture_runs_a_test_for_each_durability(tmp_path: Path) -> None:
    """A conftest.py that names the module has the fixture `crash_points`."""
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_it.py").write_text(_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr
