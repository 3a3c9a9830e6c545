"""Runs: finding them, and how each stands."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Query, Response

from flowneer_async import FlowBuilder, Run, RunFilter, UnknownRun
from flowneer_async.fastapi.asking import AskedRun, Number, flow_of, pairs, tags_of
from flowneer_async.fastapi.models import FindQuery, RunDetails, RunPage, Unset
from flowneer_async.fastapi.request import Asked
from flowneer_async.fastapi.writing import written
from flowneer_async.store import EVERY_STATUS


async def list_runs(request: Asked, options: Annotated[FindQuery, Query()]) -> RunPage:
    """Runs, the newest first."""
    status = frozenset(options.status) or EVERY_STATUS
    runs = RunFilter(status=status, flow=options.flow, tags=tags_of(request, pairs(options.tag)))
    return RunPage.of(await request.engine.store.find(runs, options.limit, options.after))


async def read_run(request: Asked, run: AskedRun) -> RunDetails:
    """How a run stands, and what it waits for."""
    is_waiting = run.status == "waiting"
    waits = await flow_of(request, run).waiting_for(run.run_id) if is_waiting else ()
    return RunDetails.with_waits(run, waits)


def state_reader(flow: FlowBuilder[Any]) -> Callable[..., Coroutine[Any, Any, Response]]:
    """The endpoint that gives the states of the runs of a flow."""

    async def read_state(run: AskedRun, seq: Annotated[Number | Unset, Query()] = None) -> Response:
        """The state of a run as it was last stored, or as it was at version number `seq`."""
        check_flow(flow, run)
        at = max(run.head, 0) if seq is None else seq
        snapshot = await flow.resolve(f"{run.run_id}@{at}")
        return Response(written(snapshot.state), media_type="application/json")

    return read_state


def check_flow(flow: FlowBuilder[Any], run: Run) -> None:
    """Raises UnknownRun where a run is another flow's: under the path of this one there is none."""
    if run.flow != flow.name:
        raise UnknownRun(run.run_id)
