"""Our errors as RFC 9457 has them."""

import inspect
import json
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from flowneer_async import FlowBuilder, FlowneerError, Run, StoreBusy, StoreFull, UnknownRun, errors
from flowneer_async.fastapi import problem_of
from flowneer_async.fastapi.problems import STATUS
from flowneer_stores import MemoryStore
from tests.web.service import service

EVERY = sorted(
    (each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, FlowneerError)),
    key=lambda each: each.__name__,
)

THEIRS = [errors.FlowError, errors.DefinitionError, errors.RunError, errors.StateError, errors.StoreError]
"""Errors of the service, and of what it is made of."""

SAMPLES: dict[str, object] = {
    "attempts": 1,
    "cause": ValueError("s3cret"),
    "seconds": 2.0,
    "state_type": int,
    "value_type": int,
    "answer_type": int,
    "step": "step",
    "limit": 3,
    "size": 4,
    "recoveries": 5,
    "number": 6,
    "line": 7,
    "found": 8,
    "known": 9,
    "deadline": 10,
    "max_visits": 11,
}


def sample(kind: type[FlowneerError]) -> FlowneerError:
    """An error of a class, made of what fits its parameters."""
    if kind.__init__ is Exception.__init__:
        return kind("it is wrong")
    made: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind is not parameter.VAR_POSITIONAL and parameter.default is parameter.empty:
            is_list = "Sequence" in str(parameter.annotation)
            made[name] = ["a", "b"] if is_list else SAMPLES.get(name, f"the-{name}")
    return kind(**made)


def said(error: FlowneerError) -> dict[str, Any]:
    response = problem_of(error)
    found: dict[str, Any] = json.loads(bytes(response.body))
    assert found["status"] == response.status_code
    assert response.media_type == "application/problem+json"
    return found


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_is_a_problem(kind: type[FlowneerError]) -> None:
    found = said(sample(kind))
    assert found["type"] == "urn:flowneer-async:" + found["title"].lower().replace(" ", "-")
    assert found["title"]
    assert found["detail"]
    assert "s3cret" not in json.dumps(found)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_what_is_not_the_clients_to_mend_is_told_without_names_of_files_and_hosts(kind: type[FlowneerError]) -> None:
    error = sample(kind)
    found = said(error)
    if found["status"] >= 500:
        assert str(error) not in found["detail"]
        assert set(found) <= {"type", "title", "status", "detail", "run_id"}
    else:
        assert set(STATUS).intersection(kind.__mro__)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("UnknownRun", 404),
        ("UnknownVersion", 404),
        ("UnknownFlow", 404),
        ("BadSignal", 422),
        ("StateNotSerializable", 422),
        ("RunBusy", 409),
        ("FlowChanged", 409),
        ("Parked", 409),
        ("StateTooLarge", 413),
        ("EngineStopped", 503),
        ("StoreBusy", 503),
        ("StoreUnreachable", 503),
        ("StoreFull", 507),
        ("CorruptVersion", 500),
        ("DuplicateName", 500),
        ("StateTypeUnknown", 500),
    ],
)
def test_errors_have_the_status_that_says_who_can_mend_it(name: str, status: int) -> None:
    assert said(sample(getattr(errors, name)))["status"] == status


def test_the_ids_that_a_problem_is_about_are_its_members() -> None:
    assert said(UnknownRun("run-7"))["run_id"] == "run-7"
    assert said(sample(errors.StateNotSerializable))["path"] == "the-path"


def test_who_works_on_a_run_is_none_of_the_clients_business() -> None:
    assert "the-owner" not in json.dumps(said(sample(errors.RunBusy)))


def test_who_is_to_come_back_is_told_when() -> None:
    assert problem_of(StoreBusy("runs.db", 5)).headers["retry-after"] == "1"
    assert "retry-after" not in problem_of(UnknownRun("run-7")).headers


class Failing(MemoryStore):
    error: FlowneerError | None = None

    async def read(self, run_id: str) -> Run:
        if self.error is not None:
            raise self.error
        return await super().read(run_id)


@pytest.mark.parametrize(
    ("error", "status"), [(StoreBusy("/secret/runs.db", 5), 503), (StoreFull("/secret/runs.db"), 507)]
)
async def test_a_store_that_fails_is_a_problem_and_its_place_is_not_told(error: FlowneerError, status: int) -> None:
    store = Failing()
    async with service(store=store) as at:
        store.error = error
        response = await at.alice.get("/runs/run-7")
        store.error = None
        assert response.status_code == status
        assert "secret" not in response.text


async def test_a_tag_of_a_union_that_is_not_known_is_not_repeated() -> None:
    from typing import Annotated, Literal

    from pydantic import Field

    class Cat(BaseModel):
        kind: Literal["cat"]

    class Dog(BaseModel):
        kind: Literal["dog"]

    class Pets(BaseModel):
        pet: Annotated[Cat | Dog, Field(discriminator="kind")]

    async with service([FlowBuilder("pets", Pets).start_with(lambda state: None, name="look")]) as at:
        response = await at.alice.post("/flows/pets/runs", json={"pet": {"kind": "s3cret"}})
        assert response.status_code == 422
        assert "s3cret" not in response.text
        assert "'cat', 'dog'" in response.text


def test_each_status_is_one_that_the_routes_document() -> None:
    statuses: Sequence[int] = (403, 404, 409, 413, 422, 500, 503, 507)
    assert set(STATUS.values()) <= set(statuses)
