"""`branch`: one of several bodies, and the choice is made once."""

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

import pytest

from flowneer_async import Context, FlowBuilder, FlowError, UnknownCase
from flowneer_stores import MemoryStore
from tests.support.traced import (
    Flow,
    State,
    every_keeping,
    new,
    paths_of,
    piece,
    same_from_everywhere,
    steps,
    trace,
    tracing,
)


def size(state: State) -> str:
    return "big" if state["n"] > 9 else "small"


def sized(**cases: Any) -> Flow:
    bodies = {"big": tracing("a", "b"), "small": tracing("c"), **cases}
    return new().then(trace, name="before").branch(size, bodies).then(trace, name="after")


@every_keeping
@pytest.mark.parametrize(("n", "inside"), [(10, ["size/big/a", "size/big/b"]), (9, ["size/small/c"])])
async def test_the_body_that_the_router_names_is_done(kept: Any, n: int, inside: list[str]) -> None:
    """And none of the others; then the step after the branch."""
    result = await kept(sized()).run({"n": n})
    assert result.state["trace"] == ["before", *inside, "after"]


@every_keeping
async def test_the_default_is_done_where_no_case_is_named(kept: Any) -> None:
    """Whatever else the router gave: another name, or no name at all."""
    for answer in ("other", None, 7, True, ["a"], ""):
        router: Any = lambda state, answer=answer: answer  # noqa: E731
        flow = new().branch(router, {"a": trace}, default=tracing("d"), name="route")
        assert (await kept(flow).run({})).state == {"trace": ["route/default/d"]}


async def test_a_case_called_default_is_the_default() -> None:
    """It may stand among the others."""
    flow = new().branch(lambda state: "other", {"a": trace, "default": tracing("d")}, name="route")
    assert (await flow.run({})).state == {"trace": ["route/default/d"]}


@every_keeping
@pytest.mark.parametrize("answer", ["other", None, 7, True, ["small"], b"small", ""], ids=repr)
async def test_a_router_that_names_no_case_fails_as_a_step(kept: Any, answer: Any) -> None:
    """The error names the branch and its cases, and not what the router gave, which may be of the state."""
    flow = new().branch(lambda state: answer, {"small": trace, "big": trace}, name="route")
    with pytest.raises(FlowError) as caught:
        await kept(flow).run({}, run_id="r")
    cause = caught.value.cause
    assert isinstance(cause, UnknownCase)
    assert (caught.value.step, cause.step, cause.run_id) == ("route", "route", "r")
    assert (cause.cases, cause.answer_type) == (("small", "big"), type(answer))
    assert "other" not in str(cause).replace("another", "")


class Plain(str, Enum):  # noqa: UP042 - this is what older code has
    BIG = "big"


class New(StrEnum):
    BIG = "big"


class Text(str):
    def __str__(self) -> str:
        return "something else"


@pytest.mark.parametrize("answer", [Plain.BIG, New.BIG, Text("big")], ids=["Enum", "StrEnum", "str"])
async def test_a_case_may_be_named_by_an_enum_of_texts(answer: str) -> None:
    """It is the text that counts, in the path too, or else the run would not go on after a crash."""
    flow = new().branch(lambda state: answer, {"big": tracing("a", "b")}, name="route")
    paths = await same_from_everywhere(flow)
    assert paths == ["", "route/big/@chosen", "route/big/a", "route/big/b"]


async def test_a_router_may_be_async_and_be_told_where_it_is() -> None:
    """It is called with (state) or (state, ctx), and what it raises is the failure of the branch."""

    async def route(state: State, ctx: Context[list[str]]) -> str:
        ctx.deps.append(ctx.step)
        return state["case"]

    flow, deps = new().branch(route, {"a": trace}), list[str]()
    assert (await flow.run({"case": "a"}, deps=deps)).state["trace"] == ["route/a/trace"]
    assert deps == ["route"]
    with pytest.raises(FlowError) as caught:
        await flow.run({}, deps=deps)
    assert (caught.value.step, type(caught.value.cause)) == ("route", KeyError)


