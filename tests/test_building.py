"""Building flows of all kinds of steps: every mistake is found where it is made, and a flow never changes."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

import pytest

from flowneer_async import (
    BadName,
    BadOption,
    BadStep,
    Context,
    DefinitionError,
    DuplicateName,
    FlowBuilder,
    Hooks,
    fragment,
    goto,
)
from flowneer_stores import MemoryStore
from tests.support.entries import DictStore
from tests.support.traced import Flow, State, new, piece, times, trace, tracing


async def ask(state: State) -> Any:
    return state.get("answer")


def yields(state: State) -> Iterator[str]:
    yield "x"


async def chunks(state: State) -> AsyncIterator[str]:
    yield "x"


# Each kind of step: how to add one of this name to a flow.
ADD: dict[str, Callable[..., Flow]] = {
    "then": lambda flow, name, **more: flow.then(trace, name=name, **more),
    "sub": lambda flow, name, **more: flow.then(tracing("inner"), name=name, **more),
    "branch": lambda flow, name, **more: flow.branch(ask, {"x": trace}, name=name, **more),
    "loop": lambda flow, name, **more: flow.loop(ask, trace, name=name, **more),
    "batch": lambda flow, name, **more: flow.batch(ask, trace, name=name, **more),
    "parallel": lambda flow, name, **more: flow.parallel([trace, trace], name=name, **more),
    "sleep": lambda flow, name, **more: flow.sleep(1, name=name, **more),
    "wait_for": lambda flow, name, **more: flow.wait_for("signal", name=name, **more),
}
ADD_ALL = {**ADD, "anchor": lambda flow, name: flow.anchor(name)}
every_kind = pytest.mark.parametrize("add", ADD.values(), ids=ADD)
every_kind_too = pytest.mark.parametrize("add", ADD_ALL.values(), ids=ADD_ALL)

# Each place where a body can stand: how to put one there.
PUT: dict[str, Callable[[Flow, Any], Flow]] = {
    "case": lambda flow, body: flow.branch(ask, {"x": trace, "y": body}),
    "default": lambda flow, body: flow.branch(ask, {"x": trace}, default=body),
    "loop": lambda flow, body: flow.loop(ask, body),
    "batch": lambda flow, body: flow.batch(ask, body),
    "parallel": lambda flow, body: flow.parallel([trace, body]),
    "on_error": lambda flow, body: flow.on_error(body),
}
every_place = pytest.mark.parametrize("put", PUT.values(), ids=PUT)


# Names ----------------------------------------------------------------------------------------------------------------


@every_kind_too
@pytest.mark.parametrize("other", ADD_ALL.values(), ids=ADD_ALL)
def test_a_name_stands_once_in_a_body(add: Any, other: Any) -> None:
    """Whatever kinds the two are of; the message names the flow and proposes another name."""
    with pytest.raises(DuplicateName, match="twin-2") as caught:
        other(add(new("orders"), "twin").then(trace, name="between"), "twin")
    assert (caught.value.flow, caught.value.name) == ("orders", "twin")


@every_kind
def test_a_name_may_stand_again_in_another_body(add: Any) -> None:
    """In one inside of the step, and in two beside each other: their paths differ."""
    inner = add(piece(), "twin")
    assert add(new().then(inner, name="one").then(inner, name="two"), "twin")
    assert new().branch(ask, {"twin": inner, "x": inner}, name="twin")


@every_kind
def test_an_alias_is_a_name_too(add: Any) -> None:
    """One that another step has, or had, is refused, whichever comes first."""
    for build in (
        lambda: add(new().then(trace, name="old"), "new", aliases=["old"]),
        lambda: add(new(), "new", aliases=["old"]).then(trace, name="old"),
        lambda: add(new(), "new", aliases=["old"]).then(trace, name="other", aliases=["x", "old"]),
        lambda: add(new(), "new", aliases=["old"]).anchor("old"),
    ):
        with pytest.raises(DuplicateName, match="old-2"):
            build()
    with pytest.raises(BadOption):
        add(new(), "new", aliases="old")
    with pytest.raises(BadName):
        add(new(), "new", aliases=["@old"])


BAD_NAMES: list[Any] = ["", "a\n", "@begun", "x" * 201, 7, b"step"]


@every_kind_too
@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_a_bad_name_is_refused_for_every_kind(add: Any, name: Any) -> None:
    """It would stand in paths; those that begin with @ are the engine's own."""
    with pytest.raises(BadName) as caught:
        add(new(), name)
    assert caught.value.name == name


