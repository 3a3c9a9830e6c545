"""A service on one file is stopped with SIGTERM, and started again: nothing is lost, and nothing is done twice."""

import asyncio
import signal
from pathlib import Path

import httpx

from flowneer_async import Run
from flowneer_async.policy import unix_ms
from flowneer_async.store import RunFilter
from tests.service.disconnecting import sending
from tests.service.processes import Process, Service, are_over, start, together
from tests.service.reading import Reader
from tests.service.service_child import GATED, SHORT
from tests.service.stored import check_completed, run_ids
from tests.service.witness import by_run, check_once

STOPPED = -signal.SIGTERM  # uvicorn raises the signal again when it is done


async def test_a_service_that_is_stopped_in_the_middle_does_no_step_twice_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    with Service(tmp_path) as service:
        first = await service.process()
        gated, short = await _stopped_at_the_gate(service, first)
        await _check_put_down(service, gated)
        second = await service.process()
        async with second.client() as client:
            await service.until(lambda: are_over(client))
        assert await second.stop() == STOPPED
        did = by_run(service.witness.notes)
        async with service.store() as store:
            assert await run_ids(store) == {*gated, *short}
            for run_id in did:
                steps = GATED if run_id in gated else SHORT
                check_once(did[run_id], steps)
                await check_completed(store, run_id, steps)


async def test_a_start_that_meets_the_shutdown_is_accepted_for_good_or_has_no_answer_and_no_run(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        first = await service.process()
        async with first.client() as client, together() as group:
            (gated,) = await _started(client, "gated", 1)
            asked = [group.create_task(_ask_to_the_end(client)) for _ in range(10)]
            await service.until(lambda: service.witness.count("began") == 1 and service.witness.count("did") > 50)
            first.tell(signal.SIGTERM)
        accepted = {run_id for each in asked for run_id in each.result()}
        service.witness.open_gate()
        assert await first.ended() == STOPPED
        async with service.store() as store:
            assert await run_ids(store) == accepted | {gated}
        second = await service.process()
        async with second.client() as client:
            await service.until(lambda: are_over(client))
        await second.stop()
        async with service.store() as store:
            for run_id in accepted:
                await check_completed(store, run_id, SHORT)


async def test_a_start_that_is_received_after_the_signal_is_accepted_for_the_next_process(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        first = await service.process()
        async with first.client() as client, sending(first) as request:
            await request.head("late")
            reader = Reader(*await _started(client, "gated", 1))
            async with together() as group:
                group.create_task(reader.read(client))
                await service.until(lambda: bool(reader.seen))
                first.tell(signal.SIGTERM)
            await request.body()
            assert (await request.answer()).startswith(b"HTTP/1.1 202 ")
        service.witness.open_gate()
        assert await first.ended() == STOPPED
        second = await service.process()
        async with second.client() as client:
            late = await start(client, "short", "late") or ""
            await service.until(lambda: are_over(client))
        await second.stop()
        async with service.store() as store:
            assert await run_ids(store) == {late, reader.run_id}
        assert {note.pid for note in service.witness.did(late)} == {second.pid}
        check_once(service.witness.did(late), SHORT)


async def test_a_client_that_does_not_read_its_stream_holds_up_the_end_no_longer_than_the_server_bears_with_it(
    tmp_path: Path,
) -> None:
    with Service(tmp_path, patience=1) as service:
        process = await service.process()
        async with process.client() as client:
            (wide, gated) = [*await _started(client, "wide", 1), *await _started(client, "gated", 1)]
            await service.until(lambda: service.witness.count("began") == 1)
            await service.until(lambda: _is_over(client, wide))
        async with sending(process) as request:
            await request.ask(f"/runs/{wide}/events")
            process.tell(signal.SIGTERM)
            await service.until(lambda: "Cancel 1 running task" in process.said.read_text())
            service.witness.open_gate()
            assert await process.ended() == STOPPED
        async with service.store() as store:
            assert _is_to_be_taken(await store.read(gated))


async def test_a_step_that_outlasts_the_grace_is_cancelled_and_done_by_the_next_process(tmp_path: Path) -> None:
    with Service(tmp_path, grace=0.2) as service:
        first = await service.process()
        async with first.client() as client:
            (run_id,) = await _started(client, "gated", 1)
            await service.until(lambda: service.witness.count("began") == 1)
        assert await first.stop() == STOPPED
        async with service.store() as store:
            assert _is_to_be_taken(await store.read(run_id))
        service.witness.open_gate()
        second = await service.process()
        async with second.client() as client:
            await service.until(lambda: are_over(client))
        await second.stop()
        assert service.witness.count("began") == 2
        check_once(service.witness.did(run_id), GATED)


async def _is_over(client: httpx.AsyncClient, run_id: str) -> bool:
    return (await client.get(f"/runs/{run_id}")).json()["status"] == "completed"


async def _ask_to_the_end(client: httpx.AsyncClient) -> list[str]:
    """Start runs until nobody answers any more; gives those that were accepted."""
    accepted: list[str] = []
    while True:
        try:
            response = await client.post("/flows/short/runs", json={"log": []})
        except httpx.TransportError:
            return accepted
        assert response.status_code == 202, response.text
        accepted.append(response.json()["run_id"])


async def _stopped_at_the_gate(service: Service, process: Process) -> tuple[list[str], list[str]]:
    """Stop a process with steps that stand at the gate, others that come and go, and streams that are read.

    The streams end while the steps still hold the process; it ends when they are done. Gives the ids of the runs.
    """
    async with process.client() as client:
        gated = await _started(client, "gated", 20)
        short = await _started(client, "short", 60)
        readers = [Reader(run_id) for run_id in gated]
        async with together() as group:
            for reader in readers:
                group.create_task(reader.read(client))
            await service.until(lambda: service.witness.count("began") == len(gated) and all(r.seen for r in readers))
            process.tell(signal.SIGTERM)
    assert process.code is None
    service.witness.open_gate()
    assert await process.ended() == STOPPED
    return gated, short


async def _started(client: httpx.AsyncClient, flow: str, number: int) -> list[str]:
    ids = await asyncio.gather(*(start(client, flow, f"{flow}-{each}") for each in range(number)))
    assert None not in ids
    return [run_id for run_id in ids if run_id]


async def _check_put_down(service: Service, gated: list[str]) -> None:
    """What was begun was done, and stored; every run is nobody's, to be gone on with at once."""
    did = by_run(service.witness.notes)
    async with service.store() as store:
        for run in (await store.find(RunFilter(), 1000)).runs:
            assert run.head == len(did.get(run.run_id, ()))
            assert run.status == "completed" or _is_to_be_taken(run)
        assert {(await store.read(run_id)).head for run_id in gated} == {GATED.index("gate") + 1}


def _is_to_be_taken(run: Run) -> bool:
    return (run.status, run.owner) == ("waiting", None) and run.wake is not None and run.wake <= unix_ms()
