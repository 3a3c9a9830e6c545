"""Steering runs over HTTP: signals, answers, forks and cancelling."""

from typing import Any

import pytest

from flowneer_async import FlowBuilder
from tests.web.service import Approval, service


async def test_a_signal_wakes_its_run_and_is_of_the_type_that_the_flow_waits_for() -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        path = f"/flows/order/runs/{run_id}/signals/approved"
        response = await at.alice.post(path, json={"by": "me", "amount": 7})
        assert (response.status_code, response.headers["location"]) == (202, f"/runs/{run_id}")
        await at.stands(run_id, "completed")
        state = (await at.alice.get(f"/flows/order/runs/{run_id}/state")).json()
        assert state == {"item": "book", "notes": ["reserved", "shipped"], "approval": {"by": "me", "amount": 7}}


async def test_a_signal_under_the_path_of_another_flow_reaches_no_run() -> None:
    async with service([FlowBuilder(name).wait_for("go") for name in ("one", "other")]) as at:
        run_id = await at.started("one", {}, "waiting")
        response = await at.alice.post(f"/flows/other/runs/{run_id}/signals/go")
        assert (response.status_code, response.json()["title"]) == (404, "Unknown run")
        assert list(await at.engine.store.signals(run_id)) == []


@pytest.mark.parametrize("payload", [None, 7, {}, {"by": 7}, {"by": "me", "amount": "much"}])
async def test_a_payload_that_the_flow_does_not_wait_for_is_refused_and_not_kept(payload: object) -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        response = await at.alice.post(f"/flows/order/runs/{run_id}/signals/approved", json=payload)
        assert response.status_code == 422
        assert list(await at.engine.store.signals(run_id)) == []


async def test_a_signal_without_a_schema_may_bring_anything_or_nothing() -> None:
    flow = FlowBuilder("asking").wait_for("done", into="first").wait_for("done", into="second", name="again")
    async with service([flow]) as at:
        run_id = await at.started("asking", {}, "waiting")
        path = f"/flows/asking/runs/{run_id}/signals/done"
        assert (await at.alice.post(path, json=[1, {"a": None}])).status_code == 202
        assert (await at.alice.post(path)).status_code == 202
        await at.stands(run_id, "completed")
        state = (await at.alice.get(f"/flows/asking/runs/{run_id}/state")).json()
        assert state == {"first": [1, {"a": None}], "second": None}


async def test_a_signal_that_several_steps_wait_for_may_be_of_any_of_their_types() -> None:
    flow = FlowBuilder("two").wait_for("go", into="a", schema=int).wait_for("go", into="b", schema=Approval, name="b")
    async with service([flow]) as at:
        run_id = await at.started("two", {}, "waiting")
        path = f"/flows/two/runs/{run_id}/signals/go"
        assert (await at.alice.post(path, json="neither")).status_code == 422
        assert (await at.alice.post(path, json=7)).status_code == 202
        assert (await at.alice.post(path, json={"by": "me"})).status_code == 202
        await at.stands(run_id, "completed")
        assert (await at.alice.get(f"/flows/two/runs/{run_id}/state")).json()["b"] == {"by": "me", "amount": 0}


async def test_a_signal_that_a_function_judges_is_refused_by_it() -> None:
    def even(value: Any) -> int:
        if value % 2:
            raise ValueError("odd")
        return int(value)

    async with service([FlowBuilder("even").wait_for("number", into="n", schema=even)]) as at:
        run_id = await at.started("even", {}, "waiting")
        path = f"/flows/even/runs/{run_id}/signals/number"
        response = await at.alice.post(path, json=7)
        assert (response.status_code, response.json()["title"]) == (422, "Bad signal")
        assert (await at.alice.post(path, json=8)).status_code == 202


async def test_an_answer_lets_its_run_go_on() -> None:
    async with service() as at:
        run_id = await at.started("asking", {}, "waiting")
        response = await at.alice.post(f"/runs/{run_id}/resume", json={"answer": None, "at": "ask"})
        assert (response.status_code, response.headers["location"]) == (202, f"/runs/{run_id}")
        await at.alice.post(f"/flows/asking/runs/{run_id}/signals/done")
        await at.stands(run_id, "completed")
        assert (await at.alice.get(f"/flows/asking/runs/{run_id}/state")).json() == {"answer": None}


async def test_an_answer_that_nobody_asked_for_is_a_conflict() -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        response = await at.alice.post(f"/runs/{run_id}/resume", json={"answer": 1})
        assert (response.status_code, response.json()["title"]) == (409, "Not waiting")


async def test_a_run_that_has_failed_goes_on_without_an_answer() -> None:
    async with service() as at:
        run_id = await at.started("failing", {}, "failed")
        before = (await at.engine.store.read(run_id)).epoch
        assert (await at.alice.post(f"/runs/{run_id}/resume")).status_code == 202
        assert (await at.stands(run_id, "failed")).epoch > before


async def test_a_fork_goes_on_from_the_version_that_is_named() -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        response = await at.alice.post(f"/runs/{run_id}/forks", json={"seq": 0, "tags": {"why": "try"}})
        fork = response.json()["run_id"]
        assert (response.status_code, response.headers["location"]) == (202, f"/runs/{fork}")
        run = await at.stands(fork, "waiting")
        assert (run.fork_of, run.tags["why"], run.tags["tenant"]) == (f"{run_id}@0", "try", "alice")
        assert (await at.alice.get(f"/runs/{fork}")).json()["fork_of"] == f"{run_id}@0"


@pytest.mark.parametrize("tags", [{"@parent": "x"}, {"": "x"}, {"a:b": "x"}, {"a": "\0"}, {"tenant": "bob"}])
async def test_a_fork_has_no_tags_that_are_none(tags: dict[str, str]) -> None:
    async with service() as at:
        run_id = await at.started("report", {})
        assert (await at.alice.post(f"/runs/{run_id}/forks", json={"seq": 0, "tags": tags})).status_code == 422


async def test_a_signal_for_a_run_that_is_over_is_a_conflict() -> None:
    async with service([FlowBuilder("two").wait_for("go")]) as at:
        run_id = await at.started("two", {}, "waiting")
        path = f"/flows/two/runs/{run_id}/signals/go"
        assert (await at.alice.post(path)).status_code == 202
        await at.stands(run_id, "completed")
        response = await at.alice.post(path)
        assert (response.status_code, response.json()["title"]) == (409, "Run over")


async def test_a_fork_is_made_once_under_one_key() -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        path, key = f"/runs/{run_id}/forks", {"Idempotency-Key": "7"}
        forks = [await at.alice.post(path, json={"seq": 1}, headers=key) for _ in range(2)]
        assert forks[0].json() == forks[1].json()
        assert (await at.alice.post(path, json={"seq": 0}, headers=key)).status_code == 422


async def test_a_fork_from_a_version_that_there_is_not_is_unknown() -> None:
    async with service() as at:
        run_id = await at.started("report", {})
        response = await at.alice.post(f"/runs/{run_id}/forks", json={"seq": 99})
        assert (response.status_code, response.json()["title"]) == (404, "Unknown version")


async def test_a_run_is_cancelled_once() -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        response = await at.alice.post(f"/runs/{run_id}/cancel")
        assert (response.status_code, response.json()) == (202, {"run_id": run_id, "is_cancelling": True})
        await at.stands(run_id, "cancelled")
        assert (await at.alice.post(f"/runs/{run_id}/cancel")).json()["is_cancelling"] is False
