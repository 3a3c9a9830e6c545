"""Flows in a FastAPI service: routes for an engine's runs, problems for our errors, events that survive a reconnect.

app = FastAPI(lifespan=engine.lifespan)
app.include_router(flow_router(engine, dependencies=[Depends(auth)]))
app.include_router(health_router(engine))
"""

from flowneer_async.fastapi.health import health_router
from flowneer_async.fastapi.problems import problem_of
from flowneer_async.fastapi.router import flow_router, get_engine

__all__ = ["flow_router", "get_engine", "health_router", "problem_of"]
