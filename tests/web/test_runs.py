"""Finding runs over HTTP, and how each stands."""

import pytest

from tests.web.service import report, service


async def test_a_run_is_shown_as_it_stands() -> None:
    async with service() as at:
        run_id = await at.started("report", {"a": 1})
        run = await at.engine.store.read(run_id)
        shown = (await at.alice.get(f"/runs/{run_id}")).json()
        assert shown["created"].endswith("Z")
        assert {name: shown[name] for name in shown if name not in ("created", "updated")} == {
            "run_id": run_id,
            "flow": "report",
            "status": "completed",
            "error": None,
            "head": run.head,
            "first": 0,
            "fork_of": None,
            "tags": {"tenant": "alice"},
            "waits": [],
        }


async def test_what_a_run_waits_for_is_shown() -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        (waits,) = (await at.alice.get(f"/runs/{run_id}")).json()["waits"]
        assert waits == {"kind": "signal", "step": "approved", "name": "approved", "until": None, "question": None}


async def test_what_a_run_asks_is_shown() -> None:
    async with service() as at:
        run_id = await at.started("asking", {}, "waiting")
        (waits,) = (await at.alice.get(f"/runs/{run_id}")).json()["waits"]
        assert (waits["kind"], waits["step"], waits["question"]) == ("answer", "ask", {"which": "colour"})


async def test_why_a_run_has_failed_is_shown_without_a_value() -> None:
    async with service() as at:
        run_id = await at.started("failing", {}, "failed")
        shown = (await at.alice.get(f"/runs/{run_id}")).json()
        assert "RuntimeError" in shown["error"]
        assert "secret" not in shown["error"]


async def test_tags_that_are_the_engines_or_the_routers_own_are_not_shown() -> None:
    async with service() as at:
        query, headers = {"deadline": 3600, "tag": "team:books"}, {"Idempotency-Key": "7"}
        accepted = await at.alice.post("/flows/report/runs", json={}, params=query, headers=headers)
        shown = (await at.alice.get(accepted.headers["location"])).json()
        assert shown["tags"] == {"tenant": "alice", "team": "books"}


async def test_the_newest_runs_come_first_a_page_at_a_time() -> None:
    async with service() as at:
        started = [await at.started("report", {"number": number}) for number in range(5)]
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page = (await at.alice.get("/runs", params={"limit": 2, "after": after} if after else {"limit": 2})).json()
            assert len(page["runs"]) <= 2
            found += [run["run_id"] for run in page["runs"]]
            after = page["next"]
        assert found == started[::-1]


async def test_runs_are_found_by_flow_status_and_tags() -> None:
    async with service() as at:
        order = await at.started("order", {"item": "book"}, "waiting")
        failed = await at.started("failing", {}, "failed")
        tagged = (await at.alice.post("/flows/report/runs?tag=team:a&tag=year:1", json={})).json()["run_id"]
        await at.stands(tagged, "completed")

        async def found(query: str) -> set[str]:
            return {run["run_id"] for run in (await at.alice.get(f"/runs?{query}")).json()["runs"]}

        assert await found("flow=order") == {order}
        assert await found("status=failed") == {failed}
        assert await found("status=failed&status=waiting") == {failed, order}
        assert await found("tag=team:a") == {tagged}
        assert await found("tag=team:a&tag=year:2") == set()
        assert await found("") == {order, failed, tagged}


async def test_a_list_has_only_the_callers_own_runs() -> None:
    async with service() as at:
        await at.started("report", {})
        assert (await at.bob.get("/runs")).json() == {"runs": [], "next": None}


async def test_the_tenant_of_a_list_cannot_be_asked_for() -> None:
    async with service() as at:
        assert (await at.bob.get("/runs?tag=tenant:alice")).status_code == 422


@pytest.mark.parametrize(
    "query", ["after=x", "limit=0", "limit=1001", "status=odd", "tag=x", "colour=red", "after=%00"]
)
async def test_a_question_that_makes_no_sense_is_refused(query: str) -> None:
    async with service() as at:
        response = await at.alice.get(f"/runs?{query}")
        assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")


async def test_a_run_of_a_flow_that_the_engine_does_not_have_is_shown_as_far_as_it_can_be() -> None:
    async with service() as before:
        run_id = await before.started("order", {"item": "book"}, "waiting")
        store = before.engine.store
    async with service([report], store) as at:
        assert [run["flow"] for run in (await at.alice.get("/runs")).json()["runs"]] == ["order"]
        response = await at.alice.get(f"/runs/{run_id}/versions/0")
        assert (response.status_code, response.json()["title"]) == (404, "Unknown flow")
        assert (await at.bob.get(f"/runs/{run_id}/versions/0")).json()["title"] == "Unknown run"
