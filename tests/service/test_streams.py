"""The events of runs are read over connections that are cut: none is missed, and none is told twice."""

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.service.processes import LONGEST, Service, are_over, start, together
from tests.service.reading import Reader, events_of
from tests.service.service_child import SHORT


async def test_a_stream_that_is_cut_anywhere_goes_on_with_the_next_event(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        process = await service.process()
        async with process.client() as client:
            run_id = await start(client, "short", "order") or ""
            await service.until(lambda: are_over(client))
            whole = Reader(run_id)
            sent = (await client.get(f"/runs/{run_id}/events")).content
            await whole.read(client)
            for most in range(1, len(sent), 13):
                reader = Reader(run_id)
                await reader.read(client, most)
                assert len(reader.seen) <= len(SHORT)
                await reader.read(client)
                assert reader.seen == whole.seen
        async with service.store() as store:
            assert whole.seen == await events_of(store, run_id)


async def test_who_has_read_the_end_is_told_that_there_will_be_no_more(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        async with (await service.process()).client() as client:
            reader = Reader(await start(client, "short", "order") or "")
            assert [await reader.read(client), await reader.read(client)] == [200, 204]
            assert len(reader.seen) == len(SHORT) + 1


async def test_a_stream_that_is_cut_while_its_run_waits_does_not_tell_again_that_it_does(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        first = await service.process()
        async with first.client() as client, together() as group:
            reader = Reader(await start(client, "asked", "order") or "")
            group.create_task(reader.read(client))
            await service.until(lambda: [event.kind for event in reader.seen] == ["step", "step", "waiting"])
            first.kill()
        async with (await service.process()).client() as client, together() as group:
            group.create_task(reader.read(client))
            await service.until(lambda: reader.is_connected)
            await client.post(f"/flows/asked/runs/{reader.run_id}/signals/approved", json=None)
        assert [event.kind for event in reader.seen] == ["step", "step", "waiting", "step", "step", "completed"]
        assert len({event.id for event in reader.seen}) == 6


async def test_streams_that_are_cut_go_on_without_a_gap_while_the_server_is_killed_and_started_again(
    tmp_path: Path,
) -> None:
    await _read_over_kills(tmp_path, runs=6, kills=2)


@pytest.mark.torture
async def test_many_streams_that_are_cut_go_on_without_a_gap_over_forty_kills(tmp_path: Path) -> None:
    await _read_over_kills(tmp_path, runs=100, kills=40)


async def test_a_stream_goes_on_at_another_process_where_it_was_cut(tmp_path: Path) -> None:
    moments = _moments()
    with Service(tmp_path, "postgres") as service:
        one, other = [(await service.process()).client(), (await service.process()).client()]
        async with one, other:
            readers = [Reader(await start(one, "long", f"order-{number}") or "") for number in range(6)]
            async with together() as group:
                for reader in readers:
                    group.create_task(_read_to_the_end(reader, lambda: moments.choice((one, other)), moments))
        await _check(service, readers)


async def _read_over_kills(folder: Path, runs: int, kills: int) -> None:
    moments = _moments()
    with Service(folder) as service:
        async with (await service.process()).client() as client:
            readers = [Reader(await start(client, "long", f"order-{number}") or "") for number in range(runs)]
            async with together(LONGEST + 10 * kills) as group:
                for reader in readers:
                    group.create_task(_read_to_the_end(reader, lambda: client, moments))
                for steps in sorted(moments.sample(range(60 * runs), kills)):
                    await service.until(lambda steps=steps: service.witness.count("did") >= steps)
                    service.processes[-1].kill()
                    client.base_url = (await service.process()).url or ""
        await _check(service, readers)


async def _read_to_the_end(reader: Reader, client: Callable[[], httpx.AsyncClient], moments: random.Random) -> None:
    """Connect again and again, each time to read a few events, or a part of one."""
    while not reader.is_at_end:
        if not await reader.read(client(), moments.randint(1, 600)):
            await asyncio.sleep(0.05)  # there is no server now


async def _check(service: Service, readers: list[Reader]) -> None:
    async with service.store() as store:
        for reader in readers:
            assert reader.seen == await events_of(store, reader.run_id)


def _moments() -> random.Random:
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"KILL_SEED={seed}")  # shown where the test fails
    return random.Random(seed)