@pytest.mark.parametrize("name", [*BAD_NAMES, None], ids=repr)
def test_a_bad_name_of_a_case_or_a_signal_is_refused(name: Any) -> None:
    """They stand in paths and in the store, too."""
    with pytest.raises(BadName) as caught:
        new().branch(ask, {"x": trace, name: trace})
    assert (caught.value.kind, caught.value.name) == ("case", name)
    with pytest.raises(BadName) as caught:
        new().wait_for(name)
    assert (caught.value.kind, caught.value.name) == ("signal", name)


def test_the_name_of_a_step_is_by_default_that_of_its_function() -> None:
    """Of the router, the condition, the question for items; of the flow, the signal; a lambda has none."""
    flow = new().then(tracing("a")).branch(ask, {"x": trace}).parallel([trace]).sleep(1).wait_for("go")
    described = [step["name"] for step in flow.describe()["steps"]]
    assert described == ["fragment", "ask", "parallel", "sleep", "go"]
    for build in (
        lambda: new().branch(lambda state: "x", {"x": trace}),
        lambda: new().loop(lambda state: False, trace),
        lambda: new().batch(partial(ask), trace),
        lambda: new().parallel([lambda body: body.then(lambda state: None)]),
    ):
        with pytest.raises(BadName, match=r"needs name=…"):
            build()


# Anchors --------------------------------------------------------------------------------------------------------------


@every_place
def test_an_anchor_may_not_shadow_one_around_it(put: Any) -> None:
    """A reader of a jump out of the body would not know which of the two is meant."""
    body = piece().anchor("top").then(trace)
    deep = piece().loop(ask, piece().then(body, name="in"), name="lo")
    for inner in (body, deep, lambda b: b.anchor("top").then(trace)):
        for build in (
            lambda inner=inner: put(new().anchor("top"), inner),
            lambda inner=inner: put(new(), inner).anchor("top"),
        ):
            with pytest.raises(DuplicateName) as caught:
                build()
            assert caught.value.name == "top"


def test_anchors_of_bodies_side_by_side_may_have_one_name() -> None:
    """None of them is seen from the others."""
    body = piece().anchor("top").then(trace)
    flow = new().branch(ask, {"x": body, "y": body}, default=body).parallel([body, body]).then(body, name="sub")
    assert flow.loop(ask, body, name="lo")


@pytest.mark.parametrize("visits", [0, -1, True, 1.0, "3"], ids=repr)
def test_max_visits_is_a_whole_number_from_1(visits: Any) -> None:
    """No visits at all would be no anchor."""
    with pytest.raises(BadOption) as caught:
        new().anchor("top", visits)
    assert caught.value.option == "max_visits"


# Jumps that are written out -------------------------------------------------------------------------------------------


def to_top(state: State) -> Literal["#top"] | None: ...
def to_end(state: State) -> Literal["#end"]: ...
async def to_either(state: State) -> Literal["#top", "#end"] | None: ...
def to_a_case(state: State) -> Literal["x", "y"]: ...
def to_anywhere(state: State) -> str | None: ...


class Jumping:
    def __call__(self, state: State) -> Literal["#end"] | None: ...


