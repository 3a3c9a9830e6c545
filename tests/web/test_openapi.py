"""The OpenAPI page says what a client needs to know."""

import json
from typing import Any

import pytest
from fastapi import FastAPI

from flowneer_async import BadName, FlowBuilder
from flowneer_async.engine import Engine
from flowneer_async.fastapi import flow_router
from flowneer_stores import MemoryStore
from tests.web.service import FLOWS, Order, app_of


def openapi(*flows: FlowBuilder[Any]) -> dict[str, Any]:
    return app_of(Engine(MemoryStore(), flows=flows or FLOWS)).openapi()


def resolved(page: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return page["components"]["schemas"][name] if name else schema


def body(page: dict[str, Any], path: str) -> dict[str, Any]:
    return resolved(page, page["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])


def answer(page: dict[str, Any], path: str, method: str = "get", status: str = "200") -> dict[str, Any]:
    content = page["paths"][path][method]["responses"][status]["content"]
    return resolved(page, content["application/json"]["schema"])


@pytest.mark.parametrize(
    ("flow", "properties", "required"),
    [
        ("order", {"item", "notes", "approval"}, ["item"]),
        ("ticket", {"title", "steps"}, ["title"]),
        ("job", {"what", "done"}, ["what"]),
        ("page", {"url", "words"}, ["url"]),
    ],
)
def test_a_start_and_a_state_have_the_schema_of_the_flows_type(
    flow: str, properties: set[str], required: list[str]
) -> None:
    page = openapi()
    sent, shown = body(page, f"/flows/{flow}/runs"), answer(page, f"/flows/{flow}/runs/{{run_id}}/state")
    assert (set(sent["properties"]), sent["required"]) == (properties, required)
    assert set(shown["properties"]) == properties


def test_a_state_without_a_type_is_any_object() -> None:
    page = openapi()
    assert body(page, "/flows/report/runs")["type"] == "object"
    assert answer(page, "/flows/report/runs/{run_id}/state")["type"] == "object"


def test_a_signal_has_the_schema_that_the_flow_waits_for() -> None:
    page = openapi()
    sent = body(page, "/flows/order/runs/{run_id}/signals/approved")
    assert (set(sent["properties"]), sent["required"]) == ({"by", "amount"}, ["by"])
    assert "/flows/report/runs/{run_id}/signals/approved" not in page["paths"]
    assert body(page, "/flows/asking/runs/{run_id}/signals/done").keys() <= {"title", "description"}


def test_every_reference_leads_somewhere() -> None:
    page = openapi()

    def references(node: Any) -> list[str]:
        if isinstance(node, list):
            return [each for part in node for each in references(part)]
        if not isinstance(node, dict):
            return []
        return [each for part in node.values() for each in references(part)] + (
            [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        )

    found = references(page)
    assert found
    for reference in found:
        target: Any = page
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_problems_are_declared_as_what_they_are() -> None:
    for path, methods in openapi()["paths"].items():
        for method, operation in methods.items():
            if path == "/health":
                continue
            problems = {status for status in operation["responses"] if status >= "400" and status not in ("401", "403")}
            assert {"422", "500", "503"} <= problems, (method, path)
            for status in problems:
                assert set(operation["responses"][status]["content"]) == {"application/problem+json"}
            assert {"401", "403"} <= set(operation["responses"])
            assert ("404" in problems) == ("{run_id}" in path)


def test_every_operation_says_what_it_does_and_has_an_id_of_its_own() -> None:
    operations = [each for methods in openapi()["paths"].values() for each in methods.values()]
    assert all(each["summary"] and each["description"] and each["tags"] for each in operations)
    assert len({each["operationId"] for each in operations}) == len(operations)


def test_events_are_declared_as_a_stream() -> None:
    responses = openapi()["paths"]["/runs/{run_id}/events"]["get"]["responses"]
    assert set(responses["200"]["content"]) == {"text/event-stream"}
    assert "content" not in responses["204"]


def test_a_small_service_has_a_small_page() -> None:
    assert len(json.dumps(openapi(FlowBuilder("order", Order).start_with(print, name="look")))) < 60_000


@pytest.mark.parametrize("name", ["a/b", "a?b", "a#b", "a%b", "{a}", "..", "a\\b"])
def test_a_name_that_cannot_stand_in_a_path_is_refused_when_the_router_is_made(name: str) -> None:
    step = FlowBuilder("flow")
    for flow in (FlowBuilder(name).start_with(print, name="look"), step.wait_for(name, name="wait")):
        with pytest.raises(BadName, match="stands in a path"):
            flow_router(Engine(MemoryStore(), flows=[flow]), allow_anonymous=True)


def test_the_router_may_be_included_with_a_prefix_of_its_own_and_in_several_apps() -> None:
    engine = Engine(MemoryStore(), flows=FLOWS)
    router = flow_router(engine, allow_anonymous=True, prefix="/v1")
    for prefix in ("", "/api"):
        app = FastAPI()
        app.include_router(router, prefix=prefix)
        assert f"{prefix}/v1/runs" in app.openapi()["paths"]
