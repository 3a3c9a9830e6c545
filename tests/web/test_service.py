"""An engine in an application: its lifespan, its dependency, its health; and in one of Starlette alone."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from flowneer_async import BadOption, Lease, Run, StoreFull, Version
from flowneer_async.engine import Engine
from flowneer_async.fastapi import flow_router, get_engine, health_router
from flowneer_stores import MemoryStore, SqliteStore
from tests.web.service import FLOWS, client_of, page, service


async def test_a_handler_of_the_users_own_is_given_the_engine() -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)
    app = FastAPI(lifespan=engine.lifespan)

    @app.post("/words")
    async def words(url: str, given: Annotated[Engine, Depends(get_engine)]) -> dict[str, object]:
        handle = await given.start("report", {"url": url})
        return (await handle.result()).state  # type: ignore[return-value]

    async with engine.lifespan(app), client_of(app) as nobody:
        assert (await nobody.post("/words?url=abc")).json() == {"url": "abc", "pages": 3}


async def test_the_lifespan_may_stand_within_another() -> None:
    engine, order = Engine(MemoryStore(), flows=FLOWS), list[str]()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        order.append("begin")
        async with engine.lifespan(app):
            yield
        order.append("end")

    app = FastAPI(lifespan=lifespan)
    app.include_router(flow_router(engine, allow_anonymous=True))
    async with app.router.lifespan_context(app), client_of(app) as nobody:
        assert (await nobody.post("/flows/report/runs", json={})).status_code == 202
        assert get_engine(Request({"type": "http", "app": app})) is engine
    assert order == ["begin", "end"]


async def test_an_app_without_an_engine_says_so() -> None:
    with pytest.raises(BadOption, match=r"FastAPI\(lifespan=engine.lifespan\)"):
        get_engine(Request({"type": "http", "app": FastAPI()}))


async def test_the_store_is_opened_and_closed_with_the_app(tmp_path: Path) -> None:
    for number in range(2):
        async with service(store=SqliteStore(tmp_path / "runs.db")) as at:
            await at.started("page", {"url": "abc"})
            assert len((await at.alice.get("/runs")).json()["runs"]) == number + 1


async def test_starlette_alone_will_do() -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)

    async def start(request: Request) -> JSONResponse:
        handle = await request.app.state.engine.start(page, await _page(request))
        result = await handle.result()
        return JSONResponse({"words": result.state.words, "run": handle.run_id}, 202)

    app = Starlette(routes=[Route("/pages", start, methods=["POST"])], lifespan=engine.lifespan)
    async with app.router.lifespan_context(app), client_of(app) as nobody:
        response = await nobody.post("/pages", json={"url": "abc"})
        assert (response.status_code, response.json()["words"]) == (202, 3)


async def _page(request: Request) -> object:
    from tests.web.service import Page

    return Page.model_validate(await request.json())


# Health ---------------------------------------------------------------------------------------------------------------


class Full(MemoryStore):
    async def create(self, run: Run, versions: tuple[Version, ...] = ()) -> Lease | None:  # type: ignore[override]
        raise StoreFull("/secret/runs.db")


async def test_a_service_that_can_accept_runs_is_well_and_anybody_may_ask() -> None:
    async with service() as at:
        response = await at.nobody.get("/health")
        assert (response.status_code, response.json()) == (200, {"is_ok": True, "running": 0})
        assert response.headers["cache-control"] == "no-store"


async def test_a_service_whose_store_cannot_be_written_is_not_and_does_not_say_why() -> None:
    async with service(store=Full()) as at:
        response = await at.nobody.get("/health")
        assert (response.status_code, response.json()) == (503, {"is_ok": False, "running": 0})


async def test_a_service_that_stops_is_not_well_any_more() -> None:
    async with service() as at:
        at.engine.stop()
        assert (await at.nobody.get("/health")).status_code == 503


async def test_health_may_be_asked_elsewhere() -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(health_router(engine, path="/livez"))
    async with engine.lifespan(app), client_of(app) as nobody:
        assert (await nobody.get("/livez")).status_code == 200