@pytest.mark.parametrize("step", [to_end, to_either, Jumping(), Jumping().__call__], ids=repr)
async def test_a_jump_that_is_written_out_and_leads_nowhere_is_found_before_the_run(step: Any) -> None:
    """As -> Literal["#name"]: when the flow is run or given a store, for an anchor may be added until then."""
    flow = new("orders").anchor("top").then(trace).then(step, name="jump")
    for use in (
        lambda: flow.with_versioned_checkpoint(MemoryStore()),
        lambda: flow.resume_from("r@1", MemoryStore()),
    ):
        with pytest.raises(BadStep, match="'#end'") as caught:
            use()
        assert (caught.value.flow, caught.value.step) == ("orders", step)
    with pytest.raises(BadStep, match="'#end'"):
        await flow.run({})
    with pytest.raises(BadStep, match="'#end'"):
        async with flow.stream({}):
            pass
    mended = flow.anchor("end")
    assert mended.with_versioned_checkpoint(MemoryStore())
    assert (await mended.run({})).status == "completed"


@pytest.mark.parametrize(
    "build",
    [
        lambda flow, body: flow.branch(lambda state: "x", {"x": body}, name="it"),
        lambda flow, body: flow.loop(lambda state: False, body, name="it"),
        lambda flow, body: flow.batch(lambda state: (), body, name="it"),
        lambda flow, body: flow.then(body, name="it"),
        lambda flow, body: flow.on_error(body),
    ],
)
def test_a_jump_that_is_written_out_may_lead_outwards(build: Any) -> None:
    """To an anchor of any body around; not into one, and not from a fragment that is never used."""
    body = piece().then(fragment().then(to_either), name="in")
    assert build(new().anchor("top").anchor("end").then(trace), body).with_versioned_checkpoint(MemoryStore())
    with pytest.raises(BadStep, match="'#end'"):
        build(new().anchor("top").then(trace), body).with_versioned_checkpoint(MemoryStore())
    inside = build(new().then(to_top), piece().anchor("top").then(trace))
    with pytest.raises(BadStep, match="'#top'"):
        inside.with_versioned_checkpoint(MemoryStore())


def test_a_jump_that_is_written_out_may_not_lead_out_of_a_lane() -> None:
    """As it could not in the run."""
    outside = new().anchor("top")
    for flow in (
        outside.parallel([piece().then(to_top)]),
        outside.batch(ask, piece().then(to_top), concurrency=2),
        outside.batch(ask, piece().then(to_top), max_failures=2),
    ):
        with pytest.raises(BadStep, match="'#top'"):
            flow.with_versioned_checkpoint(MemoryStore())
    assert outside.batch(ask, piece().then(to_top)).with_versioned_checkpoint(MemoryStore())


def test_a_fallback_that_jumps_is_looked_at_too() -> None:
    """Its jumps are those of its step."""
    for flow in (new().then(trace, fallback=to_top), new().wait_for("go", timeout=1, fallback=to_top)):
        with pytest.raises(BadStep, match="'#top'"):
            flow.with_versioned_checkpoint(MemoryStore())
        assert flow.anchor("top").with_versioned_checkpoint(MemoryStore())


async def test_texts_that_are_no_jumps_are_not_looked_at() -> None:
    """Nor is what does not say where it jumps."""
    flow = new().then(to_anywhere).then(to_a_case).with_versioned_checkpoint(MemoryStore())
    assert (await flow.run({})).status == "completed"


def test_a_case_that_a_router_writes_out_has_to_be_there() -> None:
    """As -> Literal["x", "y"]; unless there is a default for it."""
    with pytest.raises(BadStep, match="'y'") as caught:
        new("orders").branch(to_a_case, {"x": trace})
    assert (caught.value.flow, caught.value.step) == ("orders", to_a_case)
    assert new().branch(to_a_case, {"x": trace, "y": trace, "z": trace})
    assert new().branch(to_a_case, {"x": trace}, default=trace)


# Bodies ---------------------------------------------------------------------------------------------------------------


@every_place
@pytest.mark.parametrize("body", [piece(), lambda body: body, lambda body: piece()], ids=["flow", "function", "other"])
def test_an_empty_body_is_refused(put: Any, body: Any) -> None:
    """There would be nothing to do."""
    with pytest.raises(BadStep, match="empty body") as caught:
        put(new("orders").then(trace, name="a"), body)
    assert caught.value.flow == "orders"


