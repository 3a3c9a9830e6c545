"""Starting runs over HTTP."""

import asyncio
from dataclasses import dataclass

import pytest
from fastapi import Depends, FastAPI

from flowneer_async import BadState, FlowBuilder, UnknownFlow
from flowneer_async.engine import Engine
from flowneer_async.fastapi import flow_router
from flowneer_stores import MemoryStore
from tests.web.service import FLOWS, Order, Page, auth, client_of, count, report, service

NEW = {"item": "book"}


async def test_a_start_is_accepted_and_says_where_the_run_is() -> None:
    async with service() as at:
        response = await at.alice.post("/flows/order/runs", json=NEW)
        assert response.status_code == 202
        assert response.json()["flow"] == "order"
        assert response.headers["location"] == f"/runs/{response.json()['run_id']}"
        assert (await at.alice.get(response.headers["location"])).json()["run_id"] == response.json()["run_id"]


async def test_the_location_has_the_prefixes_of_the_app_and_of_whoever_stands_before_it() -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(flow_router(engine, dependencies=[Depends(auth)], prefix="/v1"), prefix="/api")
    async with engine.lifespan(app), client_of(app, "Bearer of-alice", root_path="/shop") as alice:
        response = await alice.post("/shop/api/v1/flows/report/runs", json={})
        location = response.headers["location"]
        assert location == f"/shop/api/v1/runs/{response.json()['run_id']}"
        assert (await alice.get(location)).status_code == 200


async def test_a_run_that_was_accepted_is_run_with_the_state_that_was_sent() -> None:
    async with service() as at:
        run_id = await at.started("page", {"url": "abc"})
        assert (await at.alice.get(f"/flows/page/runs/{run_id}/state")).json() == {"url": "abc", "words": 3}


@pytest.mark.parametrize(
    ("flow", "state", "place"),
    [
        ("order", {"item": 7}, ["body", "item"]),
        ("ticket", {}, ["body", "title"]),
        ("page", {"words": 1}, ["body", "url"]),
        ("job", {"what": 7}, ["body"]),
        ("report", [], ["body"]),
    ],
)
async def test_a_state_that_is_not_of_the_flows_type_is_refused_with_its_place(
    flow: str, state: object, place: list[str]
) -> None:
    async with service() as at:
        response = await at.alice.post(f"/flows/{flow}/runs", json=state)
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
        assert [each["loc"] for each in response.json()["errors"]] == [place]


async def test_what_is_not_valid_is_not_repeated() -> None:
    async with service() as at:
        for flow, state in (("order", {"item": ["s3cret"]}), ("job", {"what": {"s3cret": 1}}), ("report", "s3cret")):
            response = await at.alice.post(f"/flows/{flow}/runs", json=state)
            assert (response.status_code, "s3cret" in response.text) == (422, False)


async def test_options_of_a_start_reach_the_run() -> None:
    async with service() as at:
        query = {"key": "k", "priority": 3, "delay": 3600, "tag": ["team:books", "odd:a:b"]}
        run_id = (await at.alice.post("/flows/report/runs", json={}, params=query)).json()["run_id"]
        run = await at.engine.store.read(run_id)
        assert (run.key, run.priority, run.status) == ("report/alice/k", 3, "waiting")
        assert run.wake is not None
        assert run.wake - run.created == pytest.approx(3_600_000, abs=1000)
        assert {name: run.tags[name] for name in ("team", "odd")} == {"team": "books", "odd": "a:b"}


@pytest.mark.parametrize(
    "query",
    [
        "delay=-1",
        "delay=1e99",
        "delay=nan",
        "deadline=0",
        "priority=9999999999",
        "tag=x",
        "tag=:x",
        "tag=@parent:x",
        "tag=a%00:x",
        "key=%00",
        "speed=1",
    ],
)
async def test_options_that_make_no_sense_are_refused(query: str) -> None:
    async with service() as at:
        response = await at.alice.post(f"/flows/report/runs?{query}", json={})
        assert (response.status_code, response.json()["type"]) == (422, "urn:flowneer-async:not-valid")


@pytest.mark.parametrize("name", ["tenant", "http.request"])
async def test_tags_that_are_the_services_own_cannot_be_given(name: str) -> None:
    async with service() as at:
        response = await at.alice.post("/flows/report/runs", json={}, params={"tag": f"{name}:bob"})
        assert (response.status_code, response.json()["title"]) == (422, "Bad option")


# Idempotency-Key ------------------------------------------------------------------------------------------------------


