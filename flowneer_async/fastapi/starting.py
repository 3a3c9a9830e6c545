"""Starting a run of one flow: what is accepted is stored."""

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any
from urllib.parse import urljoin

from fastapi import Body, Query, Response
from pydantic import BaseModel

from flowneer_async import FlowBuilder
from flowneer_async.engine import Handle
from flowneer_async.fastapi.asking import IdempotencyKey, digest, pairs, run_id_for, tags_of
from flowneer_async.fastapi.models import REQUEST, Accepted, StartQuery
from flowneer_async.fastapi.problems import Answered, problem
from flowneer_async.fastapi.request import Asked, FlowRequest
from flowneer_async.fastapi.types import state_hint


def starter(flow: FlowBuilder[Any]) -> Callable[..., Coroutine[Any, Any, Accepted]]:
    """The endpoint that starts runs of a flow; raises BadState where its states cannot be read from JSON."""

    async def start(
        request: Asked,
        response: Response,
        state: object,
        options: Annotated[StartQuery, Query()],
        idempotency_key: IdempotencyKey = None,
    ) -> Accepted:
        """Start a run on this state. With an Idempotency-Key, it is started once, however often this is sent."""
        tags = tags_of(request, pairs(options.tag))
        tags |= await mark(request, idempotency_key, options)
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
        await check_mark(handle, tags)
        return accepted(request, response, handle.run_id, flow.name, "../../runs/")

    start.__annotations__["state"] = Annotated[state_hint(flow.state_type), Body()]
    return start


def accepted(request: Asked, response: Response, run_id: str, flow: str, place: str) -> Accepted:
    """That a run was accepted; it is found at `place`, as seen from this request's own path."""
    response.headers["Location"] = urljoin(request.url.path, f"{place}{run_id}")
    return Accepted(run_id=run_id, flow=flow)


async def mark(request: FlowRequest, key: str | None, options: BaseModel) -> dict[str, str]:
    """The tag of a run that is started under an Idempotency-Key: a hash of what is asked for, however it is written."""
    if key is None:
        return {}
    return {REQUEST: digest(json.dumps(await request.json(), sort_keys=True), options.model_dump_json())}


async def check_mark(handle: Handle[Any], tags: Mapping[str, str]) -> None:
    """Raises Answered where the run was started before, by another request with the same Idempotency-Key."""
    if REQUEST in tags and (await handle.run()).tags.get(REQUEST) != tags[REQUEST]:
        detail = "this Idempotency-Key was used for another request: send that one again, or use a new key"
        raise Answered(problem(422, "Idempotency key reused", detail))


def _shared(request: FlowRequest, key: str) -> str | None:
    """The key that limits count by: no tenant shares one with another."""
    return key if request.tenant is None or not key else f"{request.tenant}/{key}"