def test_an_empty_flow_is_no_step() -> None:
    """Nor are no cases cases, or no lanes lanes."""
    with pytest.raises(BadStep, match="empty body"):
        new().then(piece())
    with pytest.raises(BadOption, match="cases"):
        new().branch(ask, {})
    with pytest.raises(BadOption, match="lanes"):
        new().parallel([])


class Called:
    async def __call__(self, state: State) -> None: ...


def spoils(state: Any) -> None:
    state["x"] = 1


WRONG_BODIES: list[Any] = [
    *(None, 7, "body", [trace], {"x": trace}, object()),
    *(lambda body: None, lambda body: trace, lambda body: body.then, lambda body: 7),
    *(lambda: piece(), lambda body, more: body.then(trace), lambda body: body.nope(trace), lambda body: body["x"]),
    *(spoils, yields, Called(), int, Context, goto),
]


@every_place
@pytest.mark.parametrize("body", WRONG_BODIES, ids=lambda body: getattr(body, "__qualname__", repr(body))[:40])
def test_what_gives_no_flow_is_no_body(put: Any, body: Any) -> None:
    """A body is a flow, an async step, or a function of a builder; the message says so, and how to wrap more."""
    if body is None and put is PUT["default"]:
        return  # there need not be one
    with pytest.raises((BadStep, BadName)) as caught:
        put(new("orders").then(trace, name="a"), body)
    if isinstance(caught.value, BadStep):
        assert "a body is a flow" in str(caught.value)
        assert caught.value.flow == "orders"


@every_place
def test_a_mistake_inside_of_a_body_function_comes_out_as_it_is(put: Any) -> None:
    """One of the builder's, or any other error that has nothing to do with being no body."""
    with pytest.raises(DuplicateName):
        put(new(), lambda body: body.then(trace, name="a").then(trace, name="a"))
    with pytest.raises(BadOption):
        put(new(), lambda body: body.then(trace, retries=-1))
    with pytest.raises(ZeroDivisionError):
        put(new(), lambda body: body.then(trace, retries=1 // 0))


@every_place
def test_a_step_may_be_a_body(put: Any) -> None:
    """An async function or an async generator, under its own name."""
    assert put(new().then(trace, name="a"), trace)
    assert put(new().then(trace, name="a"), chunks)


KEPT_ELSEWHERE: dict[str, Callable[[], Flow]] = {
    "store": lambda: tracing("x").with_versioned_checkpoint(MemoryStore()),
    "store of two methods": lambda: tracing("x").with_versioned_checkpoint(DictStore()),
    "version": lambda: tracing("x").resume_from("r@0", MemoryStore()),
    "hooks": lambda: tracing("x").add_hooks(Hooks()),
}


@pytest.mark.parametrize("kept", KEPT_ELSEWHERE.values(), ids=KEPT_ELSEWHERE)
@pytest.mark.parametrize(
    "put",
    [*PUT.values(), lambda flow, body: flow.then(body), lambda flow, body: flow.add(body)],
    ids=[*PUT, "sub", "add"],
)
def test_a_flow_inside_of_another_has_no_store_and_no_hooks(put: Any, kept: Any) -> None:
    """They would be left out silently: they belong to the outermost flow."""
    for inner in (kept(), lambda body: kept()):
        if callable(inner) and put not in PUT.values():
            continue
        with pytest.raises(BadStep, match="outermost"):
            put(new().then(trace, name="a"), inner)


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 1},
        {"delay": 1.0},
        {"timeout": 1.0},
        {"compensate": trace},
        {"fallback": trace},
        {"delivery": "at_most_once"},
        {"verify": ask},
    ],
    ids=str,
)
def test_a_flow_as_a_step_takes_no_options_of_steps(options: Any) -> None:
    """They would be silently left out: its own steps have them."""
    for add in (new().then, new().start_with):
        with pytest.raises(BadStep, match="give them to its steps"):
            add(tracing("x"), **options)


# Fragments ------------------------------------------------------------------------------------------------------------


