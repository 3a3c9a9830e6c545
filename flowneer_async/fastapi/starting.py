"""Starting a run of one flow: what is accepted is stored."""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import urljoin

from fastapi import Body, Query, Response

from flowneer_async import FlowBuilder
from flowneer_async.fastapi.asking import IdempotencyKey, digest, run_id_for, tags_of
from flowneer_async.fastapi.models import REQUEST, Accepted, StartOptions
from flowneer_async.fastapi.problems import Answered, problem
from flowneer_async.fastapi.request import Asked, FlowRequest
from flowneer_async.fastapi.types import state_hint


def starter(flow: FlowBuilder[Any]) -> Callable[..., Coroutine[Any, Any, Accepted]]:
    """The endpoint that starts runs of a flow; raises BadState where its states cannot be read from JSON."""

    async def start(
        request: Asked,
        response: Response,
        state: object,
        options: Annotated[StartOptions, Query()],
        idempotency_key: IdempotencyKey = None,
    ) -> Accepted:
        """Start a run on this state. With an Idempotency-Key, it is started once, however often this is sent."""
        tags = tags_of(request, options.tag)
        if idempotency_key is not None:
            tags[REQUEST] = await _content(request, options)
        handle = await request.engine.start(
            flow.name,
            state,
            run_id=run_id_for(request, flow.name, idempotency_key),
            tags=tags,
            key=_shared(request, options.key),
            priority=options.priority,
            deadline=options.deadline,
            delay=options.delay,
        )
        if idempotency_key is not None:
            check_same(tags[REQUEST], (await handle.run()).tags.get(REQUEST))
        return accepted(request, response, handle.run_id, flow.name, "../../runs/")

    start.__annotations__["state"] = Annotated[state_hint(flow.state_type), Body()]
    return start


def accepted(request: Asked, response: Response, run_id: str, flow: str, place: str) -> Accepted:
    """That a run was accepted; it is found at `place`, as seen from this request's own path."""
    response.headers["Location"] = urljoin(request.url.path, f"{place}{run_id}")
    return Accepted(run_id=run_id, flow=flow)


def check_same(sent: str, before: str | None) -> None:
    """Raises Answered where an Idempotency-Key was used for another request before."""
    if sent != before:
        detail = "this Idempotency-Key was used for another request: send that one again, or use a new key"
        raise Answered(problem(422, "Idempotency key reused", detail))


async def _content(request: FlowRequest, options: StartOptions) -> str:
    """A hash of what a request asks for, however it is written."""
    return digest(json.dumps(await request.json(), sort_keys=True), options.model_dump_json())


def _shared(request: FlowRequest, key: str) -> str | None:
    """The key that limits count by: no tenant shares one with another."""
    return key if request.tenant is None or not key else f"{request.tenant}/{key}"
