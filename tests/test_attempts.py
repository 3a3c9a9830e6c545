"""The state between the attempts of one step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pydantic
import pytest

from flowneer_async import (
    Context,
    FlowBuilder,
    FlowError,
    StateNotSerializable,
)
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.chains import stored_states
from tests.support.entries import DictStore

State = dict[str, Any]


@dataclass
class Data:
    gone: str
    n: int = 1
    items: list[Any] = field(default_factory=lambda: [1, [2]])
    left: Any = None


class Model(pydantic.BaseModel):
    gone: str
    n: int = 1
    items: list[Any] = pydantic.Field(default_factory=lambda: [1, [2]])
    left: Any = None


class Struct(msgspec.Struct):
    gone: str
    n: int = 1
    items: list[Any] = msgspec.field(default_factory=lambda: [1, [2]])
    left: Any = None


def a_dict(gone: str) -> State:
    return {"n": 1, "items": [1, [2]], "gone": gone, "left": None}


def items_of(state: Any) -> State:
    if isinstance(state, dict):
        return state
    return {name: getattr(state, name) for name in ("n", "items", "gone", "left") if hasattr(state, name)}


def change(state: Any, name: str, value: object) -> None:
    state.__setitem__(name, value) if isinstance(state, dict) else setattr(state, name, value)


def drop(state: Any, name: str) -> None:
    state.__delitem__(name) if isinstance(state, dict) else delattr(state, name)


def cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


LEFTOVERS: list[Callable[[], Any]] = [
    object,
    cycle,
    lambda: 10**30,
    lambda: "\ud800",
    int,
]
STORES: list[Callable[[FlowBuilder[Any]], FlowBuilder[Any]]] = [
    lambda flow: flow,
    lambda flow: flow.with_versioned_checkpoint(MemoryStore()),
    lambda flow: flow.with_versioned_checkpoint(MemoryStore(), durability="async"),
    lambda flow: flow.with_versioned_checkpoint(MemoryStore(), durability="exit"),
    lambda flow: flow.with_versioned_checkpoint(MemoryStore(), skip_unchanged=True),
    lambda flow: flow.with_versioned_checkpoint(MemoryStore(), ["nothing"]),
    lambda flow: flow.with_versioned_checkpoint(MemoryStore(), ["mess"]),
    lambda flow: flow.with_versioned_checkpoint(DictStore()),
    lambda flow: flow.with_versioned_checkpoint(DictStore(), ["mess"]),
]
STORE_IDS = ["none", "sync", "async", "exit", "skip", "filter-all", "filter-step", "two-methods", "two-methods-filter"]


@pytest.mark.parametrize("new", [a_dict, Data, Model, Struct], ids=lambda new: new.__name__)
@pytest.mark.parametrize("stored", STORES, ids=STORE_IDS)
@pytest.mark.parametrize("leftover", LEFTOVERS, ids=range(len(LEFTOVERS)))
async def test_each_attempt_begins_with_the_state_before_the_step(
    new: Callable[..., Any], stored: Callable[[Any], Any], leftover: Callable[[], Any]
) -> None:
    """Whatever a failed attempt did to a state of any kind is undone in place, with and without a store."""
    seen: list[State] = []

    def first(state: Any) -> None:
        state_items = items_of(state)["items"]
        state_items.append("first")
        change(state, "n", 1.0)

    async def mess(state: Any, ctx: Context) -> None:
        assert state is passed
        seen.append({name: repr(value) for name, value in items_of(state).items()})
        items_of(state)["items"][1].append(leftover())
        change(state, "left", leftover())
        change(state, "n", True)
        drop(state, "gone")
        if ctx.attempt < 3:
            raise OSError
        change(state, "left", "done")
        items_of(state)["items"][1].pop()

    passed = new(gone="here")
    flow = stored(FlowBuilder("flow", None if new is a_dict else type(passed)).then(first).then(mess, retries=2))
    result = await flow.run(passed, world=FakeWorld())
    assert seen == [{"n": "1.0", "items": "[1, [2], 'first']", "gone": "'here'", "left": "None"}] * 3
    assert items_of(result.state) == {"n": True, "items": [1, [2], "first"], "left": "done"}


async def test_keys_that_an_attempt_added_are_gone_in_the_next() -> None:
    """A new key of a failed attempt is not there in the next one, nor in what is stored."""
    store = MemoryStore()

    async def add(state: State, ctx: Context) -> None:
        assert state == {"a": 1}
        state[f"attempt-{ctx.attempt}"] = object() if ctx.attempt == 1 else True
        if ctx.attempt == 1:
            raise OSError

    await FlowBuilder("flow").then(add, retries=1).with_versioned_checkpoint(store).run({"a": 1}, run_id="r")
    assert await stored_states(store, "r") == [{"a": 1}, {"a": 1, "attempt-2": True}]


async def test_what_an_attempt_did_not_change_stays_the_same_object() -> None:
    """Only values that a failed attempt changed are put back: others keep their identity."""
    kept, changed = [1], [2]

    async def touch(state: State, ctx: Context) -> None:
        assert state["kept"] is kept
        if ctx.attempt == 1:
            state["changed"].append(3)
            raise OSError

    result = await FlowBuilder("flow").then(touch, retries=1).run({"kept": kept, "changed": changed})
    assert result.state["kept"] is kept
    assert result.state["changed"] == [2]


async def test_a_state_that_cannot_be_restored_is_refused_before_the_step() -> None:
    """Retries need a state that could be stored, also without a store; a state that cannot says so by its path."""
    attempts: list[int] = []

    async def fail(state: State, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise OSError

    with pytest.raises(StateNotSerializable, match=r"\$\.live"):
        await FlowBuilder("flow").then(fail, retries=1).run({"live": object()})
    assert attempts == []


async def test_after_the_last_attempt_the_run_goes_on_from_the_state_before_the_step() -> None:
    """A half-changed state of a failed step is never stored."""
    store = MemoryStore()

    async def mess(state: State) -> None:
        state["n"] += 1
        state["left"] = object()
        raise OSError

    flow = FlowBuilder("flow").then(mess, retries=2).with_versioned_checkpoint(store)
    with pytest.raises(FlowError):
        await flow.run({"n": 1}, run_id="r", world=FakeWorld())
    assert await stored_states(store, "r") == [{"n": 1}]


async def test_a_state_that_cannot_be_stored_is_told_and_not_retried() -> None:
    """A value that would not come back ends the run before the step counts as done; a mended step goes on."""
    store, calls = MemoryStore(), list[int]()

    async def leave(state: State) -> None:
        calls.append(1)
        state["rows"] = [1, {"live": object()}]

    async def mended(state: State) -> None:
        state["rows"] = [1]

    flow = FlowBuilder("flow").then(leave, retries=5, name="s").with_versioned_checkpoint(store)
    with pytest.raises(StateNotSerializable, match=r"after step 's': \$\.rows\[1\]\.live") as caught:
        await flow.run({}, run_id="r", world=FakeWorld())
    assert (caught.value.path, caught.value.step, calls) == ("$.rows[1].live", "s", [1])
    assert (await store.read("r")).status == "failed"
    flow = FlowBuilder("flow").then(mended, name="s").with_versioned_checkpoint(store)
    assert (await flow.run(run_id="r")).state == {"rows": [1]}
