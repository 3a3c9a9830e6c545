"""A service on one file is killed with SIGKILL, now and then stopped, and started again: what it accepted is done."""

import asyncio
import os
import random
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.service.processes import LONGEST, Process, Service, are_over, start, together
from tests.service.service_child import SHORT
from tests.service.stored import check_completed, run_ids
from tests.service.witness import by_run, check_repeats

KEYS = [f"order-{number}" for number in range(200)]


async def test_200_runs_end_right_though_their_process_is_killed_in_the_middle(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        first = await service.process()
        before = await _killed_while_started(service, first)
        second = await service.process()
        async with second.client() as client:
            after = await asyncio.gather(*(start(client, "short", key) for key in KEYS))
            await service.until(lambda: are_over(client))
        await second.stop()
        assert None in before
        assert all(was in (None, now) for was, now in zip(before, after, strict=True))
        await _check(service, after)


async def test_an_idempotency_key_leads_to_one_run_over_the_ends_of_processes_at_random_moments(tmp_path: Path) -> None:
    await _end_now_and_then(tmp_path, ends=3, runs=80)


@pytest.mark.torture
async def test_an_idempotency_key_leads_to_one_run_over_the_ends_of_sixty_processes_at_random_moments(
    tmp_path: Path,
) -> None:
    await _end_now_and_then(tmp_path, ends=60, runs=1500)


async def _killed_while_started(service: Service, process: Process) -> Sequence[str | None]:
    """The ids of the runs that were accepted before the process was killed; None where that is not known."""
    async with process.client() as client, together() as group:
        starts = [group.create_task(start(client, "short", key)) for key in KEYS]
        await service.until(lambda: sum(each.done() for each in starts) > 100 and service.witness.count("did") > 100)
        process.kill()
    return [each.result() for each in starts]


async def _end_now_and_then(folder: Path, ends: int, runs: int) -> None:
    """Let clients insist on their runs; meanwhile end the process again and again, at work or while it comes up."""
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"KILL_SEED={seed}")  # shown where the test fails
    moments = random.Random(seed)
    with Service(folder) as service:
        async with (await service.process()).client() as client:
            async with together(LONGEST + 10 * ends) as group:
                keys = iter([f"order-{number}" for number in range(runs)])
                insisting = [group.create_task(_insist(client, keys)) for _ in range(20)]
                for steps in sorted(moments.sample(range(len(SHORT) * runs), ends)):
                    await service.until(lambda steps=steps: service.witness.count("did") >= steps)
                    await _end(service.processes[-1], moments)
                    if moments.random() < 0.3:
                        process = service.spawned()
                        await asyncio.sleep(moments.uniform(0, 1.5))  # somewhere between its first line and its steps
                        await _end(process, moments)
                    client.base_url = (await service.process()).url or ""
            await service.until(lambda: are_over(client))
        await service.processes[-1].stop()
        await _check(service, [run_id for each in insisting for run_id in each.result()])


async def _end(process: Process, moments: random.Random) -> None:
    """Kill a process, or stop it, which leaves no more behind."""
    process.tell(moments.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
    await process.ended()


async def _insist(client: httpx.AsyncClient, keys: Iterator[str]) -> list[str]:
    """Ask for one run after the other, for each until it is accepted, by whichever process."""
    accepted: list[str] = []
    for key in keys:
        while (run_id := await start(client, "short", key)) is None:
            await asyncio.sleep(0.05)
        accepted.append(run_id)
    return accepted


async def _check(service: Service, ids: Sequence[str | None]) -> None:
    """These are all the runs there are; each is completed, and no process has repeated more than the step in hand."""
    did = by_run(service.witness.notes)
    async with service.store() as store:
        assert await run_ids(store) == set(ids)
        assert len(set(ids)) == len(ids)
        for run_id in await run_ids(store):
            await check_completed(store, run_id, SHORT)
            check_repeats(did[run_id], SHORT)
