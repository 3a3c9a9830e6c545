"""Two processes of a service on one PostgreSQL: what one cannot go on with, the other one does."""

import asyncio
import signal
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tests.service.held import holds_no_more
from tests.service.processes import Process, Service, are_over, start, together
from tests.service.reading import Reader, events_of
from tests.service.service_child import GATED, KEYED, LONG, SHORT
from tests.service.stored import check_completed, run_ids
from tests.service.witness import by_run, check_once, check_repeats


async def test_the_runs_of_a_process_that_is_killed_are_gone_on_with_before_their_leases_are_over(
    tmp_path: Path,
) -> None:
    with Service(tmp_path, "postgres", lease=600) as service:
        dead, alive = [await service.process(), await service.process()]
        ids = await _started(dead, "short", 60)
        await service.until(lambda: service.witness.count("did") > len(ids))
        dead.kill()
        await _all_over(service, alive)
        assert {note.pid for note in service.witness.notes} == {dead.pid, alive.pid}
        await _check(service, ids, SHORT)


async def test_the_runs_of_a_process_that_is_frozen_are_taken_over_and_it_does_no_more_than_the_step_in_hand(
    tmp_path: Path,
) -> None:
    with Service(tmp_path, "postgres", lease=2) as service:
        frozen = await service.process()
        ids = await _started(frozen, "gated", 10)
        await service.until(lambda: service.witness.count("began") == len(ids))
        frozen.tell(signal.SIGSTOP)
        other = await service.process()
        await service.until(lambda: service.witness.count("began") == 2 * len(ids))
        service.witness.open_gate()
        await _all_over(service, other)
        frozen.tell(signal.SIGCONT)
        async with frozen.client() as client:
            await service.until(lambda: holds_no_more(client, {"runs": 0}))
        await frozen.stop()
        assert {note.step for note in service.witness.notes if note.pid == frozen.pid} == {"before", "gate"}
        await _check(service, ids, GATED)


async def test_the_runs_of_a_process_that_is_stopped_are_gone_on_with_elsewhere_while_streams_are_read_there(
    tmp_path: Path,
) -> None:
    with Service(tmp_path, "postgres", lease=600) as service:
        stopped, other = [await service.process(), await service.process()]
        ids = await _started(stopped, "long", 10)
        readers = [Reader(run_id) for run_id in ids]
        async with other.client() as client, together() as group:
            for reader in readers:
                group.create_task(reader.read(client))
            await service.until(lambda: service.witness.count("did") > 10 * len(ids))
            await stopped.stop()
        assert {note.pid for note in service.witness.notes} == {stopped.pid, other.pid}
        await _check(service, ids, LONG)
        for reader in readers:
            check_once(service.witness.did(reader.run_id), LONG)
            async with service.store() as store:
                assert reader.seen == await events_of(store, reader.run_id)


async def test_of_one_key_never_two_runs_are_at_work_in_two_processes_of_which_one_is_killed(tmp_path: Path) -> None:
    with Service(tmp_path, "postgres", lease=600) as service:
        dead, alive = [await service.process(), await service.process()]
        keys = await _started_with_keys(dead, 8) | await _started_with_keys(alive, 8)
        await service.until(lambda: service.witness.count("did") > len(keys))
        dead.kill()
        await _all_over(service, alive)
        for key in set(keys.values()):
            turns = [run_id for run_id, _ in groupby(n.run_id for n in service.witness.notes if keys[n.run_id] == key)]
            assert len(turns) == len(set(turns)), f"two runs of {key} were at work"
        await _check(service, list(keys), KEYED)


async def _started(process: Process, flow: str, number: int) -> list[str]:
    async with process.client() as client:
        ids = await asyncio.gather(*(start(client, flow, f"{flow}-{each}") for each in range(number)))
    assert None not in ids
    return [run_id for run_id in ids if run_id]


async def _started_with_keys(process: Process, number: int) -> dict[str, str]:
    """The ids of so many runs of each of three keys, and their keys."""
    keys = [key for key in "abc" for _ in range(number)]
    async with process.client() as client:
        ids = [await start(client, "keyed", f"{process.pid}-{each}", key) for each, key in enumerate(keys)]
    return {run_id: key for run_id, key in zip(ids, keys, strict=True) if run_id}


async def _all_over(service: Service, process: Process) -> None:
    async with process.client() as client:
        await service.until(lambda: are_over(client))


async def _check(service: Service, ids: Sequence[str], steps: Sequence[str]) -> None:
    """These are all the runs there are; each is completed, and no process has repeated more than the step in hand."""
    did = by_run(service.witness.notes)
    async with service.store() as store:
        assert await run_ids(store) == set(ids)
        for run_id in ids:
            await check_completed(store, run_id, steps)
            check_repeats(did[run_id], steps)
