"""The kinds of state: each is taken apart, put together, and set back to what it was."""

import functools
import operator
import types
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, ClassVar, Generic, Literal, NotRequired, Optional, TypedDict, TypeVar, Union

import msgspec
import pydantic
import pytest

from flowneer_async import BadState, StateNotSerializable, diff
from flowneer_async.differ import Mirror
from flowneer_async.encoding import Codec
from flowneer_async.state import named_types, shape_of
from tests.support.exact import exact

T = TypeVar("T")


class Color(Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int
    tags: frozenset[str] = frozenset()


@dataclass
class Plain:
    number: int
    points: list[Point] = field(default_factory=list)
    next: "Plain | None" = None
    shared: ClassVar[list[int]] = []


@dataclass(slots=True, kw_only=True)
class Slotted:
    number: int
    late: int = field(init=False)
    color: Color | None = None


@dataclass
class Counting:
    number: int
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls.append("post")


@dataclass
class Base:
    number: int


@dataclass
class Derived(Base):
    more: dict[int, tuple[int, ...]] = field(default_factory=dict)


class Inner(pydantic.BaseModel):
    color: Color = Color.RED


class Model(pydantic.BaseModel):
    number: int
    inner: Inner | None = None
    points: list[Point] = []


class Open(pydantic.BaseModel, extra="allow"):
    number: int


class Swapped(pydantic.BaseModel, populate_by_name=True):
    number: int = pydantic.Field(alias="other")
    other: int = pydantic.Field(alias="number")


class Strict(pydantic.BaseModel, validate_assignment=True):
    number: int
    calls: list[str] = []

    @pydantic.field_validator("number")
    @classmethod
    def even_when_given(cls, value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value

    def model_post_init(self, context: object, /) -> None:
        self.calls.append("post")


class Cached(pydantic.BaseModel):
    number: int

    @functools.cached_property
    def view(self) -> memoryview:
        return memoryview(b"not to be stored")


class Struct(msgspec.Struct, kw_only=True, rename="camel"):
    number: int
    some_points: list[Point] = []
    inner: "Struct | None" = None


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag="hound"):
    tricks: set[str]


class Pets(msgspec.Struct):
    number: int
    pets: list[Cat | Dog] = []


class Posted(msgspec.Struct):
    number: int
    calls: list[str] = []

    def __post_init__(self) -> None:
        self.calls.append("post")
        self.number += 1


class Typed(TypedDict):
    number: int
    color: NotRequired[Color]


def odd() -> Strict:
    """A state that its validators would not take any more."""
    state = Strict(number=2)
    vars(state)["number"] = 7
    return state


def seen() -> Cached:
    state = Cached(number=1)
    assert state.view
    return state


STATES: dict[str, tuple[Any, Callable[[], Any]]] = {
    "dict": (dict, lambda: {"number": 1, "a": [1, (2,)]}),
    "TypedDict": (Typed, lambda: Typed(number=1, color=Color.RED)),
    "alias of dict": (dict[str, Plain], lambda: {"number": 1, "plain": Plain(1)}),
    "dataclass": (Plain, lambda: Plain(1, [Point(1, frozenset({"a"}))], Plain(2))),
    "slots": (Slotted, lambda: Slotted(number=1, color=Color.RED)),
    "post init": (Counting, lambda: Counting(1)),
    "inherited": (Derived, lambda: Derived(1, {1: (2, 3)})),
    "pydantic": (Model, lambda: Model(number=1, inner=Inner(), points=[Point(1)])),
    "extra fields": (Open, lambda: Open.model_validate({"number": 1, "more": [1], "number2": 2})),
    "swapped aliases": (Swapped, lambda: Swapped(number=1, other=2)),
    "validators": (Strict, odd),
    "cached property": (Cached, seen),
    "msgspec": (Struct, lambda: Struct(number=1, some_points=[Point(1)], inner=Struct(number=2))),
    "tagged union": (Pets, lambda: Pets(1, [Cat(9), Dog({"roll"})])),
    "msgspec post init": (Posted, lambda: Posted(1)),
}


@pytest.fixture(params=STATES, ids=lambda name: name.replace(" ", "-"))
def kind(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A type of state, and a state of it."""
    state_type, make = STATES[request.param]
    return state_type, make()


def mirrored(state_type: Any, state: Any) -> tuple[Mirror, Codec]:
    codec = Codec(*named_types(state_type))
    mirror = Mirror(codec)
    mirror.advance(shape_of(state_type).items(state))
    return mirror, codec


def rebuilt(state_type: Any, state: Any) -> Any:
    """A state by way of its JSON, as a resume makes it."""
    mirror, codec = mirrored(state_type, state)
    return shape_of(state_type).build({key: codec.load(text) for key, text in mirror.texts.items()})


def assign(state: Any, name: str, value: object) -> None:
    (operator.setitem if isinstance(state, dict) else setattr)(state, name, value)


# What comes back ------------------------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was(kind: tuple[Any, Any]) -> None:
    """By way of its JSON: the same type, the same fields, and nothing run on it a second time."""
    state_type, state = kind
    again = rebuilt(state_type, state)
    assert exact(again) == exact(state)
    assert again is not state
    assert exact(rebuilt(state_type, again)) == exact(state)


def test_a_state_that_came_back_can_be_worked_on(kind: tuple[Any, Any]) -> None:
    """It takes new values like the one that was stored, and differs from that in them alone."""
    state_type, state = kind
    again = rebuilt(state_type, state)
    assign(again, "number", 4)
    mirror, _ = mirrored(state_type, state)
    change = mirror.advance(shape_of(state_type).items(again))
    assert change is not None
    assert change.changed == {"number": 4}


def test_a_state_is_set_back_in_place(kind: tuple[Any, Any]) -> None:
    """The same object is again what it was at the last version, so that a retry begins where the first attempt did."""
    state_type, state = kind
    mirror, _ = mirrored(state_type, state)
    before = exact(state)
    assign(state, "number", 4)
    mirror.restore(shape_of(state_type), state)
    assert exact(state) == before
    assert mirror.advance(shape_of(state_type).items(state)) is None


def test_what_was_changed_deep_inside_is_set_back() -> None:
    """Lists that were appended to, fields of nested objects, values that could not have been stored."""
    states: list[tuple[Any, Any, Callable[[Any], object]]] = [
        (dict, {"a": {"b": [1]}}, lambda state: state["a"]["b"].append(object())),
        (Plain, Plain(1, [], Plain(2)), lambda state: setattr(state.next, "number", object())),
        (Model, Model(number=1, inner=Inner()), lambda state: state.points.append((1, 2))),
        (Pets, Pets(1, [Dog({"roll"})]), lambda state: state.pets[0].tricks.add("sit")),
    ]
    for state_type, state, change in states:
        mirror, _ = mirrored(state_type, state)
        before = exact(state)
        change(state)
        mirror.restore(shape_of(state_type), state)
        assert exact(state) == before


def test_keys_that_came_are_gone_and_keys_that_went_are_back() -> None:
    """In a dict, among the extra fields of a model, and where a field had no value."""
    state: dict[str, Any] = {"kept": 1, "gone": [2]}
    mirror, _ = mirrored(dict, state)
    del state["gone"]
    state["new"] = 3
    mirror.restore(shape_of(dict), state)
    assert state == {"kept": 1, "gone": [2]}

    model = Open.model_validate({"number": 1, "gone": [2]})
    mirror, _ = mirrored(Open, model)
    del model.gone  # pyright: ignore[reportAttributeAccessIssue]
    model.new = 3  # pyright: ignore[reportAttributeAccessIssue]
    mirror.restore(shape_of(Open), model)
    assert (model.number, model.model_extra) == (1, {"gone": [2]})


def test_a_field_without_a_value_stays_without_one() -> None:
    """It is an absent key, and is absent again after it had a value for a while."""
    state = Slotted(number=1)
    assert not hasattr(rebuilt(Slotted, state), "late")
    mirror, _ = mirrored(Slotted, state)
    state.late = 5
    assert rebuilt(Slotted, state).late == 5
    mirror.restore(shape_of(Slotted), state)
    assert not hasattr(state, "late")


def test_what_is_unchanged_is_left_alone() -> None:
    """Objects that a step did not touch are the same objects after a retry."""
    state = {"kept": [1], "changed": [2]}
    kept = state["kept"]
    mirror, _ = mirrored(dict, state)
    state["changed"] = []
    mirror.restore(shape_of(dict), state)
    assert state["kept"] is kept


def test_validators_are_not_run_on_what_they_have_seen() -> None:
    """Neither when a state comes back, nor when it is set back; the calls of its hooks are as they were."""
    state = odd()
    assert rebuilt(Strict, state).calls == ["post"]
    mirror, _ = mirrored(Strict, state)
    state.number = 4
    mirror.restore(shape_of(Strict), state)
    assert (state.number, state.calls) == (7, ["post"])


def test_a_cached_property_is_no_part_of_the_state() -> None:
    """It is computed again when it is asked for."""
    assert dict(shape_of(Cached).items(seen())) == {"number": 1}
    assert rebuilt(Cached, seen()).view == b"not to be stored"


# What is named --------------------------------------------------------------------------------------------------------


@dataclass
class Deep(Generic[T]):
    optional: Optional[Plain]  # noqa: UP045
    union: Union[Cat, "Dog"]
    annotated: Annotated[Inner, "note"]
    keys: dict[tuple[Point, ...], "list[Slotted]"]
    typed: Typed
    word: Literal["a", 1]
    generic: T
    anything: Any


def test_all_types_that_annotations_lead_to_are_named() -> None:
    """Through unions, containers, strings, TypedDicts and nested types; each once, also where types name themselves."""
    shapes, enums = named_types(Deep[Counting])
    assert set(shapes) == {"Deep", "Plain", "Point", "Cat", "Dog", "Inner", "Slotted", "Counting"}
    assert enums == {"Color": Color}
    for name in ("Plain", "Struct", "Model"):
        assert name in named_types(globals()[name])[0]


def test_two_types_of_one_name_are_refused() -> None:
    """Nothing would tell them apart when they come back."""
    other = type("Point", (), {"__annotations__": {"y": int}, "__qualname__": "Point"})
    state = types.new_class("State")
    state.__annotations__ = {"one": Point, "two": dataclass(other)}
    with pytest.raises(BadState, match="two types called Point"):
        named_types(dataclass(state))


@pytest.mark.parametrize(
    "annotation", ["Missing", "list[Missing]", "functools.missing", "not python", "1 +", "list[1, 2]["]
)
def test_an_annotation_that_leads_nowhere_is_refused(annotation: str) -> None:
    """With the reason, instead of a state whose objects would not come back."""
    state = types.new_class("State")
    state.__annotations__ = {"at": annotation}
    state.__module__ = __name__
    with pytest.raises(BadState, match="annotations"):
        named_types(dataclass(state))


def test_a_type_that_is_only_known_where_it_was_made_is_refused_with_its_name() -> None:
    """A string annotation cannot be looked up in a function."""

    @dataclass
    class Local:
        x: int

    @dataclass
    class State:
        at: "Local"

    with pytest.raises(BadState, match="Local"):
        named_types(State)
    assert Local(1).x == 1


# What is refused ------------------------------------------------------------------------------------------------------


class Private(pydantic.BaseModel):
    number: int
    _secret: int = pydantic.PrivateAttr(default=1)


class FrozenModel(pydantic.BaseModel, frozen=True):
    number: int


class FrozenStruct(msgspec.Struct, frozen=True):
    number: int


class Bare:
    number: int


REFUSED = {
    "frozen": [Point, FrozenModel, FrozenStruct],
    "private": [Private],
    "plain dict": [OrderedDict, defaultdict, UserDict, types.MappingProxyType],
    "a state is a dict": [Bare, list, int, str, object, Color, tuple, type(None)],
}


@pytest.mark.parametrize(
    ("reason", "refused"), [(why, each) for why, all_ in REFUSED.items() for each in all_], ids=str
)
def test_a_kind_of_state_that_would_not_come_back_is_refused(reason: str, refused: type) -> None:
    """Before anything is run, and with the reason."""
    with pytest.raises(BadState, match=reason) as caught:
        shape_of(refused)
    assert caught.value.state_type is refused


def test_frozen_types_may_stand_in_a_state() -> None:
    """Only the state itself is changed in place."""

    class State(TypedDict):
        model: FrozenModel
        struct: FrozenStruct
        point: Point

    state = State(model=FrozenModel(number=1), struct=FrozenStruct(1), point=Point(1))
    assert exact(rebuilt(State, state)) == exact(state)


def test_a_model_with_private_attributes_is_refused_inside_of_a_state_too() -> None:
    """They would be lost there as well."""

    class State(TypedDict):
        models: list[Private]

    with pytest.raises(BadState, match="private"):
        named_types(State)


@dataclass(slots=True)
class SlotBase:
    number: int


@dataclass
class Roomy(SlotBase):
    next: "Roomy | None" = None
    known: ClassVar[int] = 0

    @functools.cached_property
    def twice(self) -> int:
        return self.number * 2


@pytest.mark.parametrize("name", ["stray", "_stray", "known"])
def test_an_attribute_that_is_no_field_is_refused(name: str) -> None:
    """It would be lost, in the state and in what stands in it; a cached property would not, it is made again."""
    codec = Codec(*named_types(Roomy))
    state = Roomy(1, Roomy(2))
    assert state.twice == 2
    for path, holder in ((f"$.next.{name}", state.next), (f"$.{name}", state)):
        assert diff({}, shape_of(Roomy).items(state), codec) is not None
        setattr(holder, name, 3)
        with pytest.raises(StateNotSerializable) as caught:
            diff({}, shape_of(Roomy).items(state), codec)
        assert caught.value.path == path
        delattr(holder, name)


def test_a_stray_attribute_is_gone_when_a_state_is_set_back() -> None:
    """A failed attempt that set one does not keep the next attempt from its work."""
    state = Roomy(1, Roomy(2))
    mirror, _ = mirrored(Roomy, state)
    state.number = 5
    vars(state)["stray"] = 3
    mirror.restore(shape_of(Roomy), state)
    assert exact(state) == exact(Roomy(1, Roomy(2)))
    assert not hasattr(state, "stray")


def test_the_path_of_a_value_leads_through_the_fields_of_objects() -> None:
    """`$.next.points[0].x`, whatever kind of object it is."""
    codec = Codec(*named_types(Plain))
    state = Plain(1, [], Plain(2, [Point(object())]))  # pyright: ignore[reportArgumentType]
    with pytest.raises(StateNotSerializable) as caught:
        diff({}, shape_of(Plain).items(state), codec)
    assert caught.value.path == "$.next.points[0].x"