async def test_the_same_request_with_the_same_key_is_the_same_run() -> None:
    async with service() as at:
        key = {"Idempotency-Key": "7"}
        sent = [at.alice.post("/flows/order/runs", json=NEW, headers=key) for _ in range(5)]
        responses = await asyncio.gather(*sent)
        assert {response.status_code for response in responses} == {202}
        assert len({response.json()["run_id"] for response in responses}) == 1
        assert len((await at.alice.get("/runs")).json()["runs"]) == 1


async def test_a_body_that_is_only_written_otherwise_is_the_same() -> None:
    async with service() as at:
        headers = {"Idempotency-Key": "7", "Content-Type": "application/json"}
        bodies = [b'{"a": 1, "b": [2]}', b'{"b":[2],"a":1}']
        responses = [await at.alice.post("/flows/report/runs", content=body, headers=headers) for body in bodies]
        assert [response.status_code for response in responses] == [202, 202]


async def test_another_request_with_the_same_key_is_refused() -> None:
    async with service() as at:
        key = {"Idempotency-Key": "7"}
        await at.alice.post("/flows/report/runs", json={"a": 1}, headers=key)
        for body, query in (({"a": 2}, ""), ({"a": 1.0}, ""), ({"a": True}, ""), ({"a": 1}, "?priority=1")):
            response = await at.alice.post(f"/flows/report/runs{query}", json=body, headers=key)
            assert (response.status_code, response.json()["title"]) == (422, "Idempotency key reused")


async def test_a_key_means_something_else_to_another_tenant_and_to_another_flow() -> None:
    async with service() as at:
        key = {"Idempotency-Key": "7"}
        responses = [
            await at.alice.post("/flows/report/runs", json={}, headers=key),
            await at.bob.post("/flows/report/runs", json={}, headers=key),
            await at.alice.post("/flows/failing/runs", json={}, headers=key),
        ]
        assert len({response.json()["run_id"] for response in responses}) == 3


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    async with service() as at:
        response = await at.alice.post("/flows/report/runs", json={}, headers={"Idempotency-Key": key})
        assert response.status_code == 422


async def test_what_is_not_started_leaves_the_key_free() -> None:
    async with service() as at:
        key = {"Idempotency-Key": "7"}
        assert (await at.alice.post("/flows/page/runs", json={}, headers=key)).status_code == 422
        assert (await at.alice.post("/flows/page/runs", json={"url": "x"}, headers=key)).status_code == 202


# What cannot be offered -----------------------------------------------------------------------------------------------


async def test_an_app_that_is_not_at_work_accepts_nothing() -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)
    app = FastAPI()
    app.include_router(flow_router(engine, allow_anonymous=True))
    async with client_of(app) as nobody:
        response = await nobody.post("/flows/report/runs", json={})
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["type"] == "urn:flowneer-async:engine-stopped"


async def test_a_flow_of_a_subclass_of_a_models_type_is_started_as_it_is() -> None:
    class Longer(Page):
        more: int = 1

    async with service([FlowBuilder("longer", Longer).start_with(count)]) as at:
        run_id = await at.started("longer", {"url": "ab", "more": 2})
        state = (await at.alice.get(f"/flows/longer/runs/{run_id}/state")).json()
        assert state == {"url": "ab", "words": 2, "more": 2}


async def test_only_the_flows_that_are_named_may_be_started() -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(flow_router(engine, allow_anonymous=True, starts=[report, "page"]))
    starts = {path for path in app.openapi()["paths"] if path.endswith("/runs") and path.startswith("/flows/")}
    assert starts == {"/flows/report/runs", "/flows/page/runs"}
    async with engine.lifespan(app), client_of(app) as nobody:
        assert (await nobody.post("/flows/order/runs", json=NEW)).status_code == 404
        handle = await engine.start("order", Order("book"))
        assert (await nobody.get(f"/flows/order/runs/{handle.run_id}/state")).json()["item"] == "book"


def test_a_flow_that_the_engine_does_not_have_cannot_be_named() -> None:
    with pytest.raises(UnknownFlow):
        flow_router(Engine(MemoryStore(), flows=FLOWS), allow_anonymous=True, starts=["other"])


async def test_a_flow_whose_states_cannot_be_read_from_json_may_be_watched() -> None:
    class Odd:
        pass

    @dataclass
    class Holds:
        number: int = 1
        odd: Odd | None = None

    flow = FlowBuilder("holds", Holds).start_with(lambda state: None, name="look")
    engine = Engine(MemoryStore(), flows=[flow])
    with pytest.raises(BadState, match="read from JSON"):
        flow_router(engine, allow_anonymous=True)
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(flow_router(engine, allow_anonymous=True, starts=[]))
    async with engine.lifespan(app), client_of(app) as nobody:
        handle = await engine.start("holds", Holds())
        assert (await nobody.get(f"/flows/holds/runs/{handle.run_id}/state")).json() == {"number": 1, "odd": None}
