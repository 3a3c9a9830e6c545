"""Whether the service can accept runs, for whoever balances load."""

from fastapi import APIRouter, Response

from flowneer_async.engine import Engine
from flowneer_async.fastapi.models import HealthView


def health_router(engine: Engine, *, path: str = "/health") -> APIRouter:
    """A route that needs no authentication: 200, or 503 where the store of the engine cannot be written.

    Why it cannot is not told, for that names files and hosts.
    """
    router = APIRouter(tags=["health"])

    async def health(response: Response) -> HealthView:
        """Can the service accept runs?"""
        found = await engine.health()
        response.status_code = 200 if found.is_ok else 503
        response.headers["Cache-Control"] = "no-store"
        return HealthView(is_ok=found.is_ok, running=found.running)

    router.add_api_route(path, health, responses={503: {"model": HealthView, "description": "It cannot."}})
    return router
