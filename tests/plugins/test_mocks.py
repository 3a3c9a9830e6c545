"""Mocks: functions that take the place of steps in a test."""

from typing import Any
from unittest.mock import AsyncMock

import pytest

from flowneer_async import BadOption, BadStep, Context, FlowBuilder, FlowError, StepReturned, goto
from flowneer_async.plugins import Called, Mocks
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.chains import stored_states
from tests.support.plugged import State, context, flow


async def real(state: State) -> None:
    raise AssertionError("called")


def emails() -> FlowBuilder[State]:
    return (
        flow()
        .then(lambda state: state.update(to=["a", "b"]), name="load")
        .batch(lambda state: state["to"], flow().then(real, name="send"), name="emails")
        .then(real, name="send")
    )


async def test_mocks_take_the_place_of_steps_and_the_others_run() -> None:
    """Async or sync, with ctx or without; None does nothing."""

    async def fetch(state: State, ctx: Context[Any]) -> None:
        state["fetched"] = ctx.step

    def save(state: State) -> None:
        state["saved"] = True

    mocks = Mocks({"fetch": fetch, "save": save, "send": None})
    mocked = flow().then(real, name="fetch").then(real, name="save").then(real, name="send")
    mocked = mocks.into(mocked.then(lambda state: state.update(own=True), name="own"))
    assert (await mocked.run({})).state == {"fetched": "fetch", "saved": True, "own": True}


async def test_a_mock_may_stand_for_all_steps_of_a_name_or_for_one_by_its_path() -> None:
    """The path goes before the name."""
    mocks = Mocks({"send": None, "emails/send": lambda state: state.setdefault("sent", []).append(1)})
    assert (await mocks.into(emails()).run({})).state["sent"] == [1, 1]
    assert [call.step for call in mocks.of("send")] == ["emails[0]/send", "emails[1]/send", "send"]
    assert [call.step for call in mocks.of("emails/send")] == ["emails[0]/send", "emails[1]/send"]
    assert [call.step for call in mocks.of("emails[1]/send")] == ["emails[1]/send"]


async def test_calls_are_recorded_with_the_state_as_they_found_it() -> None:
    """Not as it is now."""

    def send(state: State, ctx: Context[Any]) -> None:
        state["n"].append(ctx.attempt)
        if ctx.attempt == 1:
            raise OSError

    mocks = Mocks({"send": send})
    mocked = mocks.into(flow().then(real, name="send", retries=1, delay=5).then(lambda state: None, name="last"))
    world = FakeWorld()
    assert (await mocked.run({"n": []}, run_id="r", world=world)).state == {"n": [2]}
    assert mocks.calls == [Called("r", "send", 1, {"n": []}), Called("r", "send", 2, {"n": []})]
    assert world.slept == [5]


async def test_mocks_in_lanes_see_the_draft_of_their_lane() -> None:
    mocks = Mocks({"a": lambda state: state.update(a=1), "b": lambda state: state.update(b=[*state["all"]])})
    lanes = [flow().then(real, name="a"), flow().then(real, name="b")]
    mocked = mocks.into(flow().parallel(lanes))
    assert (await mocked.run({"all": [1, 2]})).state == {"all": [1, 2], "a": 1, "b": [1, 2]}
    assert [call.state for call in mocks.calls] == [{"all": [1, 2]}] * 2


async def test_what_a_mock_changes_is_stored() -> None:
    store, mocks = MemoryStore(), Mocks({"send": lambda state: state.update(sent=True)})
    mocked = mocks.into(flow().then(real, name="send").with_versioned_checkpoint(store))
    await mocked.run({}, run_id="r")
    assert await stored_states(store, "r") == [{}, {"sent": True}]


async def test_a_mock_may_jump_as_the_step_would() -> None:
    def ask(state: State) -> Any:
        state["n"] = state.get("n", 0) + 1
        return goto("again") if state["n"] < 3 else None

    mocked = Mocks({"ask": ask}).into(flow().anchor("again").then(real, name="ask"))
    assert (await mocked.run({})).state == {"n": 3}


async def test_a_mock_that_returns_a_value_is_refused_as_the_step_would_be() -> None:
    """An AsyncMock does, unless it is told not to."""
    with pytest.raises(StepReturned):
        await Mocks({"send": AsyncMock()}).into(flow().then(real, name="send")).run({})
    mock = AsyncMock(return_value=None)
    await Mocks({"send": mock}).into(flow().then(real, name="send")).run({"n": 1})
    mock.assert_awaited_once_with({"n": 1})


@pytest.mark.parametrize("name", ["sned", "emails", "emails/load", "emails[0]/send", ""])
def test_a_mock_for_a_step_that_is_not_there_is_refused_at_once(name: str) -> None:
    """A misspelt name would let the real step be called. A batch is no function."""
    with pytest.raises(BadOption, match="those that are functions are load, send") as caught:
        Mocks({"send": None, name: None}).into(emails())
    assert caught.value.value == [name]


def test_a_mock_may_stand_for_a_step_wherever_it_is() -> None:
    """In a branch, a loop, a lane, a flow inside, or what is done on an error."""
    inner = flow().then(real, name="a").on_error(flow().then(real, name="b"))
    whole = (
        flow()
        .branch(lambda state: "x", {"x": flow().then(real, name="c")}, name="branch")
        .loop(lambda state: False, flow().then(real, name="d"), name="loop")
        .parallel([flow().then(real, name="e")])
        .then(inner, name="inner")
        .on_error(flow().then(real, name="f"))
    )
    Mocks(dict.fromkeys("abcdef")).into(whole)


def test_what_cannot_be_a_step_is_refused() -> None:
    with pytest.raises(BadStep):
        Mocks({"send": lambda: None})  # type: ignore[dict-item, misc]


async def test_mocks_that_were_never_called_are_known() -> None:
    mocks = Mocks({"a": None, "b": None})
    branch = flow().branch(
        lambda state: "x",
        {"x": flow().then(real, name="a"), "y": flow().then(real, name="b")},
        name="branch",
    )
    await mocks.into(branch).run({})
    assert mocks.unused == ["b"]


async def test_an_error_of_a_mock_is_the_error_of_the_step() -> None:
    mock = AsyncMock(side_effect=OSError)
    with pytest.raises(FlowError) as caught:
        await Mocks({"send": mock}).into(flow().then(real, name="send")).run({})
    assert isinstance(caught.value.cause, OSError)


async def test_a_mock_is_called_with_the_ctx_of_the_step() -> None:
    """With deps and item."""
    seen = list[Any]()

    def send(state: State, ctx: Context[Any]) -> None:
        seen.append((ctx.item, ctx.deps))

    await Mocks({"send": None, "emails/send": send}).into(emails()).run({}, deps="deps")
    assert seen == [("a", "deps"), ("b", "deps")]
    assert context().item is None