async def test_the_steps_of_a_fragment_are_as_if_they_were_written_there() -> None:
    """Under their own names, in the body that they were added to; a fragment may be added to many flows."""
    shared = tracing("x", "y").anchor("z")
    assert (await new().then(trace, name="a").add(shared).then(trace, name="b").run({})).state["trace"] == [*"axyb"]
    assert (await new().loop(times(1), lambda b: b.add(shared), name="lo").run({})).state["trace"] == [
        "lo[0]/x",
        "lo[0]/y",
    ]


def test_a_fragment_brings_its_names_and_anchors_along() -> None:
    """One that is there already is refused, as if it had been written there."""
    for flow, other in (
        (tracing("x"), tracing("a", "x")),
        (new().anchor("x"), tracing("x")),
        (piece().loop(ask, lambda b: b.anchor("in").then(trace)), piece().anchor("in")),
        (piece().then(trace, name="new", aliases=["old"]), tracing("old")),
        (tracing("old"), piece().then(trace, name="new", aliases=["old"])),
    ):
        with pytest.raises(DuplicateName):
            flow.add(other)


@pytest.mark.parametrize("given", [trace, None, "x", [trace], lambda body: body.then(trace)], ids=repr)
def test_only_a_fragment_can_be_added(given: Any) -> None:
    """A step is what `then` is for."""
    with pytest.raises(BadStep, match="fragment"):
        new().add(given)


def test_a_fragment_with_an_on_error_cannot_be_added() -> None:
    """It would be that of the whole flow; as a step of its own it can."""
    rescued = tracing("x").on_error(trace)
    with pytest.raises(BadStep, match=r"\.then"):
        new().add(rescued)
    assert new().then(rescued)
    with pytest.raises(BadStep, match="already"):
        rescued.on_error(trace)


# Generators, and other functions that cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize("generator", [yields, chunks], ids=["sync", "async"])
@pytest.mark.parametrize(
    "build",
    [
        lambda g: new().branch(g, {"x": trace}),
        lambda g: new().loop(g, trace),
        lambda g: new().then(trace, compensate=g),
        lambda g: new().then(trace, fallback=g),
        lambda g: new().then(trace, delivery="at_most_once", verify=g),
        lambda g: new().wait_for("go", timeout=1, fallback=g),
    ],
    ids=["router", "condition", "compensate", "fallback", "verify", "fallback of a wait"],
)
def test_a_generator_cannot_be_asked(build: Any, generator: Any) -> None:
    """It gives no answer, but an object that is always true."""
    with pytest.raises(BadStep, match="it is a generator") as caught:
        build(generator)
    assert caught.value.step is generator


async def test_a_generator_may_give_the_items() -> None:
    """An iterable is what is asked for; one that is async is not."""
    result = await new().batch(yields, trace).run({"trace": []})
    assert len(result.state["trace"]) == len(list(yields({})))
    with pytest.raises(BadStep, match="it is a generator"):
        new().batch(chunks, trace)  # pyright: ignore[reportArgumentType]


def or_seven(given: Any) -> Any:
    """None means that there is none."""
    return 7 if given is None else given


@pytest.mark.parametrize("wrong", [None, 7, "x", lambda: None, lambda a, b, c: None, lambda *, state: None])
@pytest.mark.parametrize(
    "build",
    [
        lambda g: new().branch(g, {"x": trace}, name="it"),
        lambda g: new().loop(g, trace, name="it"),
        lambda g: new().batch(g, trace, name="it"),
        lambda g: new().then(trace, compensate=or_seven(g)),
        lambda g: new().then(trace, fallback=or_seven(g)),
        lambda g: new().then(trace, delivery="at_most_once", verify=or_seven(g)),
    ],
    ids=["router", "condition", "items", "compensate", "fallback", "verify"],
)
def test_what_cannot_be_called_with_a_state_cannot_be_asked(build: Any, wrong: Any) -> None:
    """Found while the flow is built, with the reason."""
    with pytest.raises(BadStep, match=r"no callable|takes neither"):
        build(wrong)


