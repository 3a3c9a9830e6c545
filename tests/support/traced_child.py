"""A process that starts a traced run, says where it is traced, and hangs in its second step until it is killed.

python traced_child.py DATABASE
"""

import asyncio
import os
import sys
from typing import Any

from opentelemetry import trace

from flowneer_async import FlowBuilder
from flowneer_async.engine import Engine
from flowneer_async.observing.otel import OpenTelemetry
from flowneer_stores import SqliteStore
from tests.support.observed import collected

State = dict[str, Any]


async def first(state: State) -> None: ...


async def hang(state: State) -> None:
    if os.environ.get("HANGS"):
        ids = trace.get_current_span().get_span_context()
        print(trace.format_trace_id(ids.trace_id), flush=True)
        await asyncio.sleep(3600)


FLOW = FlowBuilder[State]("order").then(first).then(hang)


async def main(database: str) -> None:
    with collected() as seen:
        async with (
            SqliteStore(database) as store,
            Engine(store, [FLOW], telemetry=OpenTelemetry(seen.tracers, seen.meters)) as engine,
        ):
            await (await engine.start(FLOW, {}, run_id="r")).result()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
