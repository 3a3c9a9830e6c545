"""The versions of a run: which there are, the state at each, and what each changed."""

from typing import Annotated, Any, cast

import orjson
from fastapi import Query, Response
from pydantic_core import to_json

from flowneer_async import Run
from flowneer_async.fastapi.asking import AskedRun, Seq, flow_of
from flowneer_async.fastapi.models import VersionPage, VersionQuery, VersionView
from flowneer_async.fastapi.request import Asked, FlowRequest
from flowneer_async.fastapi.writing import plain, written


async def list_versions(request: Asked, run: AskedRun, options: Annotated[VersionQuery, Query()]) -> VersionPage:
    """The versions of a run, the oldest first. One that changed nothing is there as a marker."""
    last = options.after + options.limit
    found = await request.engine.store.versions(run.run_id, options.after + 1, last)
    return VersionPage(versions=[VersionView.of(each) for each in found], next=last if last < run.head else None)


async def read_version(request: Asked, run: AskedRun, seq: Seq) -> Response:
    """A version of a run, and the state it stood for."""
    snapshot = await flow_of(request, run).resolve(f"{run.run_id}@{seq}")
    (version,) = await request.engine.store.versions(run.run_id, seq, seq)
    view = orjson.Fragment(VersionView.of(version).model_dump_json())
    body = orjson.dumps({"version": view, "state": orjson.Fragment(written(snapshot.state))})
    return Response(body, media_type="application/json")


async def read_diff(request: Asked, run: AskedRun, seq: Seq) -> Response:
    """What a version changed in the state; of the first one, all that was there."""
    after = await _items(request, run, seq)
    before = await _items(request, run, seq - 1) if seq else {}
    changed = {key: orjson.Fragment(text) for key, text in after.items() if before.get(key) != text}
    found = {
        "version": f"{run.run_id}@{seq}",
        "parent": f"{run.run_id}@{seq - 1}" if seq else run.fork_of,
        "changed": changed,
        "removed": [key for key in before if key not in after],
    }
    return Response(orjson.dumps(found), media_type="application/json")


async def _items(request: FlowRequest, run: Run, seq: int) -> dict[str, bytes]:
    """The JSON of each key of the state at a version."""
    snapshot = await flow_of(request, run).resolve(f"{run.run_id}@{seq}")
    return {key: to_json(value) for key, value in cast(dict[str, Any], plain(snapshot.state)).items()}