# Options --------------------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, Callable[[Any], Flow], list[Any]]] = [
    ("cases", lambda v: new().branch(ask, v), [None, [("x", trace)], trace, "x"]),
    ("cases", lambda v: new().branch(ask, {"default": trace}, default=v), [trace]),
    ("lanes", lambda v: new().parallel(v), [None, {"x": trace}, {trace}, trace, "x", (t for t in (trace,))]),
    ("concurrency", lambda v: new().batch(ask, trace, concurrency=v), [0, -1, True, 1.0, "2", None]),
    ("max_failures", lambda v: new().batch(ask, trace, max_failures=v), [-1, True, 1.0, "2", None]),
    ("timeout", lambda v: new().batch(ask, trace, timeout=v), [0, -1, True, "1", float("nan")]),
    ("timeout", lambda v: new().parallel([trace], timeout=v), [0, -1, True, "1", float("inf")]),
    ("timeout", lambda v: new().wait_for("go", timeout=v), [0, -1, True, "1"]),
    ("on_error", lambda v: new().batch(ask, trace, on_error=v), ["stop", None, [], True]),
    ("on_error", lambda v: new().parallel([trace], on_error=v), ["stop", None, [], True]),
    ("reducer", lambda v: new().batch(ask, trace, reducer=v), [7, "sum", {"x": 7}, {"x": None}, [sum]]),
    ("reducer", lambda v: new().parallel([trace], reducer=v), [7, "sum", {"x": 7}, {"x": None}, [sum]]),
    (
        "until",
        lambda v: new().sleep(v),
        [-1, "1", None, True, timedelta(-1), float("nan"), datetime.now(UTC).replace(tzinfo=None)],
    ),
    ("into", lambda v: new().wait_for("go", into=v), [7, ["x"]]),
    ("schema", lambda v: new().wait_for("go", schema=v), [7, "int"]),
    ("delivery", lambda v: new().then(trace, delivery=v), ["once", None, True]),
    ("retries", lambda v: new().then(trace, delivery="at_most_once", retries=v), [1, lambda state: 1]),
    ("verify", lambda v: new().then(trace, verify=v), [ask]),
    ("hooks", lambda v: new().add_hooks(v), [None, {}, trace, Hooks]),
    ("filter", lambda v: new().add_hooks(Hooks(), v), ["step*"]),
    ("before_step", lambda v: new().add_hooks(Hooks(before_step=v)), [7, "x"]),
]


@pytest.mark.parametrize(("option", "build", "value"), [(o, b, value) for o, b, values in WRONG for value in values])
def test_an_option_that_makes_no_sense_is_refused_for_every_kind(option: str, build: Any, value: Any) -> None:
    """While the flow is built, by its name and with the rule."""
    with pytest.raises(BadOption) as caught:
        build(value)
    assert caught.value.option == option
    assert " makes no sense: " in str(caught.value)


# A flow never changes -------------------------------------------------------------------------------------------------

