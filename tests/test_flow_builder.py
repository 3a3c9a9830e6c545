"""The builder: flows never change, and a mistake is found where it is made."""

import asyncio
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any, Generic, Self, TypeVar

import pytest

from flowneer_async import (
    Backoff,
    BadName,
    BadOption,
    BadState,
    BadStep,
    Context,
    DefinitionError,
    DuplicateName,
    FlowBuilder,
    FlowError,
    PluginCollision,
    Snapshot,
    VersionedCheckpointEntry,
)
from flowneer_stores import MemoryStore, SqliteStore

State = dict[str, Any]
T = TypeVar("T")


async def first(state: State) -> None:
    state.setdefault("done", []).append("first")


def second(state: State, ctx: Context) -> None:
    state.setdefault("done", []).append(ctx.step)


async def third(state: State) -> None:
    state.setdefault("done", []).append("third")


def new(name: str = "flow") -> FlowBuilder[State]:
    return FlowBuilder(name)


def done(flow: FlowBuilder[State]) -> list[str]:
    """The steps of a flow, as a run goes through them."""
    state: State = {"done": []}
    asyncio.run(_run(flow, state))
    return state["done"]


async def _run(flow: FlowBuilder[State], state: State) -> None:
    await flow.run(state)


# Flows never change ---------------------------------------------------------------------------------------------------


def test_every_method_returns_a_new_flow() -> None:
    """And leaves the one it was called on as it was, so that two flows can grow from one."""
    base = new().start_with(first)
    one, other = base.then(second), base.then(third)
    assert [done(flow) for flow in (base, one, other)] == [["first"], ["first", "second"], ["first", "third"]]


def test_a_store_belongs_to_the_new_flow_alone() -> None:
    """The flow without one goes on without one; so does the flow that is not resumed."""

    async def versions() -> list[str | None]:
        plain, store = new().start_with(first), MemoryStore()
        kept = plain.with_versioned_checkpoint(store)
        result = await kept.run({}, run_id="a")
        assert result.version is not None
        resumed = kept.resume_from(result.version, store)
        return [(await flow.run({})).version for flow in (plain, kept)] + [(await resumed.run()).version]

    without, with_store, resumed = asyncio.run(versions())
    assert without is None
    assert with_store is not None
    assert not with_store.startswith("a@")
    assert resumed == "a@1"


def test_the_names_of_steps_may_be_given_or_are_their_own() -> None:
    """A lambda, a partial or an object has none, and may be given any printable one."""
    flow = new().then(partial(second), name="größe/1 [x] 100%").then(second).then(second, name="again")
    assert done(flow) == ["größe%2F1 %5Bx%5D 100%25", "second", "again"]


def test_a_flow_needs_no_start_with() -> None:
    """`then` begins a flow as well."""
    assert done(new().then(third).then(first)) == ["third", "first"]


class Stepper:
    def method(self, state: State) -> None:
        state["done"].append("method")

    async def __call__(self, state: State, ctx: Context) -> None:
        state["done"].append("object")


def any_arguments(*args: Any) -> None:
    args[0]["done"].append(f"any {len(args)}")


def defaults(state: State, limit: int = 3, *, loud: bool = False) -> None:
    state["done"].append(f"limit {limit}")


def optional_context(state: State, ctx: Context | None = None) -> None:
    state["done"].append("context" if ctx else "none")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Stepper().method, "method"),
        (Stepper(), "object"),
        (any_arguments, "any 1"),
        (defaults, "limit 3"),
        (optional_context, "context"),
        (lambda state, anything: state["done"].append(anything.step), "step"),
        (partial(lambda word, state: state["done"].append(word), "word"), "word"),
    ],
)
def test_what_can_be_called_with_a_state_can_be_a_step(step: Any, said: str) -> None:
    """A second argument without default, or one called ctx, is given the context."""
    assert done(new().then(step, name="step")) == [said]


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a\n", "\x00", "a\ud800", "x" * 201, None, 7, b"flow", ("a",)], ids=repr)
def test_a_bad_name_is_refused(name: Any) -> None:
    """Of a flow and of a step: a name is a printable text of 1 to 200 characters."""
    with pytest.raises(BadName) as caught:
        FlowBuilder(name)
    assert (caught.value.kind, caught.value.name) == ("flow", name)
    if name is not None:
        with pytest.raises(BadName) as caught:
            new().then(first, name=name)
        assert (caught.value.kind, caught.value.name) == ("step", name)


@pytest.mark.parametrize("step", [lambda state: None, partial(first), Stepper()], ids=["lambda", "partial", "object"])
def test_a_step_without_a_name_of_its_own_needs_one(step: Any) -> None:
    """The message says how to give it."""
    with pytest.raises(BadName, match=r"needs name=…"):
        new().then(step)
    assert len(done(new().then(step, name="named"))) <= 1


