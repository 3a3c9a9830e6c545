"""How often in a row the owners of a run have died, and who goes on with it then."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from sqlite3 import connect
from typing import TypeAlias

import asyncpg
import pytest

from flowneer_async import VersionStore
from flowneer_async.store import Due
from flowneer_async.testing.chains import counting, new_run, owned
from flowneer_stores.owner import this_owner
from tests.support.postgres import schema_of, server
from tests.support.stores import opened

KINDS = ("sqlite", "postgres")
FLOW = Due(frozenset({"flow"}))
GONE = f"{this_owner().rpartition(':')[0]}:1:00000000"
"""A store of a process that was started at another time, and is no more."""

Execute: TypeAlias = Callable[[str], Awaitable[None]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def store(kind: str, tmp_path: Path) -> AsyncGenerator[VersionStore, None]:
    async with opened(kind, tmp_path) as store:
        yield store


@pytest.fixture
async def execute(kind: str, tmp_path: Path) -> AsyncGenerator[Execute, None]:
    """Something to do to the tables behind the store's back."""
    if kind == "sqlite":
        with closing(connect(tmp_path / "runs.db", isolation_level=None, check_same_thread=False)) as db:

            async def in_file(sql: str) -> None:
                db.execute(sql)

            yield in_file
    else:
        connection = await asyncpg.connect(server().dsn, server_settings={"search_path": schema_of(tmp_path)})

        async def in_database(sql: str) -> None:
            await connection.execute(sql)

        yield in_database
        await connection.close()


LAPSED = "UPDATE flowneer_runs SET lease_until = 0"


async def due(store: VersionStore) -> list[str]:
    return [run.run_id for run in await store.due(FLOW, 10)]


async def test_a_run_is_due_as_soon_as_nobody_works_on_it(store: VersionStore, execute: Execute) -> None:
    for number in range(4):
        await owned(store, f"run-{number}")
    assert await due(store) == []
    await execute(f"{LAPSED} WHERE run_id = 'run-1'")
    assert await due(store) == ["run-1"]
    await execute(f"UPDATE flowneer_runs SET owner = '{GONE}' WHERE run_id = 'run-2'")
    assert await due(store) == ["run-1", "run-2"]
    await execute("UPDATE flowneer_runs SET owner = 'elsewhere:1:1:1' WHERE run_id = 'run-3'")
    assert await due(store) == ["run-1", "run-2"]


async def test_runs_that_were_left_behind_come_first_within_their_priority(
    store: VersionStore, execute: Execute
) -> None:
    for status, priority in product(("waiting", "running"), (0, 1)):
        await store.create(replace(new_run(f"{status}-{priority}"), status=status, wake=5, priority=priority))
    await execute(LAPSED)
    assert await due(store) == ["running-1", "waiting-1", "running-0", "waiting-0"]


@pytest.mark.parametrize("ends", list(product(("dies", "stores", "gives back"), repeat=4)), ids="-".join)
async def test_owners_that_die_without_a_version_are_counted(
    store: VersionStore, execute: Execute, ends: tuple[str, ...]
) -> None:
    run = await owned(store, length=9, stored=1)
    lease, expected, head = run.lease, 0, 0
    for end in ends:
        if end == "stores":
            head += 1
            await store.append(lease, run.versions[head : head + 1])
        if end == "gives back":
            await store.release(lease, "running")
            expected = 0
        else:
            await execute(LAPSED)
            expected = 1 if end == "stores" else expected + 1
        (found,) = await store.due(FLOW, 10)
        lease = await store.claim(found)
        assert (await store.read("run")).recoveries == expected
    await store.release(lease, "waiting")
    assert (await store.read("run")).recoveries == expected


async def test_a_store_that_closes_gives_its_runs_back(store: VersionStore, kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as other:
        await owned(other)
    (run,) = await store.due(FLOW, 10)
    await store.claim(run)
    assert (await store.read("run")).recoveries == 0


async def test_what_is_damaged_is_no_run_to_go_on_with_and_in_no_others_way(
    store: VersionStore, execute: Execute
) -> None:
    for number in range(20):
        lease = await store.create(new_run(f"run-{number}"), counting(f"run-{number}", 1))
        assert lease is not None
        await store.release(lease, "waiting", wake=5)
    await execute("UPDATE flowneer_runs SET steps = '7' WHERE run_id NOT IN ('run-3', 'run-19')")
    for limit, expected in ((0, []), (1, ["run-3"]), (2, ["run-3", "run-19"]), (9, ["run-3", "run-19"])):
        assert [run.run_id for run in await store.due(FLOW, limit)] == expected
