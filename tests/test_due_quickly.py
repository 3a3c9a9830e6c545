"""What is due is found by what it costs: however many runs sleep, are queued, or are over."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection, connect
from typing import Any

import asyncpg
import pytest

from flowneer_async.store import Due, RunFilter
from flowneer_async.versions import Status
from flowneer_stores import SqliteStore
from flowneer_stores.postgres import queries as postgres
from flowneer_stores.sqlite import queries as sqlite
from flowneer_stores.sqlite.finding import conditions
from tests.support.postgres import schema_of, server, store_at

MANY = 100_000
SLEEPS = 10**15  # ms: longer than any test
FLOWS = [f"flow-{number}" for number in range(5)]
COLUMNS = (
    "run_id, flow, state_type, steps, status, epoch, lease_until, created, updated, first, tags, seal, wake, priority"
)
EACH = "'flow-' || (n % 5), 'dict', '[]', {status}, 2, 0, 1, 1, 0, '{{}}', '', {wake}, n % 3, 'key-' || (n % 1000), 1"
"""Runs of all flows, of three priorities, of many keys."""


def fill_sqlite(db: Connection, name: str, status: Status, wake: int) -> None:
    numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
    each = EACH.format(status="?", wake="?").replace("'', ?", "x'', ?")
    db.execute(
        f"{numbers} INSERT INTO flowneer_runs ({COLUMNS}, key, begun) SELECT ? || n, {each} FROM numbers",
        (MANY, name, status, wake),
    )


def steps(db: Connection, work: Callable[[], object]) -> int:
    """How many thousand steps SQLite takes for some work."""
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1

    db.set_progress_handler(step, 1000)
    work()
    db.set_progress_handler(None, 0)
    return taken


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with very many runs that sleep, that are queued, and that are over."""
    return tmp_path_factory.mktemp("due") / "runs.db"


@pytest.fixture
async def db(path: Path) -> Any:
    async with SqliteStore(path):
        pass
    with closing(connect(path, isolation_level=None)) as db:
        yield db


def due(db: Connection, limit: int, flows: list[str] = FLOWS) -> list[Any]:
    return db.execute(sqlite.DUE, (1000, json.dumps(flows), "[]", "[]", limit)).fetchall()


async def test_in_a_file_a_look_costs_no_more_for_all_who_sleep_or_are_queued(db: Connection) -> None:
    fill_sqlite(db, "sleeps-", "waiting", SLEEPS)
    fill_sqlite(db, "over-", "completed", 0)
    assert due(db, 100) == []
    assert steps(db, lambda: due(db, 100)) < 3
    fill_sqlite(db, "queued-", "waiting", 1)
    assert len(due(db, 100)) == 100
    assert steps(db, lambda: due(db, 100)) < 100
    assert steps(db, lambda: due(db, 1)) < 5


async def test_in_a_file_each_question_of_an_engine_has_its_index(db: Connection) -> None:
    running = frozenset[Status]({"running"})
    questions = [
        (RunFilter(running, "flow-1"), "flowneer_runs_running (flow=?)"),
        (RunFilter(running, "flow-1", key="key-7"), "flowneer_runs_running (flow=? AND key=?)"),
        (RunFilter(flow="flow-1", begun_after=7), "flowneer_runs_begun (flow=? AND begun>?)"),
    ]
    for runs, index in questions:
        fits, parameters = conditions(runs, 1000, [])
        plan = db.execute(f"EXPLAIN QUERY PLAN {sqlite.COUNT.replace('{conditions}', fits)}", parameters).fetchall()
        assert any(index in row[-1] for row in plan), plan
    fits, parameters = conditions(RunFilter(running, cancelling=True), 1000, [])
    plan = db.execute(f"EXPLAIN QUERY PLAN {sqlite.FIND.replace('{conditions}', fits)}", (*parameters, 9)).fetchall()
    assert any("flowneer_runs_cancelling" in row[-1] for row in plan), plan
    plan = db.execute(f"EXPLAIN QUERY PLAN {sqlite.DUE}", (1000, "[]", "[]", "[]", 9)).fetchall()
    assert any("flowneer_runs_due (flow=? AND priority=? AND due<?)" in row[-1] for row in plan), plan
    assert not any("SCAN flowneer_runs" in row[-1] or "SCAN runs" in row[-1] for row in plan), plan


async def test_in_a_database_a_look_costs_no_more_for_all_who_sleep_or_are_queued(tmp_path: Path) -> None:
    schema = schema_of(tmp_path)
    async with store_at(tmp_path) as store:
        connection = await asyncpg.connect(server().dsn, server_settings={"search_path": schema, "jit": "off"})

        async def fill(name: str, status: Status, wake: int) -> None:
            each = EACH.format(status="$2::text", wake="$3::bigint").replace("'{}'", "'{}'::jsonb")
            await connection.execute(
                f"INSERT INTO flowneer_runs ({COLUMNS}, key, begun, ticket) "
                f"SELECT $1::text || n, {each}, 0 FROM generate_series(1, {MANY}) AS n",
                name,
                status,
                wake,
            )

        async def blocks(limit: int) -> int:
            """How many pages a look reads."""
            question = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {postgres.within(postgres.DUE, schema)}"
            ((plan,),) = await connection.fetch(question, FLOWS, [], [], limit)
            top = json.loads(plan)[0]["Plan"]
            return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])

        try:
            for number in range(2):  # without statistics, and with them
                await fill(f"sleeps-{number}-", "waiting", SLEEPS)
                await fill(f"over-{number}-", "completed", 0)
                assert list(await store.due(Due(frozenset(FLOWS)), 100)) == []
                assert await blocks(100) < 300
                await connection.execute("ANALYZE flowneer_runs")
            await fill("queued-", "waiting", 1)
            assert len(await store.due(Due(frozenset(FLOWS)), 100)) == 100
            assert await blocks(100) < 10_000
            assert await blocks(1) < 500
        finally:
            await connection.close()