def test_two_steps_of_one_name_are_refused() -> None:
    """A stored run is resumed by the names; the message proposes another."""
    with pytest.raises(DuplicateName, match="first-2") as caught:
        new("orders").start_with(first).then(second).then(first)
    assert (caught.value.flow, caught.value.name) == ("orders", "first")
    with pytest.raises(DuplicateName):
        new().start_with(first).then(second, name="first")
    assert done(new().start_with(first).then(first, name="first-2")) == ["first", "first"]


def test_a_flow_has_one_first_step() -> None:
    """A second start_with is a mistake, and so is one after then."""
    for flow in (new().start_with(first), new().then(first)):
        with pytest.raises(BadStep, match=r"use \.then") as caught:
            flow.start_with(second)
        assert caught.value.step is second


def yields(state: State) -> Iterator[None]:
    yield


def nothing() -> None: ...
def three(a: object, b: object, c: object) -> None: ...
def keyword(*, state: object) -> None: ...
def needs_keyword(state: object, *, limit: int) -> None: ...
def needs_keyword_too(state: object = None, *, limit: int) -> None: ...
def needs_keyword_and_context(state: object, ctx: object = None, *, limit: int) -> None: ...
def only_keywords(**options: object) -> None: ...


WRONG_STEPS: dict[str, list[Any]] = {
    "it is a generator": [yields, partial(yields)],
    "it is no callable": [None, 7, "first", [first], asyncio.sleep(0).close()],
    "it takes neither": [
        *(nothing, three, keyword, needs_keyword, needs_keyword_too, needs_keyword_and_context, only_keywords),
        *(lambda: None, partial(nothing)),
    ],
}


@pytest.mark.parametrize(("reason", "step"), [(why, each) for why, all_ in WRONG_STEPS.items() for each in all_])
def test_what_cannot_be_called_with_a_state_is_no_step(reason: str, step: Any) -> None:
    """Found while the flow is built, with the reason."""
    for add in (new("orders").start_with, new("orders").then):
        with pytest.raises(BadStep, match=reason) as caught:
            add(step, name="step")
        assert (caught.value.flow, caught.value.step) == ("orders", step)


WRONG_OPTIONS: list[tuple[str, Any]] = [
    *(("retries", value) for value in (-1, 1.0, True, "3", None, float("nan"))),
    *(("delay", value) for value in (-0.1, "1", None, True, float("nan"), float("inf"), Decimal(1))),
    *(("timeout", value) for value in (0, -1, "1", True, float("nan"), float("inf"))),
]


@pytest.mark.parametrize(("option", "value"), WRONG_OPTIONS)
def test_an_option_that_makes_no_sense_is_refused(option: str, value: Any) -> None:
    """While the flow is built, with the rule."""
    for add in (new().start_with, new().then):
        with pytest.raises(BadOption) as caught:
            add(first, **{option: value})
        assert caught.value.option == option
        assert caught.value.value is value


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 0, "delay": 0, "timeout": 0.5},
        {"retries": 3, "delay": Backoff(first=0), "timeout": None},
        {"retries": lambda state: 1, "delay": lambda state: 0.0, "timeout": lambda state: 5},
    ],
    ids=str,
)
def test_an_option_is_a_value_or_a_function_of_the_state(options: Any) -> None:
    """Either kind is taken by both methods."""
    assert done(new().start_with(first, **options).then(third, **options)) == ["first", "third"]


@pytest.mark.parametrize("option", ["retries", "delay", "timeout"])
def test_an_option_made_of_the_state_is_checked_without_showing_it(option: str) -> None:
    """When the step is reached; the message names the option and the type, not the value."""
    failing: Any = {"retries": 1, option: lambda state: state["secret"]}

    async def fails(state: State) -> None:
        raise LookupError

    with pytest.raises(FlowError) as caught:
        asyncio.run(_run(new().then(fails, **failing), {"secret": "hunter2"}))
    reason = caught.value.cause
    assert isinstance(reason, BadOption)
    assert reason.option == option
    assert "hunter2" not in f"{caught.value} {reason}"


class Two:
    """A store of the seed's two methods."""

    def save(self, entry: VersionedCheckpointEntry) -> None: ...

    def resolve(self, version: str) -> Snapshot[dict[str, object]]:
        return Snapshot(-1, {})


WRONG_STORES: list[tuple[str, Any, dict[str, Any]]] = [
    ("store", None, {}),
    ("store", {}, {}),
    ("store", "runs.db", {}),
    ("store", MemoryStore, {}),
    ("store", SqliteStore, {}),
    ("store", Two, {}),
    ("filter", MemoryStore(), {"filter": "fetch*"}),
    ("durability", MemoryStore(), {"durability": "maybe"}),
    ("durability", MemoryStore(), {"durability": None}),
    ("durability", MemoryStore(), {"durability": []}),
    ("durability", Two(), {"durability": "async"}),
    ("durability", Two(), {"durability": "exit"}),
]


