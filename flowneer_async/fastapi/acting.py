"""What can be done to a run: signal, resume, fork and cancel it."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import Body, Response

from flowneer_async import FlowBuilder
from flowneer_async.engine import NO_ANSWER
from flowneer_async.fastapi.asking import AskedRun, IdempotencyKey, flow_of, run_id_for, tags_of
from flowneer_async.fastapi.models import Accepted, Cancelled, ForkBody, ResumeBody
from flowneer_async.fastapi.request import Asked
from flowneer_async.fastapi.runs import check_flow
from flowneer_async.fastapi.starting import accepted, check_mark, mark
from flowneer_async.fastapi.types import payload_hint


def signaller(
    flow: FlowBuilder[Any], name: str, schemas: Sequence[object]
) -> Callable[..., Coroutine[Any, Any, Accepted]]:
    """The endpoint that sends the runs of a flow one of the signals that it waits for."""

    async def signal(request: Asked, response: Response, run: AskedRun, payload: object = None) -> Accepted:
        """Send a run this signal: it is kept until the run waits for it."""
        check_flow(flow, run)
        await request.engine.signal(run.run_id, name, payload)
        return accepted(request, response, run.run_id, flow.name, "../../../../../runs/")

    hint = payload_hint(schemas)
    signal.__annotations__["payload"] = Annotated[hint, Body()]
    if hint is not object:
        signal.__defaults__ = None
    return signal


async def resume_run(request: Asked, response: Response, run: AskedRun, body: ResumeBody | None = None) -> Accepted:
    """Let a run go on that has failed, was cancelled, or waits for the answer that this brings."""
    flow_of(request, run)
    given = body or ResumeBody()
    answer = given.answer if "answer" in given.model_fields_set else NO_ANSWER
    await request.engine.resume(run.run_id, answer=answer, at=given.at)
    return accepted(request, response, run.run_id, run.flow, "../")


async def fork_run(
    request: Asked, response: Response, run: AskedRun, body: ForkBody, idempotency_key: IdempotencyKey = None
) -> Accepted:
    """Begin a new run with the state that this one had at a version."""
    flow_of(request, run)
    tags = tags_of(request, body.tags.items())
    tags |= await mark(request, idempotency_key, body)
    run_id = run_id_for(request, f"fork of {run.run_id}", idempotency_key)
    handle = await request.engine.fork(f"{run.run_id}@{body.seq}", run_id=run_id, tags=tags)
    await check_mark(handle, tags)
    return accepted(request, response, handle.run_id, run.flow, "../")


async def cancel_run(request: Asked, run: AskedRun) -> Cancelled:
    """Cancel a run, and its children."""
    return Cancelled(run_id=run.run_id, is_cancelling=await request.engine.cancel(run.run_id))
