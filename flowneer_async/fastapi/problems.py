"""Problems, as RFC 9457 has them: what each of our errors is to a client, in one table."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from flowneer_async import errors

STATUS: Mapping[type[errors.FlowneerError], int] = {
    errors.FlowneerError: 500,
    # What the client has sent.
    errors.BadName: 422,
    errors.BadOption: 422,
    errors.BadSignal: 422,
    errors.BadState: 422,
    errors.StateMissing: 422,
    errors.StateNotSerializable: 422,
    errors.StateTooLarge: 413,
    # What is not there.
    errors.UnknownFlow: 404,
    errors.UnknownRun: 404,
    errors.UnknownVersion: 404,
    # How the run stands.
    errors.Fenced: 409,
    errors.FlowChanged: 409,
    errors.ForeignRun: 409,
    errors.HalfCopied: 409,
    errors.NotCompleted: 409,
    errors.NotFinished: 409,
    errors.NotWaiting: 409,
    errors.Parked: 409,
    errors.RunBusy: 409,
    errors.RunExists: 409,
    errors.RunOver: 409,
    errors.TooManyVersions: 409,
    errors.Undone: 409,
    errors.VersionConflict: 409,
    # How the service stands.
    errors.ReadOnly: 403,
    errors.EngineStopped: 503,
    errors.StoreBusy: 503,
    errors.StoreClosed: 503,
    errors.StoreFull: 507,
}
"""The status for an error of each class, and of those that derive from it and are not in the table themselves."""

RETRY_AFTER = 1
"""Seconds after which a client may try again what the service could not do just now."""

_IDS = ("run_id", "version", "flow", "name", "step", "signal", "path")
"""What of an error a client is told beside its message: ids, names and paths, never a value."""

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")

_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457; it may have the ids that it is about, such as run_id.",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
# What is not valid, and where. Inline, as all of this is: FastAPI can refer to a model only under the media type of
# the response that the route gives when all is well.
_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["loc", "type", "msg"],
    "properties": {
        "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
        "type": {"type": "string"},
        "msg": {"type": "string"},
    },
}
_INVALID: dict[str, Any] = {
    **_SCHEMA,
    "properties": {**_SCHEMA["properties"], "errors": {"type": "array", "items": _ERROR}},
}


class Answered(Exception):
    """A request is answered before its endpoint is called."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def problem(status: int, title: str, detail: str | None = None, **members: object) -> Response:
    """A response that says what is wrong; its `type` is made of the title."""
    kind = f"urn:flowneer-async:{title.lower().replace(' ', '-')}"
    said: dict[str, object] = {"type": kind, "title": title, "status": status, "detail": detail, **members}
    body = orjson.dumps({name: value for name, value in said.items() if value is not None})
    headers = {"Retry-After": str(RETRY_AFTER)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return Response(body, status, headers, "application/problem+json")


def problem_of(error: errors.FlowneerError) -> Response:
    """What one of our errors is to a client: of those that are not theirs to mend, no more than the kind."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    title = _WORD.sub(" ", type(error).__name__).capitalize()
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem(status, title, "the service cannot do this now: its log says why", **_ids(error, ("run_id",)))
    if isinstance(error, errors.RunBusy):
        error = errors.RunBusy(error.run_id, None)  # the owner is a process of the service, and none of their business
    return problem(status, title, str(error), **_ids(error, _IDS))


def _ids(error: errors.FlowneerError, names: Sequence[str]) -> dict[str, str]:
    found = {name: getattr(error, name, None) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def invalid(error: RequestValidationError) -> Response:
    """What is wrong with a request, and where: not the values that it had."""
    found = [{"loc": [*each["loc"]], "type": each["type"], "msg": _message(each)} for each in error.errors()]
    return problem(422, "Not valid", "the request is not as it has to be: see errors", errors=found)


def _message(found: Mapping[str, Any]) -> str:
    if found["type"] == "union_tag_invalid":  # pydantic's own message quotes the value
        return f"Input tag is none of {found['ctx']['expected_tags']}"
    return str(found["msg"])


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems with these statuses, and those that any route may have, for `responses=`."""
    return {status: _documented(status) for status in sorted({*statuses, 422, 500, 503})}


def _documented(status: int) -> dict[str, Any]:
    schema = _INVALID if status == HTTPStatus.UNPROCESSABLE_ENTITY else _SCHEMA
    return {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": {"schema": schema}}}
