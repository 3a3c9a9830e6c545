"""`batch`: a body for each of some items, which are fixed when it begins."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from flowneer_async import Context, Failure, FlowBuilder, FlowError, Hooks, MergeConflict, StateNotSerializable
from flowneer_async.reducers import last
from flowneer_stores import MemoryStore
from tests.support.chains import stored_states
from tests.support.traced import (
    Flow,
    State,
    effect,
    every_keeping,
    new,
    paths_of,
    piece,
    same_from_everywhere,
    steps,
    trace,
    tracing,
)

every_concurrency = pytest.mark.parametrize("concurrency", [1, 2, 10])


def todo(state: State) -> Any:
    return state["todo"]


async def done(state: State, ctx: Context) -> None:
    """Each item has a key of the state for itself."""
    state[f"done-{ctx.item}"] = ctx.index


def each(body: Any = done, **options: Any) -> Flow:
    flow = new().then(trace, name="before").batch(todo, body, name="each", **options)
    return flow.then(trace, name="after")


def start(*items: object) -> State:
    return {"todo": list(items) or ["x", "y", "z"]}


# One after the other, and side by side --------------------------------------------------------------------------------


@every_keeping
@every_concurrency
@pytest.mark.parametrize("more", [{}, {"max_failures": 1}, {"timeout": 60.0}], ids=str)
async def test_the_body_is_done_for_each_item(kept: Any, concurrency: int, more: Any) -> None:
    """Which it is told, with its number."""
    result = await kept(each(concurrency=concurrency, **more)).run(start())
    assert result.state == {**start(), "trace": ["before", "after"], "done-x": 0, "done-y": 1, "done-z": 2}
    assert (result.status, result.failures) == ("completed", ())


@every_keeping
@every_concurrency
async def test_a_batch_of_nothing_does_nothing(kept: Any, concurrency: int) -> None:
    """And the run goes on after it."""
    result = await kept(each(concurrency=concurrency)).run({"todo": []})
    assert result.state == {"todo": [], "trace": ["before", "after"]}


@every_keeping
async def test_items_are_done_in_their_order_on_the_state_itself(kept: Any) -> None:
    """What one of them changed is there for the next."""
    result = await kept(each(tracing("a", "b"))).run(start("x", "y"))
    assert result.state["trace"] == ["before", *(f"each[{n}]/{s}" for n in (0, 1) for s in "ab"), "after"]


@every_keeping
async def test_items_side_by_side_do_not_see_what_the_others_do(kept: Any) -> None:
    """Each works on a draft; in the end all are merged, in the order of the items."""

    async def look(state: State, ctx: Context) -> None:
        await asyncio.sleep(0)
        state[f"seen-{ctx.item}"] = sorted(state)
        state["last"] = [ctx.item]

    def joined(before: Any, values: list[Any]) -> Any:
        return [before, *values]

    flow = new().batch(todo, look, name="each", concurrency=3, reducer={"last": joined})
    assert (await kept(flow).run(start())).state == {
        **start(),
        **{f"seen-{item}": ["todo"] for item in "xyz"},
        "last": [None, ["x"], ["y"], ["z"]],
    }


@pytest.mark.parametrize("concurrency", [1, 2, 3, 7, 20])
async def test_no_more_items_than_allowed_are_under_way(concurrency: int) -> None:
    """And as many as are allowed."""
    under_way, most = 0, 0

    async def work(state: State) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(3):
            await asyncio.sleep(0)
        under_way -= 1

    for flow in (each(work, concurrency=concurrency),) * 2:
        await flow.with_versioned_checkpoint(MemoryStore()).run(start(*range(12)))
    assert most == min(concurrency, 12)


async def test_items_that_change_one_key_side_by_side_are_a_conflict() -> None:
    """Which names the key and the items, where no reducer says what becomes of it."""
    with pytest.raises(MergeConflict) as caught:
        await each(lambda body: body.then(trace), concurrency=2).run(start("x", "y"))
    assert (caught.value.key, caught.value.lanes) == ("trace", ("each[0]", "each[1]"))


# The items ------------------------------------------------------------------------------------------------------------


@every_keeping
@every_concurrency
async def test_the_items_are_fixed_when_the_batch_begins(kept: Any, concurrency: int) -> None:
    """Whatever its steps do to where they came from."""

    async def spoil(state: State, ctx: Context) -> None:
        state[f"done-{ctx.item}"] = True
        state["todo"] = ["other"]

    result = await kept(each(spoil, concurrency=concurrency, reducer={"todo": last})).run(start())
    assert {key for key in result.state if key.startswith("done")} == {"done-x", "done-y", "done-z"}


@every_concurrency
async def test_the_items_survive_a_crash(concurrency: int) -> None:
    """A run that goes on has those of its beginning, though the question would be answered otherwise by now."""
    asked: list[int] = []

    def items(state: State) -> list[int]:
        asked.append(1)
        return [1, 2, 3] if len(asked) == 1 else []

    async def fail_once(state: State, ctx: Context[list[str]]) -> None:
        ctx.deps.append(ctx.step)
        if ctx.item == 2 and len(asked) == 1 and ctx.deps.count(ctx.step) == 1:
            raise OSError
        state[f"done-{ctx.item}"] = ctx.index

    deps: list[str] = []
    flow = new().batch(items, fail_once, concurrency=concurrency).with_versioned_checkpoint(MemoryStore())
    with pytest.raises(FlowError) as caught:
        await flow.run({}, run_id="r", deps=deps)
    assert caught.value.step == "items[1]/fail_once"
    assert (await flow.run(run_id="r", deps=deps)).state == {"done-1": 0, "done-2": 1, "done-3": 2}
    assert len(asked) == 1
    assert deps.count("items[0]/fail_once") == 1


@pytest.mark.parametrize("given", [(1, 2), {1: "a", 2: "b"}, iter([1, 2]), range(1, 3), (n for n in (1, 2))], ids=str)
async def test_anything_that_can_be_gone_through_gives_the_items(given: Any) -> None:
    """Once: a generator will do."""
    assert (await new().batch(lambda state: given, done, name="each").run({})).state == {"done-1": 0, "done-2": 1}


@pytest.mark.parametrize("given", [None, 7, object()], ids=["None", "int", "object"])
async def test_what_cannot_be_gone_through_is_the_failure_of_the_batch(given: Any) -> None:
    """And so is what the question raises."""
    with pytest.raises(FlowError) as caught:
        await new().batch(lambda state: given, done, name="each").run({})
    assert (caught.value.step, type(caught.value.cause)) == ("each", TypeError)
    with pytest.raises(FlowError) as caught:
        await new().batch(todo, done, name="each").run({})
    assert (caught.value.step, type(caught.value.cause)) == ("each", KeyError)


async def test_an_item_that_cannot_be_stored_is_told_before_the_first_one_is_begun() -> None:
    """By its place among them."""
    deps: list[str] = []
    with pytest.raises(StateNotSerializable, match=r"the items of 'each'\[1\]"):
        await new().batch(lambda state: [1, object()], effect, name="each").run({}, deps=deps)
    assert deps == []


@every_concurrency
async def test_what_a_step_does_to_its_item_is_not_there_for_the_next(concurrency: int) -> None:
    """The item is told, and not kept: else a run that goes on would not end as one that was not disturbed."""

    async def spoil(state: State, ctx: Context) -> None:
        assert isinstance(ctx.item, dict)
        ctx.item["spoilt"] = True

    async def look(state: State, ctx: Context) -> None:
        state[f"seen-{ctx.index}"] = ctx.item

    flow = each(piece().then(spoil).then(look), concurrency=concurrency)
    state = (await flow.run(start({"a": 1}, {"a": 2}))).state
    assert (state["seen-0"], state["seen-1"], state["todo"]) == ({"a": 1}, {"a": 2}, [{"a": 1}, {"a": 2}])
    await same_from_everywhere(flow, lambda: start({"a": 1}, {"a": 2}))


# Going on -------------------------------------------------------------------------------------------------------------


async def test_the_versions_of_a_batch() -> None:
    """One with its items, one for each step inside, and its own; the items are forgotten in the end."""
    store = MemoryStore()
    await each(tracing("a", "b")).with_versioned_checkpoint(store).run(start("x", "y"), run_id="r")
    inside = [f"each[{number}]/{step}" for number in (0, 1) for step in "ab"]
    assert await paths_of(store) == ["", "before", "each/@items", *inside, "each", "after"]
    assert [v.step_index for v in await store.versions("r")] == [-1, 0, 0, 0, 0, 0, 0, 1, 2]
    assert all("\0" not in key for key in (await stored_states(store, "r"))[-1])


async def test_each_item_has_idempotency_keys_of_its_own() -> None:
    """Whether they are done one after the other or side by side."""
    for concurrency in (1, 3):
        keys: list[str] = []

        async def pay(state: State, ctx: Context, keys: list[str] = keys) -> None:
            keys.append(ctx.idempotency_key)

        await each(pay, concurrency=concurrency).run(start(), run_id="r")
        assert keys == ["r/each[0]/pay", "r/each[1]/pay", "r/each[2]/pay"]


@every_concurrency
@pytest.mark.parametrize("options", [{}, {"durability": "async"}, {"skip_unchanged": True}], ids=str)
async def test_a_run_goes_on_in_the_very_item(concurrency: int, options: Any) -> None:
    """From each version, and after a crash at each: in a batch inside of one, too."""

    async def note(state: State, ctx: Context) -> None:
        state[f"{ctx.step} {ctx.item}"] = ctx.index

    inner = piece().then(note, name="a").batch(lambda s, ctx: f"{ctx.item}12", note, name="in").then(note, name="b")
    flow = each(inner, concurrency=concurrency).then(trace, name="end")
    paths = await same_from_everywhere(flow, start, **options)
    assert "each[2]/in[1]/note" in paths


@pytest.mark.parametrize(
    "more", [{"max_failures": 2}, {"timeout": 60.0}, {"max_failures": 2, "concurrency": 2}], ids=str
)
async def test_a_run_goes_on_in_the_very_item_that_has_a_draft(more: Any) -> None:
    """The same where each item is merged by itself, and some are given up."""

    async def some(state: State, ctx: Context) -> None:
        state["half"] = True
        if ctx.item == "y":
            raise OSError
        del state["half"]
        state[f"some-{ctx.item}"] = True

    flow = each(lambda body: body.then(done).then(some if "max_failures" in more else done, name="more"), **more)
    await same_from_everywhere(flow, start)


async def test_of_a_batch_that_failed_only_what_is_left_is_done() -> None:
    """Items that are done stay so, whatever became of those beside them."""
    deps: list[str] = []

    async def work(state: State, ctx: Context[list[str]]) -> None:
        ctx.deps.append(str(ctx.item))
        await asyncio.sleep(0)
        if ctx.item == "bad" and ctx.deps.count("bad") == 1:
            raise OSError
        state[f"done-{ctx.item}"] = True

    flow = each(work, concurrency=2, on_error="wait").with_versioned_checkpoint(MemoryStore())
    with pytest.raises(FlowError) as caught:
        await flow.run(start("x", "bad", "y", "z"), run_id="r", deps=deps)
    assert caught.value.step == "each[1]/work"
    before = deps.copy()
    state = (await flow.run(run_id="r", deps=deps)).state
    assert all(f"done-{item}" in state for item in ("x", "bad", "y", "z"))
    assert sorted(deps[len(before) :] + before) == sorted([*{"x", "y", "z"}, "bad", "bad"])


# Items that fail ------------------------------------------------------------------------------------------------------


def failing(*bad: str) -> Callable[..., Any]:
    async def work(state: State, ctx: Context) -> None:
        state[f"begun-{ctx.item}"] = True
        await asyncio.sleep(0)
        if ctx.item in bad:
            raise LookupError
        state[f"done-{ctx.item}"] = True

    return work


@every_keeping
@every_concurrency
async def test_so_many_items_may_fail(kept: Any, concurrency: int) -> None:
    """What they did to the state is dropped, and the result lists them."""
    result = await kept(each(failing("x", "z"), concurrency=concurrency, max_failures=2)).run(start())
    assert result.state == {**start(), "trace": ["before", "after"], "begun-y": True, "done-y": True}
    assert sorted(result.failures, key=lambda failure: failure.step) == [
        Failure("each[0]/work", "LookupError"),
        Failure("each[2]/work", "LookupError"),
    ]
    assert result.status == "completed"


@every_keeping
@every_concurrency
async def test_one_failure_more_is_the_failure_of_the_run(kept: Any, concurrency: int) -> None:
    """Named by the step that failed."""
    with pytest.raises(FlowError) as caught:
        await kept(each(failing("x", "y", "z"), concurrency=concurrency, max_failures=2)).run(start(), run_id="r")
    assert caught.value.step.startswith("each[")
    assert isinstance(caught.value.cause, LookupError)


async def test_the_failures_are_listed_by_a_run_that_goes_on_too() -> None:
    """And by the finished run whenever it is asked for again."""

    async def fail_once(state: State, ctx: Context[list[str]]) -> None:
        ctx.deps.append(ctx.step)
        if len(ctx.deps) == 1:
            raise OSError

    flow = each(failing("y"), max_failures=1).then(fail_once).with_versioned_checkpoint(MemoryStore())
    deps: list[str] = []
    with pytest.raises(FlowError):
        await flow.run(start(), run_id="r", deps=deps)
    for _ in range(2):
        assert (await flow.run(run_id="r", deps=deps)).failures == (Failure("each[1]/work", "LookupError"),)


@every_concurrency
async def test_an_item_has_so_much_time(concurrency: int) -> None:
    """Then it fails, and what it had done is dropped; the others are not touched."""

    async def hang(state: State, ctx: Context) -> None:
        state[f"begun-{ctx.item}"] = True
        if ctx.item == "y":
            await asyncio.Event().wait()

    flow = each(hang, concurrency=concurrency, max_failures=1, timeout=0.001)
    result = await flow.run(start())
    assert {key for key in result.state if "begun" in key} == {"begun-x", "begun-z"}
    assert result.failures == (Failure("each[1]", "TimeoutError"),)


# Rights of the steps inside -------------------------------------------------------------------------------------------


@every_concurrency
async def test_steps_of_items_are_tried_again_from_the_state_before_them(concurrency: int) -> None:
    """With all that steps of the same item before them have done."""

    async def flaky(state: State, ctx: Context) -> None:
        assert f"done-{ctx.item}" in state
        assert "mess" not in state
        state["mess"] = True
        if ctx.attempt < 3:
            raise OSError
        del state["mess"]
        state[f"tried-{ctx.item}"] = ctx.attempt

    flow = each(piece().then(done).then(flaky, retries=2), concurrency=concurrency)
    state = (await flow.run(start())).state
    assert [state[f"tried-{item}"] for item in "xyz"] == [3, 3, 3]


async def test_an_item_jumps_within_its_body() -> None:
    """Each counts its own visits, and begins them anew."""

    def again(state: State, ctx: Context) -> str | None:
        state["n"] = state.get("n", 0) + 1
        return "#top" if state["n"] % 3 else None

    body = piece().anchor("top", max_visits=2).then(trace, name="a").then(again)
    flow = each(body)
    inside = [f"each[{number}]/a{visit}" for number in (0, 1) for visit in ("", "~1", "~2")]
    assert (await flow.run(start("x", "y"))).state["trace"] == ["before", *inside, "after"]
    await same_from_everywhere(flow, lambda: start("x", "y"))


async def test_an_item_is_told_to_the_hooks() -> None:
    """Before its first step, with its number; steps inside are told as any others."""
    told: list[Any] = []
    hooks = Hooks[State](
        on_loop_iteration=lambda state, ctx: told.append((ctx.step, ctx.item, ctx.index)),
        after_step=lambda state, ctx: told.append((ctx.step, ctx.item)),
    )
    await each().add_hooks(hooks, ["each", "done"]).run(start("x", "y"))
    first, second = ("each[0]", "x", 0), ("each[1]", "y", 1)
    assert told == [first, ("each[0]/done", "x"), second, ("each[1]/done", "y")]


@dataclass
class Line:
    name: str
    count: int


@dataclass
class Order:
    lines: list[Line] = field(default_factory=list[Line])
    total: int = 0
    log: list[str] = field(default_factory=list[str])


def order() -> Order:
    return Order([Line("a", 2), Line("b", 3)])


@every_concurrency
async def test_items_of_a_typed_state_are_of_their_types(concurrency: int) -> None:
    """Also after a resume; the steps are given the typed state, or a typed draft of it."""

    async def add(state: Order, ctx: Context) -> None:
        assert type(state) is Order
        assert type(ctx.item) is Line
        state.total += ctx.item.count

    def total(before: int, values: list[int]) -> int:
        return before + sum(value - before for value in values)

    flow = FlowBuilder("order", Order).batch(
        lambda state: state.lines, add, name="each", concurrency=concurrency, reducer={"total": total}
    )
    paths = await same_from_everywhere(flow, order)
    assert steps(paths) == ["each[0]/add", "each[1]/add", "each"]
    assert (await flow.run(order())).state == Order(order().lines, 5)
