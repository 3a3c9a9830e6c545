"""Which steps make a version: markers, `skip_unchanged`, filters."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import Context, FlowBuilder, FlowError
from flowneer_stores import MemoryStore
from tests.support.chains import stored_snapshots, stored_states, stored_versions
from tests.support.stores import KINDS, opened

State = dict[str, Any]


async def look(state: State, ctx: Context[list[str]]) -> None:
    """A step done for its effect alone."""
    ctx.deps.append(ctx.step)


async def add(state: State, ctx: Context[list[str]]) -> None:
    await look(state, ctx)
    state["n"] = state.get("n", 0) + 1


async def fail_once(state: State, ctx: Context[list[str]]) -> None:
    await look(state, ctx)
    if ctx.deps.count(ctx.step) == 1:
        raise OSError


EFFECTS = FlowBuilder("flow").then(add).then(look, name="mail").then(look, name="print").then(fail_once)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_effect_is_not_done_twice_on_a_resume(kind: str, tmp_path: Path) -> None:
    """A step that left the state as it was makes a marker, a version without a body, and is passed on a resume."""
    done: list[str] = []
    async with opened(kind, tmp_path) as store:
        flow = EFFECTS.with_versioned_checkpoint(store)
        with pytest.raises(FlowError):
            await flow.run({}, run_id="r", deps=done)
        await flow.run(run_id="r", deps=done)
        versions = await stored_versions(store, "r")
        assert done == ["add", "mail", "print", "fail_once", "fail_once"]
        assert [v.is_marker for v in versions] == [False, False, True, True, True]
        assert [v.step_index for v in versions] == [-1, 0, 1, 2, 3]
        assert await stored_states(store, "r") == [{}] + [{"n": 1}] * 4


async def test_a_marker_is_a_version_to_resume_from() -> None:
    """A fork from a marker has the state it stood for, and goes on after its step."""
    store, done = MemoryStore(), ["fail_once"]
    flow = EFFECTS.with_versioned_checkpoint(store)
    await flow.run({}, run_id="r", deps=done)
    done[:] = ["fail_once"]
    assert (await flow.resume_from("r@2", store).run(deps=done)).state == {"n": 1}
    assert done == ["fail_once", "print", "fail_once"]


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_skip_unchanged_keeps_only_what_changed(durability: Any) -> None:
    """With `skip_unchanged` a step without a change makes no version, and is done again on a resume."""
    store, done = MemoryStore(), list[str]()
    flow = EFFECTS.with_versioned_checkpoint(store, skip_unchanged=True, durability=durability)
    with pytest.raises(FlowError):
        await flow.run({}, run_id="r", deps=done)
    result = await flow.run(run_id="r", deps=done)
    assert done == ["add", "mail", "print", "fail_once", "mail", "print", "fail_once"]
    assert (result.version, await stored_states(store, "r")) == ("r@1", [{}, {"n": 1}])
    assert await flow.run(run_id="r") == result


COUNTING = (
    FlowBuilder("flow").then(add, name="load-1").then(add, name="load-2").then(add, name="sum").then(add, name="end")
)

FILTERS = [
    (["load-*"], [-1, 0, 1, 3]),
    (["load-2", "sum"], [-1, 1, 2, 3]),
    (("end",), [-1, 3]),
    ([], [-1, 3]),
    (["*"], [-1, 0, 1, 2, 3]),
    (["LOAD-1", "load-[!1]"], [-1, 1, 3]),
    (lambda name: name == "sum", [-1, 2, 3]),
    (lambda name: False, [-1, 3]),
    (None, [-1, 0, 1, 2, 3]),
]


@pytest.mark.parametrize(("wanted", "kept"), FILTERS)
@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_filter_names_the_steps_that_make_a_version(
    wanted: Sequence[str] | Callable[[str], bool] | None, kept: list[int], durability: Any
) -> None:
    """Only steps that the filter names make a version; a complete run always ends with its whole final state stored."""
    store = MemoryStore()
    flow = COUNTING.with_versioned_checkpoint(store, wanted, durability=durability)
    result = await flow.run({}, run_id="r", deps=[])
    snapshots = await stored_snapshots(store, "r")
    assert [s.step_index for s in snapshots] == kept
    assert [s.state for s in snapshots] == [{}] + [{"n": index + 1} for index in kept[1:]]
    assert (result.state, result.version) == ({"n": 4}, f"r@{len(kept) - 1}")


async def test_what_the_filter_passed_over_is_done_again_on_a_resume() -> None:
    """A resume begins after the last version kept, with the state of that version."""
    store, done = MemoryStore(), list[str]()
    flow = COUNTING.then(fail_once, name="last").with_versioned_checkpoint(store, ["load-*"])
    with pytest.raises(FlowError):
        await flow.run({}, run_id="r", deps=done)
    assert (await flow.run(run_id="r", deps=done)).state == {"n": 4}
    assert done == ["load-1", "load-2", "sum", "end", "last", "sum", "end", "last"]


async def test_the_last_step_passed_over_is_stored_also_where_it_changed_nothing() -> None:
    """A complete run that the filter passed over to its end has a last version of its last step."""
    store = MemoryStore()
    flow = COUNTING.then(look, name="mail").with_versioned_checkpoint(store, ["load-1"])
    await flow.run({}, run_id="r", deps=[])
    assert [(s.step_index, s.state) for s in await stored_snapshots(store, "r")] == [
        (-1, {}),
        (0, {"n": 1}),
        (4, {"n": 4}),
    ]


async def test_changes_of_steps_passed_over_are_in_the_next_version() -> None:
    """A version holds the whole state, so also what steps before it did that the filter passed over."""

    async def set_a(state: State) -> None:
        state["a"] = 1
        del state["old"]

    async def set_b(state: State) -> None:
        state["b"] = 1

    store = MemoryStore()
    flow = FlowBuilder("flow").then(set_a).then(set_b).with_versioned_checkpoint(store, ["set_b"])
    await flow.run({"old": 0}, run_id="r")
    assert await stored_states(store, "r") == [{"old": 0}, {"a": 1, "b": 1}]


async def test_the_filter_sees_names_and_not_paths() -> None:
    """A filter is asked with the name that the step was given, whatever characters it has."""
    names: list[str] = []
    flow = FlowBuilder("flow").then(add, name="a/b [1] 100%")
    flow = flow.with_versioned_checkpoint(MemoryStore(), lambda name: not names.append(name))
    await flow.run({}, deps=[])
    assert names == ["a/b [1] 100%"]
