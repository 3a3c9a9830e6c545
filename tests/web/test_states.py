"""States over HTTP: of every kind of type, with every kind of value, and never a 500."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PlainSerializer

from flowneer_async import BadState, FlowBuilder
from flowneer_async.fastapi.types import payload_hint, state_hint
from flowneer_async.fastapi.writing import plain, written
from tests.web.service import service


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


ODD: dict[str, Any] = {
    "nan": math.nan,
    "infinity": -math.inf,
    "big": 10**30,
    "huge": 10**5000,
    "bytes": b"\xff\x00",
    "buffer": bytearray(b"\xff"),
    "surrogate": "a\ud800b",
    "surrogate in a key": {"\ud800": 1},
    "tuple": (1, (2, 3)),
    "set": {1, 2},
    "frozenset": frozenset([b"\xff"]),
    "decimal": Decimal("NaN"),
    "moment": datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    "naive moment": datetime(2026, 1, 2),
    "day": date(2026, 1, 2),
    "span": timedelta(days=-1, microseconds=1),
    "uuid": UUID(int=7),
    "keys": {1: "a", None: "b", (1, 2): "c", b"\xff": "d", 1.5: "e"},
    "keys that collide": {1: "a", "1": "b"},
    "a tag": {"$bytes": "x"},
    "deep": deep(198),
    "empty": {},
    "nul": "\0",
}

PLAINLY: dict[str, Any] = {
    "nan": "NaN",
    "infinity": "-Infinity",
    "big": 10**30,
    "bytes": "_wA=",
    "surrogate": "a?b",
    "tuple": [1, [2, 3]],
    "set": [1, 2],
    "moment": "2026-01-02T03:04:05.000006Z",
    "day": "2026-01-02",
    "uuid": "00000000-0000-0000-0000-000000000007",
    "a tag": {"$bytes": "x"},
}


class Anything(TypedDict):
    value: Any


@dataclass
class Box:
    value: Any = None


class Struct(msgspec.Struct):
    value: Any = None


class Model(BaseModel):
    value: Any = None


class Number(BaseModel):
    value: float = 0.0


KINDS: dict[str, type | None] = {
    "dict": None,
    "TypedDict": Anything,
    "dataclass": Box,
    "Struct": Struct,
    "pydantic": Model,
}


def set_to(value: object) -> Any:
    def step(state: Any) -> None:
        if isinstance(state, dict):
            state["value"] = value
        else:
            state.value = value

    return step


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_state_is_shown(kind: str, odd: str) -> None:
    flow: FlowBuilder[Any] = FlowBuilder("odd", KINDS[kind]).start_with(set_to(ODD[odd]), name="set")
    async with service([flow]) as at:
        run_id = await at.started("odd", {"value": 1})
        for path in (
            f"/flows/odd/runs/{run_id}/state",
            f"/runs/{run_id}/versions/1",
            f"/runs/{run_id}/versions/1/diff",
        ):
            response = await at.alice.get(path)
            assert response.status_code == 200, response.text
            assert response.headers["content-type"] == "application/json"
            if odd != "huge":  # of more digits than Python reads
                response.json()


@pytest.mark.parametrize("odd", PLAINLY)
async def test_what_json_cannot_say_is_said_plainly(odd: str) -> None:
    assert plain({"value": ODD[odd]}) == {"value": PLAINLY[odd]}


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(st.characters())
        | st.binary()
        | st.datetimes(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner) | st.tuples(inner),
        max_leaves=20,
    )
)
def test_whatever_a_state_holds_is_written_as_json(value: object) -> None:
    for state in (value, {"value": value}, Box(value), Struct(value), Model(value=value)):
        text = written(state)
        json.loads(text)
        plain(state)


def test_objects_are_written_as_their_own_type_has_it() -> None:
    class Inner(BaseModel):
        long_name: Annotated[int, Field(serialization_alias="short")] = 1

    @dataclass
    class Shown:
        price: Annotated[Decimal, PlainSerializer(lambda price: f"{price} EUR")]
        inner: Inner

    class Renamed(msgspec.Struct, rename="camel"):
        long_name: int = 1

    assert plain(Shown(Decimal(3), Inner())) == {"price": "3 EUR", "inner": {"short": 1}}
    assert plain(Renamed()) == {"longName": 1}
    assert plain(Number(value=math.nan)) == {"value": None}


def test_a_dataclass_without_one_of_its_fields_is_shown_with_the_others() -> None:
    @dataclass
    class Two:
        first: int
        second: int

    two = Two(1, 2)
    del two.first
    assert plain(two) == {"second": 2}


class Colour(Enum):
    RED = "red"


class Line(TypedDict):
    count: int
    colour: Colour


class Cart(TypedDict, total=False):
    lines: list[Line]
    by_name: dict[str, Line]
    best: Line | None


class Tree(TypedDict):
    children: NotRequired[list["Tree"]]


class Part(msgspec.Struct):
    name: str
    parts: list["Part"] = []


async def test_the_types_that_a_type_names_are_read_too() -> None:
    flow = FlowBuilder("cart", Cart).start_with(set_to(1), name="set")
    async with service([flow]) as at:
        line = {"count": 1, "colour": "red"}
        good = {"lines": [line], "by_name": {"a": line}, "best": line}
        run_id = await at.started("cart", good)
        state = await at.engine.flows["cart"].resolve(f"{run_id}@0")
        assert state.state["lines"][0]["colour"] is Colour.RED
        for bad in ({"lines": [{"count": "x"}]}, {"best": 1}, {"by_name": {"a": {**line, "colour": "blue"}}}):
            assert (await at.alice.post("/flows/cart/runs", json=bad)).status_code == 422


async def test_a_dict_of_objects_is_read_as_such() -> None:
    for kind in (dict[str, Struct], dict[str, Box], dict[str, Model]):
        flow: FlowBuilder[Any] = FlowBuilder("many", kind).start_with(lambda state: None, name="look")
        async with service([flow]) as at:
            run_id = await at.started("many", {"a": {"value": 1}})
            state = (await at.engine.flows["many"].resolve(f"{run_id}@0")).state
            assert type(state["a"]) in (Struct, Box, Model)
            assert (await at.alice.get(f"/flows/many/runs/{run_id}/state")).json() == {"a": {"value": 1}}


async def test_types_that_name_themselves_are_read() -> None:
    for kind, state in (
        (Tree, {"children": [{"children": []}]}),
        (Part, {"name": "a", "parts": [{"name": "b", "parts": []}]}),
    ):
        flow: FlowBuilder[Any] = FlowBuilder("self", kind).start_with(lambda state: None, name="look")
        async with service([flow]) as at:
            run_id = await at.started("self", state)
            assert (await at.alice.get(f"/flows/self/runs/{run_id}/state")).json() == state


def test_a_type_that_cannot_be_read_from_json_is_refused_when_the_router_is_made() -> None:
    class Odd:
        pass

    @dataclass
    class Holds:
        odd: Odd

    with pytest.raises(BadState, match="Holds cannot be used: it cannot be read from JSON"):
        state_hint(Holds)


def test_a_payload_whose_type_is_a_function_or_unknown_may_be_anything() -> None:
    class Odd:
        pass

    assert payload_hint([]) is object
    assert payload_hint([int, None]) is object
    assert payload_hint([lambda value: value]) is object
    assert payload_hint([Odd]) is object
    assert payload_hint([int]) is int