METHODS: dict[str, Callable[[Flow], Flow]] = {
    **{kind: lambda flow, add=add: add(flow, "more") for kind, add in ADD_ALL.items()},
    "add": lambda flow: flow.add(tracing("more")),
    "on_error": lambda flow: flow.on_error(trace),
    "with_versioned_checkpoint": lambda flow: flow.with_versioned_checkpoint(MemoryStore()),
    "resume_from": lambda flow: flow.resume_from("r@0", MemoryStore()),
    "add_hooks": lambda flow: flow.add_hooks(Hooks()),
    "remove_hooks": lambda flow: flow.remove_hooks(Hooks()),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
async def test_every_method_leaves_the_flow_as_it_was(method: Any) -> None:
    """And gives a new one, of the same class."""

    class Own(FlowBuilder[State]): ...

    flow = Own("flow").then(trace, name="a")
    before, picture = flow.describe(), flow.to_mermaid()
    changed = method(flow)
    assert changed is not flow
    assert type(changed) is Own
    assert (flow.describe(), flow.to_mermaid()) == (before, picture)
    result = await flow.run({})
    assert (result.state, result.version) == ({"trace": ["a"]}, None)


def test_start_with_leaves_the_flow_as_it_was() -> None:
    """It is still empty then."""
    flow = new()
    flow.start_with(trace)
    assert flow.describe()["steps"] == []


async def test_what_a_flow_was_built_with_may_be_changed_later() -> None:
    """Cases, lanes, reducers, aliases, filters: the flow has its own."""

    async def one(state: State) -> None:
        state["n"] = state.get("n", 0) + 1

    cases: dict[str, Any] = {"x": one}
    lanes: list[Any] = [one, piece().then(one, name="two")]
    reducers: dict[str, Any] = {"n": lambda before, values: sum(values)}
    names, wanted = ["old"], ["never"]
    store = MemoryStore()
    flow = (
        new()
        .branch(lambda state: "x", cases, name="br", aliases=names)
        .parallel(lanes, reducer=reducers)
        .batch(lambda state: [1], one, name="ba", concurrency=2, reducer=reducers)
        .with_versioned_checkpoint(store, wanted)
    )
    for given in (cases, lanes, reducers, names, wanted):
        given.clear()
    result = await flow.run({}, run_id="r")
    assert (result.state, result.version) == ({"n": 5}, "r@1")


async def test_a_body_may_be_shared_by_many_steps() -> None:
    """For it never changes."""
    body = tracing("x")
    flow = new().then(body, name="one").branch(lambda s: "c", {"c": body, "d": body}, name="br").then(body, name="two")
    assert (await flow.run({})).state["trace"] == ["one/x", "br/c/x", "two/x"]


# Plugins --------------------------------------------------------------------------------------------------------------


class Twice:
    def twice(self: Any, step: Any, name: str) -> Any:
        return self.then(step, name=f"{name}-1").then(step, name=f"{name}-2")


class Careful:
    def carefully(self: Any, body: Any) -> Any:
        """A body in a loop of one iteration, built by whatever methods the flow has."""
        return self.loop(times(1), body, name="carefully")


async def test_the_methods_of_plugins_work_in_body_functions() -> None:
    """At every depth, for the builder that a body function is given is one like that of the flow."""
    extended: Any = FlowBuilder.extend([Twice, Careful])
    flow = extended("flow").carefully(
        lambda body: body.twice(trace, "a").branch(
            lambda state: "x", {"x": lambda case: case.carefully(lambda deep: deep.twice(trace, "b"))}, name="br"
        )
    )
    found = (await flow.run({})).state["trace"]
    assert found == [f"carefully[0]/{step}" for step in ("a-1", "a-2")] + [
        f"carefully[0]/br/x/carefully[0]/{step}" for step in ("b-1", "b-2")
    ]


async def test_a_body_function_is_given_an_empty_builder() -> None:
    """Without the steps, the store and the hooks of the flow around it."""
    given: list[Any] = []

    def body(builder: Any) -> Any:
        given.append(builder)
        return builder.then(trace)

    flow = new().then(trace, name="a").add_hooks(Hooks()).with_versioned_checkpoint(MemoryStore(), ["a"])
    assert flow.loop(lambda state: False, body, name="lo")
    (builder,) = given
    assert builder.describe()["steps"] == []
    assert (await builder.then(trace).run({})).version is None


async def test_an_extended_flow_and_a_plain_one_go_together() -> None:
    """Each may be a body, a fragment or a step of the other."""
    extended: Any = FlowBuilder.extend([Twice])
    part = extended("part").twice(trace, "x")
    for flow in (new().add(part), extended("flow").add(tracing("x-1", "x-2"))):
        assert (await flow.run({})).state["trace"] == ["x-1", "x-2"]
    assert (await new().then(part).run({})).state["trace"] == ["part/x-1", "part/x-2"]


def test_all_mistakes_of_building_are_definition_errors() -> None:
    """One except clause catches them all."""
    for build in (lambda: new().parallel([]), lambda: new().loop(ask, piece()), lambda: new().anchor("x").anchor("x")):
        with pytest.raises(DefinitionError):
            build()
