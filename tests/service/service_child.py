"""A service in a process of its own, to be killed, frozen and stopped: flows over HTTP, by uvicorn.

    python service_child.py FOLDER OPTIONS PLACE…

OPTIONS are the lease of the store, the grace and poll of the engine, and the patience of uvicorn with its connections,
in seconds, as JSON. It listens on a port that
its log names. Its steps note what they do in the witness in the folder; some wait there for a gate to be opened.
"""

import asyncio
import gc
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from flowneer_async import Context, FlowBuilder
from flowneer_async.engine import Engine, Limits
from flowneer_async.fastapi import flow_router, health_router
from flowneer_async.runner import Execution
from tests.service.witness import Witness
from tests.support.places import store_at

PAUSE = 0.02  # seconds, at most, before and after an effect
SHORT = tuple(f"step-{number}" for number in range(5))
LONG = tuple(f"step-{number}" for number in range(60))
GATED = ("before", "gate", "after")
KEYED = ("enter", "stay", "leave")

State = dict[str, Any]
Step = Callable[[State, Context[Witness]], Awaitable[None]]


async def effect(state: State, ctx: Context[Witness]) -> None:
    """An effect, in the middle of some time, then a change."""
    await asyncio.sleep(random.uniform(0, PAUSE))
    ctx.deps.note("did", ctx)
    await asyncio.sleep(random.uniform(0, PAUSE))
    state["log"].append(ctx.step)


async def pass_gate(state: State, ctx: Context[Witness]) -> None:
    """The same, once the gate is open."""
    ctx.deps.note("began", ctx)
    while not ctx.deps.is_gate_open:
        await asyncio.sleep(0.01)
    await effect(state, ctx)


def chain(name: str, steps: Sequence[str]) -> FlowBuilder[State]:
    flow: FlowBuilder[State] = FlowBuilder(name)
    for step in steps:
        flow = flow.then(pass_gate if step == "gate" else effect, name=step)
    return flow


async def say_much(state: State, ctx: Context[Witness]) -> None:
    """A change whose event is long."""
    state["k" * 200_000] = ctx.step


def asked() -> FlowBuilder[State]:
    """It waits for a signal."""
    return chain("asked", SHORT[:2]).wait_for("approved").then(effect, name=SHORT[2])


def wide() -> FlowBuilder[State]:
    """Its events fill every buffer between a process and a client that does not read."""
    flow: FlowBuilder[State] = FlowBuilder("wide")
    for number in range(50):
        flow = flow.then(say_much, name=f"step-{number}")
    return flow


FLOWS = (chain("short", SHORT), chain("long", LONG), chain("gated", GATED), chain("keyed", KEYED), asked(), wide())


def app_of(engine: Engine) -> FastAPI:
    """The routes, and one that tells what the process holds."""
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(flow_router(engine, allow_anonymous=True))
    app.include_router(health_router(engine))

    @app.get("/held")
    async def held() -> dict[str, int]:
        """How many tasks, files (which connections are, too), runs at work, and what is in memory of runs."""
        runs = (await engine.health()).running
        gc.collect()
        return {
            "runs": runs,
            "tasks": len(asyncio.all_tasks()),
            "files": len(os.listdir("/proc/self/fd")),
            "executions": sum(isinstance(each, Execution) for each in gc.get_objects()),
        }

    return app


def main(folder: str, options: str, *place: str) -> None:
    given = json.loads(options)
    store = store_at(*place, lease=given["lease"])
    engine = Engine(
        store,
        FLOWS,
        deps=Witness(Path(folder)),
        limits={"keyed": Limits(per_key=1)},
        max_recoveries=1000,
        grace=given["grace"],
        poll=given["poll"],
    )
    uvicorn.run(app_of(engine), port=0, access_log=False, timeout_graceful_shutdown=given["patience"])


if __name__ == "__main__":
    main(*sys.argv[1:])
