"""The routes for an engine's flows, and the dependency that gives the engine itself."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.params import Depends as Dependency
from fastapi.sse import EventSourceResponse
from starlette.requests import HTTPConnection

from flowneer_async import BadName, BadOption, FlowBuilder, UnknownFlow
from flowneer_async.engine import Engine
from flowneer_async.fastapi.acting import cancel_run, fork_run, resume_run, signaller
from flowneer_async.fastapi.asking import tenant_of
from flowneer_async.fastapi.events import stream_events
from flowneer_async.fastapi.history import list_versions, read_diff, read_version
from flowneer_async.fastapi.models import RunDetails, RunPage, VersionDiff, VersionPage, VersionState
from flowneer_async.fastapi.problems import documented
from flowneer_async.fastapi.request import check_body, route_class
from flowneer_async.fastapi.runs import list_runs, read_run, state_reader
from flowneer_async.fastapi.starting import starter
from flowneer_async.fastapi.types import shown_hint

_RUN = "/runs/{run_id}"
_FOUND = (404, 409)
_BODY = (400, 413, 415, 507)


def flow_router(
    engine: Engine,
    *,
    dependencies: Sequence[Dependency] = (),
    allow_anonymous: bool = False,
    tenant: Callable[..., object] | None = None,
    starts: Sequence[FlowBuilder[Any] | str] | None = None,
    prefix: str = "",
    max_body: int = 1_000_000,
) -> APIRouter:
    """Routes to start, watch and steer the runs of an engine: `app.include_router(flow_router(engine, …))`.

    `dependencies` say who may: `[Depends(auth)]`. `tenant` is a dependency that gives the tenant of the caller, a text:
    then every run belongs to the tenant that started it (its tag "tenant"), and for all others there is no such run.
    Without it all callers share their runs, and their Idempotency-Keys. `starts` are the flows that may be started here
    (by default all): others have routes of your own for that. A body may have `max_body` bytes.

    Raises BadOption where there are no dependencies, unless `allow_anonymous=True` is written out; BadName where a
    flow or a signal has a name that cannot stand in a path; BadState where the states of one that may be started cannot
    be read from JSON; UnknownFlow.
    """
    if not dependencies and not allow_anonymous:
        raise BadOption(
            "dependencies", [], "say who may use the routes, [Depends(auth)], or write out allow_anonymous=True"
        )
    caller = [] if tenant is None else [Depends(tenant_of(tenant))]
    router = APIRouter(
        prefix=prefix,
        # In this order: a body that cannot be used is spoken of only to those who may use the routes.
        dependencies=[*dependencies, *caller, Depends(check_body)],
        route_class=route_class(engine, max_body),
        responses={} if allow_anonymous else {401: {"description": "Who asks?"}, 403: {"description": "They may not."}},
    )
    for name in _started(engine, starts):
        _add_start(router, engine.flows[name])
    for flow in engine.flows.values():
        _add_flow(router, flow)
    _add_runs(router)
    return router


def get_engine(connection: HTTPConnection) -> Engine:
    """The engine of an app with `lifespan=engine.lifespan`, as a dependency: `Annotated[Engine, Depends(get_engine)]`.

    Raises BadOption where the app has none.
    """
    engine = getattr(connection.app.state, "engine", None)
    if not isinstance(engine, Engine):
        raise BadOption("lifespan", None, "the app has no engine: FastAPI(lifespan=engine.lifespan)")
    return engine


def _started(engine: Engine, starts: Sequence[FlowBuilder[Any] | str] | None) -> list[str]:
    """The names of the flows that may be started; raises UnknownFlow."""
    names = list(engine.flows) if starts is None else [each if isinstance(each, str) else each.name for each in starts]
    for name in names:
        if name not in engine.flows:
            raise UnknownFlow(name, tuple(engine.flows))
    return names


def _add_start(router: APIRouter, flow: FlowBuilder[Any]) -> None:
    _post(router, _runs_of(flow), starter(flow), flow.name, f"Start a run of {flow.name}", (409, *_BODY))


def _add_flow(router: APIRouter, flow: FlowBuilder[Any]) -> None:
    """What differs from flow to flow: its states and its signals."""
    path, name = _runs_of(flow), flow.name
    state = shown_hint(flow.state_type)
    _get(router, path + "/{run_id}/state", state_reader(flow), state, name, f"The state of a run of {name}")
    for signal, schemas in flow.signals.items():
        place = path + "/{run_id}/signals/" + _in_path("signal", signal)
        _post(router, place, signaller(flow, signal, schemas), name, f"Send {signal} to a run of {name}")


def _runs_of(flow: FlowBuilder[Any]) -> str:
    return f"/flows/{_in_path('flow', flow.name)}/runs"


def _add_runs(router: APIRouter) -> None:
    """What is the same for the runs of all flows."""
    _get(router, "/runs", list_runs, RunPage, statuses=())
    _get(router, _RUN, read_run, RunDetails)
    _get(router, f"{_RUN}/versions", list_versions, VersionPage)
    _get(router, f"{_RUN}/versions/{{seq}}", read_version, VersionState)
    _get(router, f"{_RUN}/versions/{{seq}}/diff", read_diff, VersionDiff)
    _post(router, f"{_RUN}/resume", resume_run)
    _post(router, f"{_RUN}/forks", fork_run)
    _post(router, f"{_RUN}/cancel", cancel_run, statuses=_FOUND)
    router.add_api_route(
        f"{_RUN}/events",
        stream_events,
        response_class=EventSourceResponse,
        responses={204: {"description": "There will be no more."}, **documented(*_FOUND)},
        tags=["runs"],
    )


def _get(
    router: APIRouter,
    path: str,
    endpoint: Callable[..., object],
    model: Any,
    tag: str = "runs",
    summary: str | None = None,
    statuses: Sequence[int] = _FOUND,
) -> None:
    responses = documented(*statuses)
    router.add_api_route(path, endpoint, response_model=model, responses=responses, tags=[tag], summary=summary)


def _post(
    router: APIRouter,
    path: str,
    endpoint: Callable[..., object],
    tag: str = "runs",
    summary: str | None = None,
    statuses: Sequence[int] = (*_FOUND, *_BODY),
) -> None:
    """What is accepted, and done in its own time."""
    router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        status_code=202,
        responses=documented(*statuses),
        tags=[tag],
        summary=summary,
    )


def _in_path(kind: str, name: str) -> str:
    """The name as a part of a path; raises BadName."""
    if any(sign in name for sign in "/?#%{}\\") or name in (".", ".."):
        raise BadName(kind, name, "it stands in a path here, and so has none of / ? # % { } \\: rename it")
    return name
