"""Another engine that keeps runs in SQLite, where it is installed: DBOS Transact, `pip install dbos`."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Generator
from contextlib import closing, contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from math import nan
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.figure import Figure, duration
from benchmarks.flows import count, row_of, small_state
from benchmarks.measure import Scale, by_turns
from benchmarks.steps import STEPS_OF_EACH, on_disk
from flowneer_async.engine import Engine
from flowneer_stores import SqliteStore

FLOW = row_of(count, STEPS_OF_EACH)


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    for runs in (1, scale.peers):
        name = f"{runs} × {STEPS_OF_EACH} steps in the background, beside DBOS Transact"
        if find_spec("dbos") is None:
            yield Figure(name, "", "dbos is not installed", nan)
            continue
        with _dbos() as there:
            pairs = await by_turns(partial(on_disk, partial(_ours, runs)), partial(_theirs, there, runs), scale)
        more, each = pairs.turned(), pairs.each(runs * STEPS_OF_EACH)
        ours, peer = (f"{duration(seconds)} a step" for seconds in (each.our_median, each.peer_median))
        yield Figure(name, ours, peer, more.ratio, "≥ 1 ×", more.ratio >= 1, more.spread)


async def _ours(runs: int, path: Path) -> float:
    async with SqliteStore(path) as store, Engine(store, [FLOW]) as engine:
        start = perf_counter()
        handles = [await engine.start(FLOW, small_state()) for _ in range(runs)]
        await asyncio.gather(*[handle.result() for handle in handles])
        return perf_counter() - start


async def _theirs(there: Connection, runs: int) -> float:
    there.send(runs)
    return float(there.recv())


@contextmanager
def _dbos() -> Generator[Connection]:
    """In a process of its own, for its threads are never idle; told how many runs, it says how many seconds."""
    context = get_context("spawn")
    here, there = context.Pipe()
    with TemporaryDirectory(prefix="bench-") as folder:
        process = context.Process(target=_serve, args=(Path(folder, "dbos.db"), there))
        process.start()
        try:
            yield here
        finally:
            here.send(0)
            process.join()


def _serve(path: Path, there: Connection) -> None:
    dbos: Any = import_module("dbos").DBOS
    with closing(sqlite3.connect(path)) as db:  # as our file is, and as it stays; synchronous=FULL is the default
        db.execute("PRAGMA journal_mode = WAL")
    config = {"name": "bench", "system_database_url": f"sqlite:///{path}", "run_admin_server": False}
    dbos(config={**config, "log_level": "CRITICAL"})

    @dbos.step()  # type: ignore[untyped-decorator]
    async def step(number: int) -> int:
        return number + 1

    @dbos.workflow()  # type: ignore[untyped-decorator]
    async def flow() -> int:
        number = 0
        for _ in range(STEPS_OF_EACH):
            number = await step(number)
        return number

    async def run(runs: int) -> float:
        start = perf_counter()
        handles = [await dbos.start_workflow_async(flow) for _ in range(runs)]
        results = await asyncio.gather(*[handle.get_result() for handle in handles])
        assert results == [STEPS_OF_EACH] * runs
        return perf_counter() - start

    dbos.launch()
    try:
        with asyncio.Runner() as runner:
            while runs := there.recv():
                there.send(runner.run(run(runs)))
    finally:
        dbos.destroy()
