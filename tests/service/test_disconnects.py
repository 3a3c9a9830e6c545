"""Clients that leave in the middle of something, which changes nothing for the runs."""

import asyncio
from pathlib import Path

from tests.service.disconnecting import sending
from tests.service.held import held, holds_no_more
from tests.service.processes import Process, Service, are_over, start
from tests.service.reading import Reader
from tests.service.service_child import GATED, SHORT
from tests.service.stored import check_completed, run_ids
from tests.service.witness import check_once


async def test_who_leaves_before_the_start_of_a_run_was_sent_has_started_none(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        process = await service.process()
        await _leave(process, "order", 5)
        async with process.client() as client:
            assert await start(client, "short", "other")
            await service.until(lambda: are_over(client))
            assert len((await client.get("/runs")).json()["runs"]) == 1


async def test_who_leaves_anywhere_in_the_start_of_a_run_may_start_it_again_and_it_is_done_once(tmp_path: Path) -> None:
    keys = [f"order-{number}" for number in range(50)]
    with Service(tmp_path) as service:
        process = await service.process()
        await asyncio.gather(*(_leave(process, key, number % 12) for number, key in enumerate(keys)))
        async with process.client() as client:
            ids = [await start(client, "short", key) for key in keys]
            await service.until(lambda: are_over(client))
        await process.stop()
        async with service.store() as store:
            assert await run_ids(store) == set(ids)
            for run_id in await run_ids(store):
                await check_completed(store, run_id, SHORT)
                check_once(service.witness.did(run_id), SHORT)


async def test_who_sends_the_start_of_a_run_as_a_whole_and_leaves_has_started_it(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        process = await service.process()
        await _leave(process, "order", 11)
        await service.until(lambda: service.witness.count("did") == len(SHORT))
        async with process.client() as client:
            run_id = await start(client, "short", "order") or ""
            await service.until(lambda: are_over(client))
        check_once(service.witness.did(run_id), SHORT)


async def test_who_leaves_in_the_middle_of_a_stream_leaves_the_run_alone(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        process = await service.process()
        async with process.client() as client:
            run_id = await start(client, "gated", "order") or ""
            await service.until(lambda: service.witness.count("began") == 1)
            before = await held(client)
            for most in range(1, 100, 9):
                await Reader(run_id).read(client, most)
            await service.until(lambda: holds_no_more(client, before))  # so it has seen that they left
            service.witness.open_gate()
            await service.until(lambda: are_over(client))
        await process.stop()
        assert service.witness.count("began") == 1
        check_once(service.witness.did(run_id), GATED)
        async with service.store() as store:
            await check_completed(store, run_id, GATED)


async def test_who_asks_for_it_cancels_the_run_by_leaving_its_stream(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        process = await service.process()
        async with process.client() as client:
            run_id = await start(client, "gated", "order") or ""
            await service.until(lambda: service.witness.count("began") == 1)
            await Reader(run_id, "cancel_on_disconnect=true").read(client, 9)
            await service.until(lambda: are_over(client))
            assert (await client.get(f"/runs/{run_id}")).json()["status"] == "cancelled"


async def _leave(process: Process, key: str, sent: int) -> None:
    """Begin to start a run, send so many bytes of its state, of 11, and leave."""
    async with sending(process) as request:
        await request.head(key)
        await request.body(slice(sent))