@pytest.mark.parametrize(("option", "store", "options"), WRONG_STORES)
def test_a_store_or_a_way_to_keep_versions_that_makes_no_sense_is_refused(
    option: str, store: Any, options: dict[str, Any]
) -> None:
    """While the flow is built: a class is no store, a text is no list of globs, two methods cannot be behind."""
    with pytest.raises(BadOption) as caught:
        new().then(first).with_versioned_checkpoint(store, **options)
    assert caught.value.option == option


def test_a_store_of_two_methods_is_a_store() -> None:
    """Any object with save and resolve; what has only one of them is none."""
    assert done(new().then(first).with_versioned_checkpoint(Two())) == ["first"]
    with pytest.raises(BadOption):
        new().resume_from("a@1", object())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("state", [int, list, "State", 7, {"password": "hunter2"}, int | str, None.__class__], ids=str)
def test_a_type_that_is_no_state_is_refused(state: Any) -> None:
    """While the flow is built; a state that was given in place of its type is not shown."""
    with pytest.raises(BadState) as caught:
        FlowBuilder("flow", state)
    assert "hunter2" not in str(caught.value)


# Plugins --------------------------------------------------------------------------------------------------------------


class Twice:
    def twice(self: Any, step: Callable[[State], None]) -> Any:
        """The step, two times."""
        return self.then(step, name="once").then(step, name="twice")


class Shout:
    def shout(self: Any, word: str) -> Any:
        """A step that says a word."""
        return self.then(lambda state: state["done"].append(word.upper()), name=word)


def test_a_plugin_adds_its_methods() -> None:
    """To a new class, whose flows keep them through every method; the builder itself stays as it was."""
    extended: Any = FlowBuilder.extend([Twice, Shout])
    flow = extended("flow").start_with(first).twice(third).shout("ho")
    assert done(flow) == ["first", "third", "third", "HO"]
    assert isinstance(flow, FlowBuilder)
    assert type(flow) is extended
    assert not hasattr(FlowBuilder, "twice")


def test_an_extended_builder_can_be_extended() -> None:
    """One plugin after the other is the same as both at once."""
    extended: Any = FlowBuilder.extend([Twice]).extend([Shout])
    assert done(extended("flow").shout("hey").twice(first)) == ["HEY", "first", "first"]


def test_a_subclass_keeps_its_type() -> None:
    """The builder can be subclassed like any class."""

    class Own(FlowBuilder[State]):
        def begin(self) -> Self:
            return self.start_with(first)

    assert type(Own("flow").begin().then(third)) is Own


class Then:
    def then(self) -> None: ...


class Run(Twice):
    run = None


class TwiceToo:
    def twice(self) -> None: ...


@pytest.mark.parametrize(
    ("plugins", "plugin", "method", "owner"),
    [
        ([Then], "Then", "then", "FlowBuilder"),
        ([Shout, Run], "Run", "run", "FlowBuilder"),
        ([Twice, TwiceToo], "TwiceToo", "twice", "plugin Twice"),
        ([Twice, Shout, Twice], "Twice", "twice", "plugin Twice"),
    ],
)
def test_two_methods_of_one_name_are_refused(plugins: list[type], plugin: str, method: str, owner: str) -> None:
    """Of a plugin and the builder, or of two plugins; the message names both."""
    with pytest.raises(PluginCollision) as caught:
        FlowBuilder.extend(plugins)
    assert (caught.value.plugin, caught.value.method, caught.value.owner) == (plugin, method, owner)


def test_a_private_helper_of_a_plugin_collides_too() -> None:
    """Else the builder's own would silently be called in its place."""

    class Helped:
        def _with(self) -> None: ...

    with pytest.raises(PluginCollision) as caught:
        FlowBuilder.extend([Helped])
    assert (caught.value.method, caught.value.owner) == ("_with", "FlowBuilder")


def test_a_generic_plugin_does_not_collide() -> None:
    """What every generic class has is nobody's method."""

    class Loud(Generic[T]):
        def louder(self) -> None: ...

    assert hasattr(FlowBuilder.extend([Loud]), "louder")


def test_a_plugin_of_a_plugin_collides_too() -> None:
    """A method that an extended builder has already is not replaced."""
    with pytest.raises(PluginCollision):
        FlowBuilder.extend([Twice]).extend([TwiceToo])


def test_every_mistake_in_a_flow_is_a_definition_error() -> None:
    """One except clause catches them all."""
    assert {BadName, BadStep, BadOption, DuplicateName, PluginCollision} == set(DefinitionError.__subclasses__())
