"""The requests that the routes of flows are given: their JSON is read with care, and problems become responses."""

from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.responses import Response

from flowneer_async import FlowneerError
from flowneer_async.engine import Engine
from flowneer_async.fastapi.problems import Answered, invalid, problem, problem_of


class FlowRequest(Request):
    """A request to `engine`, on behalf of `tenant` (None: nobody in particular), with a body of `max_body` bytes at
    most.

    FastAPI reads a body before it asks who sends it. So what is wrong with a body is kept as `refusal`, and told by
    `check_body`, which comes after the user's own dependencies.
    """

    def __init__(self, request: Request, engine: Engine, max_body: int) -> None:
        super().__init__(request.scope, request.receive)
        self.engine, self.max_body = engine, max_body
        self.tenant: str | None = None
        self.refusal: Response | None = None
        self._read: bytes | None = None
        self._parsed: object = None

    async def body(self) -> bytes:
        """The body, as far as it may be read; nothing where it is refused."""
        if self._read is None:
            self._read = await self._received()
        return self._read

    async def json(self) -> object:
        """The body as JSON, and nothing but JSON: no NaN, no lone surrogates, nothing deeper than 200 levels."""
        if self._parsed is None:
            try:
                self._parsed = from_json(await self.body(), allow_inf_nan=False)
            except ValueError as error:
                self.refusal = problem(400, "Not JSON", str(error))
        return self._parsed

    async def _received(self) -> bytes:
        read = bytearray()
        if int(self.headers.get("content-length", 0)) > self.max_body:
            return self._too_large()
        async for chunk in self.stream():
            read += chunk
            if len(read) > self.max_body:
                return self._too_large()
        if read and not _is_json(self.headers.get("content-type", "")):
            self.refusal = problem(415, "Not declared as JSON", "send it with Content-Type: application/json")
            return b""
        return bytes(read)

    def _too_large(self) -> bytes:
        self.refusal = problem(413, "Body too large", f"it may have {self.max_body:,} bytes")
        return b""


def _is_json(content_type: str) -> bool:
    """Is it JSON to FastAPI, too?"""
    message = Message()
    message["content-type"] = content_type
    kind = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (kind == "json" or kind.endswith("+json"))


async def flow_request(request: Request) -> FlowRequest:
    """The request, in a route of flows."""
    assert isinstance(request, FlowRequest)
    return request


Asked: TypeAlias = Annotated[FlowRequest, Depends(flow_request)]


async def check_body(request: Asked) -> None:
    """Raises Answered where the body was refused."""
    if request.refusal is not None:
        raise Answered(request.refusal)


def route_class(engine: Engine, max_body: int) -> type[APIRoute]:
    """Routes that give their endpoints a FlowRequest, and answer with a problem where one of our errors is raised."""

    class FlowRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                try:
                    return await handle(FlowRequest(request, engine, max_body))
                except Answered as answered:
                    return answered.response
                except RequestValidationError as error:
                    return invalid(error)
                except FlowneerError as error:
                    return problem_of(error)

            return handled

    return FlowRoute
