"""What the routes are asked about: a run of the caller's, and who the caller is."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Annotated, Any, TypeAlias

import orjson
from fastapi import Depends, Header, Path
from pydantic import Field, StringConstraints

from flowneer_async import BadOption, FlowBuilder, Run, UnknownFlow, UnknownRun
from flowneer_async.fastapi.models import REQUEST, TENANT, Unset
from flowneer_async.fastapi.problems import Answered, problem
from flowneer_async.fastapi.request import Asked

RunId: TypeAlias = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")]
Number: TypeAlias = Annotated[int, Field(ge=0, lt=10**18)]
Seq: TypeAlias = Annotated[Number, Path()]
IdempotencyKey: TypeAlias = Annotated[
    Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")] | Unset,
    Header(description="The same request with the same key is done once, however often it is sent."),
]


def tenant_of(tenant: Callable[..., object]) -> Callable[..., Awaitable[None]]:
    """A dependency that notes on whose behalf a request is, as the user's own dependency `tenant` says."""

    async def note(request: Asked, caller: object = Depends(tenant)) -> None:
        if not (isinstance(caller, str) and caller):
            raise Answered(problem(403, "No tenant", "the caller belongs to no tenant"))
        request.tenant = caller

    return note


async def asked_run(request: Asked, run_id: RunId) -> Run:
    """The run that a path names; raises UnknownRun where there is none, or it is another tenant's."""
    run = await request.engine.store.read(run_id)
    if request.tenant is not None and run.tags.get(TENANT) != request.tenant:
        raise UnknownRun(run_id)
    return run


AskedRun: TypeAlias = Annotated[Run, Depends(asked_run)]


def flow_of(request: Asked, run: Run) -> FlowBuilder[Any]:
    """The flow of a run; raises UnknownFlow."""
    flow = request.engine.flows.get(run.flow)
    if flow is None:
        raise UnknownFlow(run.flow, tuple(request.engine.flows))
    return flow


def tags_of(request: Asked, given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The tags of a new run, with that of its tenant; raises BadOption for one that is not the client's to give."""
    tags = dict(given)
    for name in (TENANT, REQUEST):
        if name in tags:
            raise BadOption("tag", name, "a tag of this name is the service's own: use another")
    return tags if request.tenant is None else {**tags, TENANT: request.tenant}


def pairs(tags: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Tags as they are written in a query, `name:value`."""
    for tag in tags:
        name, _, value = tag.partition(":")
        yield name, value


def run_id_for(request: Asked, what: str, key: str | None) -> str | None:
    """The id of the run that an Idempotency-Key stands for, to this tenant and for `what`; None without a key."""
    return None if key is None else f"key-{digest(request.tenant, what, key)}"


def digest(*parts: object) -> str:
    """32 hex digits that other parts do not have."""
    return blake2b(orjson.dumps(parts), digest_size=16).hexdigest()
