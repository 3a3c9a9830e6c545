"""`loop`: a body, again and again while a condition holds, which is asked before each iteration."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from flowneer_async import Context, FlowBuilder, FlowError, Hooks, goto
from flowneer_stores import MemoryStore
from tests.support.traced import (
    Flow,
    State,
    effect,
    every_keeping,
    new,
    paths_of,
    piece,
    same_from_everywhere,
    trace,
    tracing,
)


def up(state: State) -> None:
    state["n"] = state.get("n", 0) + 1


def below(limit: int) -> Any:
    return lambda state: state.get("n", 0) < limit


def counting(limit: int = 3, body: Any = None) -> Flow:
    flow = new().then(trace, name="before")
    flow = flow.loop(below(limit), piece().then(trace, name="a").then(up) if body is None else body, name="lo")
    return flow.then(trace, name="after")


@every_keeping
async def test_the_body_is_done_while_the_condition_holds(kept: Any) -> None:
    """Each iteration has its number in the path."""
    result = await kept(counting()).run({})
    assert result.state == {"n": 3, "trace": ["before", "lo[0]/a", "lo[1]/a", "lo[2]/a", "after"]}


@every_keeping
async def test_a_condition_that_does_not_hold_at_first(kept: Any) -> None:
    """Then the body is never done, and nothing is stored of the loop."""
    result = await kept(counting()).run({"n": 3})
    assert result.state == {"n": 3, "trace": ["before", "after"]}


async def test_the_condition_is_asked_before_each_iteration_and_after_the_last() -> None:
    """Once each; it may be async, and is told the number of the iteration that it decides on."""
    asked: list[tuple[str, int]] = []

    async def more(state: State, ctx: Context) -> bool:
        await asyncio.sleep(0)
        asked.append((ctx.step, ctx.index))
        return len(asked) < 3

    await new().loop(more, effect).run({}, deps=[])
    assert asked == [("more", 0), ("more", 1), ("more", 2)]


@pytest.mark.parametrize("answer", [[], None, 0, ""], ids=repr)
async def test_a_condition_holds_if_its_answer_is_true_in_python(answer: object) -> None:
    """As in `while`."""
    answers: Any = iter([["x"], 1, answer])
    deps: list[str] = []
    await new().loop(lambda state: next(answers), effect, name="lo").run({}, deps=deps)
    assert deps == ["lo[0]/effect", "lo[1]/effect"]


async def test_a_condition_that_raises_is_the_failure_of_the_loop() -> None:
    """And the run goes on with that very question."""
    asked: list[int] = []

    def more(state: State, ctx: Context) -> bool:
        asked.append(ctx.index)
        if len(asked) == 2:
            raise OSError
        return state.get("n", 0) < 2

    flow = new().loop(more, piece().then(up)).with_versioned_checkpoint(MemoryStore())
    with pytest.raises(FlowError) as caught:
        await flow.run({}, run_id="r")
    assert (caught.value.step, type(caught.value.cause)) == ("more", OSError)
    assert (await flow.run(run_id="r")).state == {"n": 2}
    assert asked == [0, 1, 1, 2]


async def test_the_steps_inside_are_told_the_number_of_the_iteration() -> None:
    """ctx.index counts from 0; a loop inside of a loop counts its own, and after it the outer one's is back."""
    told: list[tuple[str, int]] = []

    def tell(state: State, ctx: Context) -> None:
        told.append((ctx.step, ctx.index))

    def twice(state: State, ctx: Context) -> bool:
        return ctx.index < 2

    inner = piece().then(tell, name="a").loop(twice, piece().then(tell, name="b"), name="in").then(tell, name="c")
    await new().loop(twice, inner, name="out").then(tell, name="d").run({})
    one = [("out[{}]/a", 0), ("out[{}]/in[0]/b", 0), ("out[{}]/in[1]/b", 1), ("out[{}]/c", 0)]
    first = [(path.format(0), index) for path, index in one]
    second = [(path.format(1), 1 if path[-1] in "ac" else index) for path, index in one]
    assert told == [*first, *second, ("d", 0)]


async def test_each_iteration_has_idempotency_keys_of_its_own() -> None:
    """The same in every process: also where a run has gone on in the middle of the loop."""
    keys: list[str] = []

    async def pay(state: State, ctx: Context[list[str]]) -> None:
        keys.append(ctx.idempotency_key)
        if len(keys) == 2:
            raise OSError

    flow = counting(3, piece().then(pay).then(up)).with_versioned_checkpoint(MemoryStore())
    with pytest.raises(FlowError) as caught:
        await flow.run({}, run_id="r")
    assert caught.value.step == "lo[1]/pay"
    await flow.run(run_id="r")
    assert keys == ["r/lo[0]/pay", "r/lo[1]/pay", "r/lo[1]/pay", "r/lo[2]/pay"]