async def test_a_choice_is_stored_and_the_router_not_asked_again() -> None:
    """A run that failed inside a case goes on there, even if the router would choose another by now."""
    asked: list[int] = []

    async def fail_once(state: State, ctx: Context[list[str]]) -> None:
        await trace(state, ctx)
        ctx.deps.append("fail")
        if ctx.deps.count("fail") == 1:
            raise OSError

    def route(state: State) -> str:
        asked.append(1)
        return "first" if len(asked) == 1 else "second"

    first = tracing("a").then(fail_once).then(trace, name="b")
    flow = new().branch(route, {"first": first, "second": tracing("c")}).with_versioned_checkpoint(MemoryStore())
    deps: list[str] = []
    with pytest.raises(FlowError) as caught:
        await flow.run({}, run_id="r", deps=deps)
    assert caught.value.step == "route/first/fail_once"
    result = await flow.run(run_id="r", deps=deps)
    assert result.state["trace"] == ["route/first/a", "route/first/fail_once", "route/first/b"]
    assert len(asked) == 1


async def test_the_choice_is_a_version_before_the_first_step_of_the_case() -> None:
    """So that a crash in that very step does not ask the router twice."""
    store = MemoryStore()
    await sized().with_versioned_checkpoint(store).run({"n": 10}, run_id="r")
    assert await paths_of(store) == ["", "before", "size/big/@chosen", "size/big/a", "size/big/b", "after"]


async def test_what_a_router_changes_in_the_state_is_kept() -> None:
    """It should change nothing; but if it does, that is not lost."""

    def route(state: State) -> str:
        state["asked"] = state.get("asked", 0) + 1
        return "a"

    await same_from_everywhere(new().branch(route, {"a": tracing("x", "y")}))


async def test_a_run_goes_on_the_same_from_everywhere() -> None:
    """From each version of a branch in a branch, and after a crash at each."""
    inner = tracing("x").branch(size, {"big": tracing("y", "z"), "small": trace}).then(trace, name="w")
    for n in (1, 10):
        paths = await same_from_everywhere(sized(big=inner), lambda n=n: {"n": n})
    assert steps(paths) == ["before", *(f"size/big/{s}" for s in ("x", "size/big/y", "size/big/z", "w")), "after"]


async def test_a_case_may_have_any_printable_name() -> None:
    """Which stands in the path so that it can be read back."""
    flow = new().branch(lambda state: "a/b [1]~2 100%", {"a/b [1]~2 100%": tracing("x", "y")}, name="ro/ute")
    paths = await same_from_everywhere(flow)
    assert paths[2:] == [f"ro%2Fute/a%2Fb %5B1%5D%7E2 100%25/{step}" for step in "xy"]


async def test_a_flow_and_a_step_and_a_function_of_a_builder_are_bodies() -> None:
    """All three give the same as they would alone."""
    bodies: list[Any] = [tracing("trace"), trace, lambda body: body.then(trace)]
    for body in bodies:
        assert (await new().branch(lambda s: "x", {"x": body}, name="r").run({})).state == {"trace": ["r/x/trace"]}


async def test_the_steps_of_a_case_know_the_item_and_index_around_it() -> None:
    """A branch is no level of its own for ctx.item and ctx.index."""

    def told(state: State, ctx: Context) -> None:
        state.setdefault("told", []).append([ctx.item, ctx.index])

    def route(state: State, ctx: Context) -> str:
        return f"case {ctx.item}"

    flow = new().batch(
        lambda state: ["x", "y"],
        lambda each: each.branch(route, {"case x": piece().then(told), "case y": piece().then(told)}),
        name="each",
    )
    assert (await flow.run({})).state == {"told": [["x", 0], ["y", 1]]}


@dataclass
class Order:
    total: int = 0
    log: list[str] = field(default_factory=list[str])


async def test_a_typed_state_is_given_to_router_and_cases() -> None:
    """And comes back as its type after a resume inside a case."""

    def route(state: Order) -> str:
        assert type(state) is Order
        return "dear" if state.total > 100 else "cheap"

    async def log(state: Order, ctx: Context) -> None:
        assert type(state) is Order
        state.log.append(ctx.step)

    dear = FlowBuilder[Order]("dear").then(log, name="a").then(log, name="b")
    flow = FlowBuilder("order", Order).branch(route, {"dear": dear, "cheap": log})
    await same_from_everywhere(flow, lambda: Order(total=101))
    assert (await flow.run(Order(total=101))).state.log == ["route/dear/a", "route/dear/b"]
