"""The app keeps to its own OpenAPI, whatever it is sent: a machine that has read it tries to find where it does not."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import schemathesis
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.python import asgi

from flowneer_async.engine import Engine
from flowneer_async.fastapi import flow_router, health_router
from flowneer_stores import MemoryStore
from tests.web.service import FLOWS, Order

RUNS = ["a-report", "an-order", "one-that-asks", "one-that-failed"]
bearer = HTTPBearer()


def auth(given: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> str:
    if given.credentials != "of-alice":
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
    return "alice"


def app_with_runs() -> FastAPI:
    """An app that begins with some runs of Alice's."""
    engine = Engine(MemoryStore(), flows=FLOWS)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with engine.lifespan(app):
            states: list[tuple[str, Any]] = [("report", {}), ("order", Order("book")), ("asking", {}), ("failing", {})]
            for run_id, (flow, state) in zip(RUNS, states, strict=True):
                await engine.start(flow, state, run_id=run_id, tags={"tenant": "alice"})
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(flow_router(engine, dependencies=[Depends(auth)], tenant=auth, max_body=100_000))
    app.include_router(health_router(engine))
    return app


CONFIG = {
    "seed": 7,
    "headers": {"Authorization": "Bearer of-alice"},
    "dictionaries": {"runs": {"values": RUNS}},
    "parameters": {"path.run_id": {"dictionary": "runs", "probability": 0.5}},
    "generation": {"deterministic": True, "max-examples": 15, "database": "none"},
    "request-timeout": 1.0,
}


ALLOWED = ("Idempotency key reused", "Bad option: after")
"""What no schema can say: a key that was used for something else, and what was never the `next` of a page."""


def test_no_request_is_answered_otherwise_than_the_page_says() -> None:
    config = SchemathesisConfig.from_dict(CONFIG)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app_with_runs(), config=config)
    failures: list[str] = []
    cases = 0
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.FatalError | events.NonFatalError), event
        if isinstance(event, events.ScenarioFinished):
            cases += len(event.recorder.cases)
            failures += failed(event.recorder)
    asgi.shutdown_lifespans()
    assert "\n".join(failures) == ""
    assert cases > 500


def failed(recorder: ScenarioRecorder) -> list[str]:
    """What the page does not say, with the request and the response."""
    found: list[str] = []
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                request, response = recorder.interactions[case_id].request, recorder.interactions[case_id].response
                assert response is not None
                if said(response.content) not in ALLOWED:
                    sent = f"{request.method} {request.uri} {dict(request.headers)} {request.body!r}"
                    answer = f"{response.status_code} {response.content!r}"
                    found.append(f"{check.failure_info.failure.title}: {sent} -> {answer}")
    return found


def said(content: bytes) -> str:
    """What a problem is about."""
    with suppress(ValueError):
        problem = json.loads(content)
        is_page = problem["detail"].startswith("after=")
        return f"{problem['title']}: after" if is_page else str(problem["title"])
    return ""
