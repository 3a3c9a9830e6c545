"""The service: flows, an engine that runs them, and an app that shows it to the shops."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse

from flowneer_async import FlowneerError, VersionStore, World
from flowneer_async.engine import Cron, Engine, Limits, Rate
from flowneer_async.fastapi import flow_router, health_router, problem_of
from flowneer_stores import PostgresStore, SqliteStore

from .auth import login_router, shop_by
from .desk import order_router
from .observing import telemetry
from .orders import order
from .outside import Outside
from .reports import of_the_night, report
from .settings import Settings

PAGE = Path(__file__).with_name("page.html")
LIMITS = {"report": Limits(concurrency=10, rate=Rate(100, per=60))}


def make_app(settings: Settings, world: World = World()) -> FastAPI:  # noqa: B008 - it is a value
    """The app; nothing is opened before it is started."""
    outside = Outside(settings.outside, settings.pace)
    store = store_at(settings.database, world)
    engine = Engine(store, [order, report], deps=outside, limits=LIMITS, telemetry=telemetry(), world=world)
    for shop in settings.tokens.values():
        nightly = Cron("0 3 * * *", zone="Europe/Berlin")
        engine.schedule(f"nightly-{shop}", report, of_the_night, nightly, missed="last", tags={"tenant": shop})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        with outside:
            async with engine.lifespan(app):
                yield

    app = FastAPI(title="Shop", lifespan=lifespan)
    shop_of = shop_by(settings.tokens)
    app.include_router(login_router(shop_of))
    app.include_router(order_router(shop_of))
    app.include_router(flow_router(engine, dependencies=[Depends(shop_of)], tenant=shop_of, starts=[report]))
    app.include_router(health_router(engine))
    app.get("/", include_in_schema=False)(page)
    app.exception_handler(FlowneerError)(told)
    return app


def app_of_environment() -> FastAPI:
    """For several processes: `uvicorn --factory examples.service.app:app_of_environment --workers 4`."""
    return make_app(Settings.from_environment())


def store_at(database: str, world: World) -> VersionStore:
    """In PostgreSQL, or a file."""
    return PostgresStore(database) if "://" in database else SqliteStore(database, now=world.now)


async def told(request: Request, error: Exception) -> Response:
    """What goes wrong in routes of our own, told as the others do."""
    assert isinstance(error, FlowneerError)
    return problem_of(error)


async def page() -> FileResponse:
    """A report in a browser, with its progress."""
    return FileResponse(PAGE, media_type="text/html")
