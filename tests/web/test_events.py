"""The events of runs over HTTP: a client that comes back has missed nothing, and reads nothing twice."""

import logging

import pytest

from flowneer_async import Context, FlowBuilder
from tests.web.service import Service, service
from tests.web.streaming import Told, streamed, told

JOURNEY = ["1", "2.waiting", "3", "4", "4.completed"]


async def ended(at: Service) -> str:
    run_id = await at.started("order", {"item": "book"}, "waiting")
    await approve(at, run_id)
    await at.stands(run_id, "completed")
    return run_id


async def approve(at: Service, run_id: str) -> None:
    response = await at.alice.post(f"/flows/order/runs/{run_id}/signals/approved", json={"by": "me"})
    assert response.status_code == 202


async def test_the_events_of_a_run_are_told_from_the_first_to_the_last() -> None:
    async with service() as at:
        run_id = await ended(at)
        response = await at.alice.get(f"/runs/{run_id}/events")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert told(response.text) == [
            Told("step", "1", {"step": "reserve", "version": f"{run_id}@1", "changed": ["notes"]}),
            Told("step", "3", {"step": "approved", "version": f"{run_id}@3", "changed": ["approval"]}),
            Told("step", "4", {"step": "ship", "version": f"{run_id}@4", "changed": ["notes"]}),
            Told("completed", "4.completed", {}),
        ]


@pytest.mark.parametrize("seen", ["0", "1", "2", "2.waiting", "3", "4"])
@pytest.mark.parametrize("how", ["header", "query", "both"])
async def test_a_client_that_comes_back_is_told_what_came_after_the_last_event(seen: str, how: str) -> None:
    async with service() as at:
        run_id = await ended(at)
        every = told((await at.alice.get(f"/runs/{run_id}/events")).text)
        headers = {"Last-Event-ID": seen} if how != "query" else {}
        params = {"query": {"after": seen}, "both": {"after": "0"}, "header": {}}[how]
        rest = await at.alice.get(f"/runs/{run_id}/events", headers=headers, params=params)
        number = int(seen.partition(".")[0])
        assert told(rest.text) == [
            each for each in every if int((each.id or "").partition(".")[0]) > number or each.data == {}
        ]


@pytest.mark.parametrize("seen", ["4.completed", "5", "99.completed"])
async def test_who_has_seen_the_end_is_told_not_to_come_back(seen: str) -> None:
    async with service() as at:
        run_id = await ended(at)
        response = await at.alice.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": seen})
        assert (response.status_code, response.content) == (204, b"")


async def test_a_run_that_goes_on_after_its_end_is_told_on() -> None:
    flow = FlowBuilder("late").wait_for("go", into="a")
    async with service([flow]) as at:
        run_id = await at.started("late", {}, "waiting")
        await at.alice.post(f"/runs/{run_id}/cancel")
        await at.stands(run_id, "cancelled")
        (end,) = told((await at.alice.get(f"/runs/{run_id}/events")).text)[-1:]
        assert end.kind == "cancelled"
        await at.alice.post(f"/runs/{run_id}/resume")
        await at.alice.post(f"/flows/late/runs/{run_id}/signals/go", json=1)
        await at.stands(run_id, "completed")
        more = told((await at.alice.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": end.id or ""})).text)
        assert [each.kind for each in more] == ["step", "completed"]


async def test_events_are_told_as_they_happen_and_a_cut_stream_goes_on_where_it_was() -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        path = f"/runs/{run_id}/events"
        async with streamed(at.app, path) as stream:
            assert [(await stream.next()).id for _ in range(2)] == JOURNEY[:2]
            waits = stream.events[-1].data["waits"]
            assert [(each["kind"], each["name"]) for each in waits] == [("signal", "approved")]
            assert not stream.is_over
        await approve(at, run_id)
        async with streamed(at.app, path, last_event_id=JOURNEY[1]) as stream:
            await stream.end()
            assert [each.id for each in stream.events] == JOURNEY[2:]


async def test_a_client_that_goes_away_cancels_nothing() -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        async with streamed(at.app, f"/runs/{run_id}/events") as stream:
            await stream.next()
        await approve(at, run_id)
        assert (await at.stands(run_id, "completed", "cancelled", "failed")).status == "completed"


async def test_streams_end_when_the_engine_stops() -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        async with streamed(at.app, f"/runs/{run_id}/events") as stream:
            await stream.next()
            at.engine.stop()
            await stream.end()
            assert [each.id for each in stream.events][:1] == JOURNEY[:1]
        response = await at.alice.get(f"/runs/{run_id}/events")
        assert (response.status_code, response.json()["title"]) == (503, "Engine stopped")


async def test_a_quiet_stream_is_kept_alive_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.01)
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        async with streamed(at.app, f"/runs/{run_id}/events") as stream:
            while ": ping\n\n" not in stream.text:
                await stream.changed.wait()


async def test_a_stream_is_not_kept_by_those_in_between() -> None:
    async with service() as at:
        response = await at.alice.get(f"/runs/{await ended(at)}/events")
        assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-cache", "no")


async def test_a_run_that_is_forgotten_ends_its_stream(caplog: pytest.LogCaptureFixture) -> None:
    async with service() as at:
        run_id = await at.started("order", {"item": "book"}, "waiting")
        with caplog.at_level(logging.WARNING, "flowneer_async.fastapi"):
            async with streamed(at.app, f"/runs/{run_id}/events") as stream:
                await stream.next()
                await at.engine.store.purge(run_id)
                await stream.end()
        assert f"events of run {run_id} end early: UnknownRun" in caplog.text


async def test_what_steps_emit_is_told_to_those_who_ask_for_it() -> None:
    async def talk(state: dict[str, object], ctx: Context[object]) -> None:
        await ctx.emit({"word": float("nan")})

    async with service([FlowBuilder("talk").wait_for("go").then(talk)]) as at:
        run_id = await at.started("talk", {}, "waiting")
        async with (
            streamed(at.app, f"/runs/{run_id}/events", "live=true") as live,
            streamed(at.app, f"/runs/{run_id}/events") as stored,
        ):
            await live.next()
            await stored.next()
            await at.alice.post(f"/flows/talk/runs/{run_id}/signals/go")
            await live.end()
            await stored.end()
        assert Told("chunk", None, {"step": "talk", "value": {"word": "NaN"}}) in live.events
        assert "chunk" not in [each.kind for each in stored.events]


async def test_why_a_run_has_failed_is_told_without_a_value() -> None:
    async with service() as at:
        run_id = await at.started("failing", {}, "failed")
        end = told((await at.alice.get(f"/runs/{run_id}/events")).text)[-1]
        assert end.kind == "failed"
        assert "RuntimeError" in end.data["error"]
        assert "secret" not in end.data["error"]


@pytest.mark.parametrize("seen", ["x", "-1", "1.", "1.x y", "1.odd", "9" * 19, "²"])
async def test_an_id_that_is_none_is_refused(seen: str) -> None:
    async with service() as at:
        response = await at.alice.get(f"/runs/{await ended(at)}/events", params={"after": seen})
        assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")


async def test_an_empty_id_is_none() -> None:
    async with service() as at:
        response = await at.alice.get(f"/runs/{await ended(at)}/events", headers={"Last-Event-ID": ""})
        assert len(told(response.text)) == 4
