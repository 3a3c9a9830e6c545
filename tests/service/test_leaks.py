"""A service that has done much holds no more than before."""

from pathlib import Path

import httpx
import pytest

from tests.service.held import held, holds_no_more
from tests.service.processes import Process, Service, start, together
from tests.service.reading import Reader


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.torture)])
async def test_after_1000_runs_and_200_streams_that_were_left_a_process_holds_no_more_than_before(
    kind: str, tmp_path: Path
) -> None:
    with Service(tmp_path, kind) as service:
        process = await service.process()
        async with process.client() as client:
            # It goes on all the time: nothing is told to those who have left, and so nothing wakes them up.
            run_id = await start(client, "gated", "gated") or ""
            await service.until(lambda: service.witness.count("began") == 1)
            await _use(service, process, run_id, runs=200, streams=100)
            await service.until(lambda: holds_no_more(client, {"runs": 1}))
            before = await held(client)
            await _use(service, process, run_id, runs=1000, streams=200)
            await service.until(lambda: holds_no_more(client, before))


async def _use(service: Service, process: Process, run_id: str, runs: int, streams: int) -> None:
    """Start runs, read the first bytes of streams, and wait until the runs are over."""
    done = service.witness.count("did") + 5 * runs
    async with process.client() as client, together() as group:
        for first in range(20):
            group.create_task(_each(client, run_id, len(range(first, runs, 20)), len(range(first, streams, 20))))
    await service.until(lambda: service.witness.count("did") == done)


async def _each(client: httpx.AsyncClient, run_id: str, runs: int, streams: int) -> None:
    for _ in range(streams):
        assert await Reader(run_id).read(client, 1) == 200
    for _ in range(runs):
        (await client.post("/flows/short/runs", json={"log": []})).raise_for_status()
