"""What is not read: bodies that are too large, or no JSON."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowneer_async import FlowBuilder
from tests.web.service import Service, service

JSON = {"content-type": "application/json"}


async def refused(at: Service, content: Any, headers: dict[str, str] = JSON) -> tuple[int, str]:
    response = await at.alice.post("/flows/report/runs", content=content, headers=headers)
    assert response.headers["content-type"] == "application/problem+json"
    assert (await at.alice.get("/runs")).json()["runs"] == []
    return response.status_code, response.json()["title"]


async def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    async with service() as at:

        async def body() -> AsyncIterator[bytes]:
            raise AssertionError("it is read")
            yield b""

        assert await refused(at, body(), {**JSON, "content-length": "100001"}) == (413, "Body too large")


async def test_a_body_that_turns_out_to_be_too_large_is_not_read_to_its_end() -> None:
    async with service() as at:
        read = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal read
            for _ in range(1000):
                read += 1000
                yield b" " * 1000

        app, answers = at.app, list[Any]()
        chunks = body()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": await anext(chunks), "more_body": True}

        async def send(message: Any) -> None:
            answers.append(message)

        headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer of-alice")]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/flows/report/runs",
            "query_string": b"",
            "headers": headers,
        }
        await app(scope, receive, send)
        assert (answers[0]["status"], read) == (413, 101_000)


async def test_a_body_of_the_size_that_is_allowed_is_read() -> None:
    async with service() as at:
        text = b'{"a": "%s"}' % (b"x" * (100_000 - 9))
        assert (await at.alice.post("/flows/report/runs", content=text, headers=JSON)).status_code == 202


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/xml", "multipart/form-data", "json", "application/json2"]
)
async def test_a_body_that_is_not_declared_as_json_is_not_taken_for_it(kind: str) -> None:
    async with service() as at:
        assert await refused(at, b"{}", {"content-type": kind}) == (415, "Not declared as JSON")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.books+json", "Application/JSON"])
async def test_any_kind_of_json_will_do(kind: str) -> None:
    async with service() as at:
        response = await at.alice.post("/flows/report/runs", content=b"{}", headers={"content-type": kind})
        assert response.status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
        "{}".encode("utf-16"),
    ],
    ids=["cut", "no text", "nan", "infinity", "surrogate", "digits", "bomb", "objects", "deep", "utf-16"],
)
async def test_what_is_no_json_or_could_not_be_kept_is_refused(body: bytes) -> None:
    async with service() as at:
        assert await refused(at, body) == (400, "Not JSON")


async def test_a_body_that_is_missing_is_said_to_be() -> None:
    async with service() as at:
        response = await at.alice.post("/flows/report/runs")
        assert response.status_code == 422
        assert [each["type"] for each in response.json()["errors"]] == ["missing"]


async def test_a_payload_that_is_no_json_is_not_taken_for_a_text() -> None:
    async with service([FlowBuilder("asking").wait_for("done", into="a")]) as at:
        run_id = await at.started("asking", {}, "waiting")
        path = f"/flows/asking/runs/{run_id}/signals/done"
        for content, headers, status in ((b"hello", {}, 415), (b"hello", JSON, 400), (b"", JSON, 202)):
            assert (await at.alice.post(path, content=content, headers=headers)).status_code == status
