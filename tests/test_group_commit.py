"""Runs that store at the same time share transactions."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import FlowBuilder
from flowneer_stores import SqliteStore

STEPS = 30


def count(state: dict[str, Any]) -> None:
    state["n"] += 1


def counting() -> FlowBuilder[dict[str, object]]:
    flow = FlowBuilder("counting")
    for number in range(STEPS):
        flow = flow.then(count, name=f"step-{number}")
    return flow


def appends_versions(sql: str) -> bool:
    """Is it a statement that stores versions, alone or with their runs?"""
    return "FROM (VALUES" in sql and ("INTO flowneer_versions" in sql or "INTO flowneer_chains" in sql)


@pytest.mark.parametrize("runs", [2, 8, 100])
async def test_runs_that_store_at_the_same_time_share_transactions(runs: int, tmp_path: Path) -> None:
    """So that they wait for the disk about as often as one of them would; many do so in two halves, by turns."""
    appends: set[str] = set()  # what a trigger does is reported as its whole statement once more
    async with SqliteStore(tmp_path / "runs.db") as store:
        assert store._opened is not None
        await store._opened.db.set_trace_callback(lambda sql: appends_versions(sql) and appends.add(sql))
        flow = counting().with_versioned_checkpoint(store)
        results = await asyncio.gather(*(flow.run({"n": 0}) for _ in range(runs)))
    assert [result.state for result in results] == [{"n": STEPS}] * runs
    halves = 1 if runs < 64 else 2
    assert len(appends) <= halves * (STEPS + 1) + 10


async def test_a_run_alone_waits_for_nobody(tmp_path: Path) -> None:
    """Each of its versions is a transaction of its own."""
    appends: set[str] = set()  # what a trigger does is reported as its whole statement once more
    async with SqliteStore(tmp_path / "runs.db") as store:
        assert store._opened is not None
        await store._opened.db.set_trace_callback(lambda sql: appends_versions(sql) and appends.add(sql))
        await counting().with_versioned_checkpoint(store).run({"n": 0})
    assert len(appends) == STEPS + 1
