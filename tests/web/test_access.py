"""Who may use the routes, and which runs they see."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from fastapi.routing import APIRoute

from flowneer_async import BadOption
from flowneer_async.engine import Engine
from flowneer_async.fastapi import flow_router
from flowneer_stores import MemoryStore
from tests.web.service import FLOWS, Service, app_of, auth, client_of, service

BODIES: dict[str, Any] = {
    "/flows/order/runs": {"item": "book"},
    "/flows/ticket/runs": {"title": "x"},
    "/flows/job/runs": {"what": "x"},
    "/flows/page/runs": {"url": "x"},
    "/flows/order/runs/{run_id}/signals/approved": {"by": "me"},
    "/runs/{run_id}/forks": {"seq": 0},
}
"""What is sent where more is needed than `{}`."""


def routes() -> Iterator[tuple[str, str]]:
    """The method and the path of every route, so that a new one cannot be forgotten."""
    router = flow_router(Engine(MemoryStore(), flows=FLOWS), allow_anonymous=True)
    for route in router.routes:
        assert isinstance(route, APIRoute)
        for method in route.methods or ():
            yield method, route.path


ROUTES = sorted(routes())
OF_A_RUN = [(method, path) for method, path in ROUTES if "{run_id}" in path]


def sent(client: httpx.AsyncClient, method: str, path: str, run_id: str) -> Any:
    content = {"json": BODIES.get(path, {})} if method == "POST" else {}
    return client.request(method, path.format(run_id=run_id, seq=0), **content)


def flow_in(path: str) -> str:
    return path.split("/")[2] if path.startswith("/flows/") else "order"


async def a_run(at: Service, path: str) -> str:
    flow = flow_in(path)
    return await at.started(flow, BODIES.get(f"/flows/{flow}/runs", {}), "completed", "failed", "waiting")


# Authentication -------------------------------------------------------------------------------------------------------


def test_a_router_without_a_word_on_who_may_use_it_is_not_made() -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)
    with pytest.raises(BadOption, match=r"Depends\(auth\).*allow_anonymous=True"):
        flow_router(engine)
    assert flow_router(engine, allow_anonymous=True).routes


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_asks_who_it_is(method: str, path: str) -> None:
    async with service() as at:
        response = await sent(at.nobody, method, path, await a_run(at, path))
        assert (response.status_code, response.json()) == (401, {"detail": "Unauthorized"})
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "request_",
    [
        {"json": {"item": 7}},
        {"json": {}, "params": {"speed": 1}},
        {"content": b"{"},
        {"content": b"{", "headers": {"content-type": "application/json"}},
        {"content": b"1" * 1_000_000, "headers": {"content-type": "application/json"}},
    ],
)
async def test_nobody_is_told_what_is_wrong_with_their_request(request_: dict[str, Any]) -> None:
    async with service() as at:
        assert (await at.nobody.post("/flows/order/runs", **request_)).status_code == 401


async def test_a_dependency_of_the_include_comes_first_too() -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)
    app, outer = FastAPI(lifespan=engine.lifespan), APIRouter()
    outer.include_router(flow_router(engine, allow_anonymous=True))
    app.include_router(outer, dependencies=[Depends(auth)])
    async with engine.lifespan(app), client_of(app) as nobody:
        assert (await nobody.post("/flows/order/runs", content=b"{")).status_code == 401


async def test_what_the_users_own_dependency_answers_is_not_touched() -> None:
    def never() -> None:
        raise HTTPException(403, "not you", {"X-Why": "because"})

    engine = Engine(MemoryStore(), flows=FLOWS)
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(flow_router(engine, dependencies=[Depends(never)]))
    async with engine.lifespan(app), client_of(app) as nobody:
        response = await nobody.get("/runs")
        assert (response.status_code, response.json(), response.headers["x-why"]) == (
            403,
            {"detail": "not you"},
            "because",
        )


# Tenants --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), OF_A_RUN)
async def test_another_tenants_run_is_as_unknown_as_one_that_there_is_not(method: str, path: str) -> None:
    async with service() as at:
        theirs = await a_run(at, path)
        response, none = [await sent(at.bob, method, path, run_id) for run_id in (theirs, "none")]
        assert (response.status_code, none.status_code) == (404, 404)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.text == none.text.replace("none", theirs)
        assert dict(response.headers) | {"content-length": ""} == dict(none.headers) | {"content-length": ""}


@pytest.mark.parametrize(("method", "path"), OF_A_RUN)
async def test_the_tenants_own_run_is_found(method: str, path: str) -> None:
    async with service() as at:
        run_id = await a_run(at, path)
        if path.endswith("/events"):
            await at.engine.cancel(run_id)  # else they do not end
        response = await sent(at.alice, method, path, run_id)
        assert response.status_code in (200, 202), response.text


async def test_a_run_of_no_tenant_is_nobodys() -> None:
    async with service() as at:
        handle = await at.engine.start("report", {})
        for client in (at.alice, at.bob):
            assert (await client.get(f"/runs/{handle.run_id}")).status_code == 404


async def test_a_fork_belongs_to_the_tenant_that_made_it() -> None:
    async with service() as at:
        run_id = await at.started("report", {})
        fork = (await at.alice.post(f"/runs/{run_id}/forks", json={"seq": 0})).json()["run_id"]
        assert (await at.alice.get(f"/runs/{fork}")).status_code == 200
        assert (await at.bob.get(f"/runs/{fork}")).status_code == 404


async def test_the_tag_of_a_tenant_cannot_be_forged_with_a_fork() -> None:
    async with service() as at:
        run_id = await at.started("report", {})
        response = await at.alice.post(f"/runs/{run_id}/forks", json={"seq": 0, "tags": {"tenant": "bob"}})
        assert response.status_code == 422


@pytest.mark.parametrize("tenant", ["", None, 7])
async def test_a_caller_without_a_tenant_sees_nothing(tenant: object) -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(flow_router(engine, dependencies=[Depends(auth)], tenant=lambda: tenant))
    async with engine.lifespan(app), client_of(app, "Bearer of-alice") as alice:
        response = await alice.get("/runs")
        assert (response.status_code, response.json()["title"]) == (403, "No tenant")


async def test_a_tenant_may_come_from_any_dependency() -> None:
    async def tenant(who: str = Depends(auth), x_shop: str = Header()) -> str:
        return f"{who}/{x_shop}"

    engine = Engine(MemoryStore(), flows=FLOWS)
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(flow_router(engine, dependencies=[Depends(auth)], tenant=tenant))
    async with engine.lifespan(app), client_of(app, "Bearer of-alice") as alice:
        run_id = (await alice.post("/flows/report/runs", json={}, headers={"X-Shop": "a"})).json()["run_id"]
        found = [(await alice.get(f"/runs/{run_id}", headers={"X-Shop": shop})).status_code for shop in "ab"]
        assert found == [200, 404]
        assert (await alice.get(f"/runs/{run_id}")).status_code == 422


async def test_without_tenants_all_who_may_use_the_routes_share_their_runs() -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(flow_router(engine, dependencies=[Depends(auth)]))
    async with engine.lifespan(app), client_of(app, "Bearer of-alice") as alice, client_of(app, "Bearer of-bob") as bob:
        accepted = await alice.post("/flows/report/runs", json={})
        assert (await bob.get(accepted.headers["location"])).status_code == 200


def test_the_tests_of_access_see_every_route() -> None:
    paths = app_of(Engine(MemoryStore(), flows=FLOWS)).openapi()["paths"]
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert set(ROUTES) == documented - {("GET", "/health")}