async def test_a_run_goes_on_in_the_very_iteration() -> None:
    """From each version of three nested loops, and after a crash at each."""

    def under(key: str, limit: int) -> Any:
        return lambda state: state.get(key, 0) < limit

    def count(key: str) -> Any:
        return lambda state: state.update({key: state.get(key, 0) + 1})

    def reset(key: str) -> Any:
        return lambda state: state.update({key: 0})

    flow = new().loop(
        under("x", 2),
        lambda a: (
            a.loop(
                under("y", 2),
                lambda b: (
                    b.then(trace, name="in")
                    .loop(under("z", 2), lambda c: c.then(trace).then(count("z"), name="z+"), name="c")
                    .then(reset("z"), name="z0")
                    .then(count("y"), name="y+")
                ),
                name="b",
            )
            .then(reset("y"), name="y0")
            .then(count("x"), name="x+")
        ),
        name="a",
    )
    paths: list[str] = []
    some: list[dict[str, Any]] = [{}, {"durability": "async"}, {"skip_unchanged": True}, {"filter": ["z0", "trace"]}]
    for options in some:
        paths = await same_from_everywhere(flow.then(trace, name="end"), **options)
    assert "a[1]/b[0]/c[1]/trace" in paths


async def test_the_versions_of_a_loop_are_those_of_its_steps() -> None:
    """The loop makes none of its own: neither when it begins nor when it ends."""
    store = MemoryStore()
    await counting(2).with_versioned_checkpoint(store).run({}, run_id="r")
    assert await paths_of(store) == ["", "before", "lo[0]/a", "lo[0]/up", "lo[1]/a", "lo[1]/up", "after"]
    assert [v.step_index for v in await store.versions("r")] == [-1, 0, 0, 0, 0, 0, 2]


@every_keeping
async def test_a_jump_leaves_the_loop(kept: Any) -> None:
    """To an anchor of the body around it: `break`."""

    def stop(state: State) -> Any:
        return goto("out") if state.get("n") == 2 else None

    body = piece().then(trace, name="a").then(up).then(stop).then(trace, name="b")
    flow = new().loop(lambda state: True, body, name="lo").then(trace, name="never").anchor("out").then(trace)
    assert (await kept(flow).run({})).state["trace"] == ["lo[0]/a", "lo[0]/b", "lo[1]/a", "trace~1"]
    await same_from_everywhere(flow)


@every_keeping
async def test_a_jump_ends_an_iteration(kept: Any) -> None:
    """To an anchor at the end of the loop's own body: `continue`."""

    def skip(state: State) -> str | None:
        return "#next" if state["n"] % 2 else None

    body = piece().then(up).then(skip).then(trace, name="even").anchor("next").then(trace, name="end")
    flow = counting(4, body)
    inside = ["lo[0]/end~1", "lo[1]/even", "lo[1]/end", "lo[2]/end~1", "lo[3]/even", "lo[3]/end"]
    assert (await kept(flow).run({})).state["trace"] == ["before", *inside, "after"]
    await same_from_everywhere(flow)


async def test_a_loop_that_was_left_begins_anew_when_it_is_come_back_to() -> None:
    """Its iterations count from 0 again, under another visit of the body around it."""

    def leave(state: State) -> str | None:
        return "#again" if state["n"] == 2 else None

    body = piece().then(up).then(leave).then(trace, name="a")
    flow = new().anchor("again").loop(below(4), body, name="lo")
    assert (await flow.run({})).state["trace"] == ["lo[0]/a", "lo~1[0]/a", "lo~1[1]/a"]
    await same_from_everywhere(flow)


async def test_a_thousand_iterations_are_as_good_as_three() -> None:
    """Nothing grows with them: neither the stack nor what the run remembers."""
    store = MemoryStore()
    result = await counting(1000, piece().then(up)).with_versioned_checkpoint(store).run({}, run_id="r")
    assert result.state["n"] == 1000
    versions = await store.versions("r")
    assert len(versions) == 1003
    assert max(len(version.body) for version in versions) < 100
    late = await counting(1000, piece().then(up)).resume_from("r@700", store).run(run_id="late")
    assert late.state == result.state


async def test_an_iteration_is_told_to_the_hooks() -> None:
    """Before its first step, with its number."""
    told: list[Any] = []
    hooks = Hooks[State](
        on_loop_iteration=lambda state, ctx: told.append((ctx.step, ctx.index)),
        before_step=lambda state, ctx: told.append(ctx.step),
    )
    await counting(2, tracing("a").then(up)).add_hooks(hooks, ["lo", "a"]).run({})
    assert told == [("lo[0]", 0), "lo[0]/a", ("lo[1]", 1), "lo[1]/a"]


@dataclass
class Search:
    left: list[int] = field(default_factory=lambda: [3, 1, 2])
    found: list[int] = field(default_factory=list[int])


async def test_a_typed_state_is_given_to_the_condition_and_the_body() -> None:
    """And comes back as its type after a resume in the middle."""

    def more(state: Search) -> bool:
        assert type(state) is Search
        return bool(state.left)

    async def take(state: Search, ctx: Context) -> None:
        assert ctx.index == len(state.found)
        state.found.append(state.left.pop())

    flow = FlowBuilder("search", Search).loop(more, take)
    paths = await same_from_everywhere(flow, Search)
    assert paths == ["", "more[0]/take", "more[1]/take", "more[2]/take"]
    assert (await flow.run(Search())).state == Search([], [2, 1, 3])
