"""A process with an engine, to be killed, or told to end.

    python engine_child.py MODE FOLDER PLACE…

"many" begins RUNS runs, each with an effect in every step. "poison" works on a run whose second step kills the process
as long as there is a file `poison` in the folder; each of its other steps does so once where there is a file `frail`.
"serve" works until it is told to end, and "lifespan" as the lifespan of an application, under a handler of its own.
It says on its output how far it has come.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from flowneer_async import Context, FlowBuilder
from flowneer_async.engine import Engine
from tests.support.places import store_at

RUNS, STEPS = 40, 4
RECOVERIES = 2

State = dict[str, Any]


def say(what: str) -> None:
    print(what, flush=True)


def note(folder: Path, line: str) -> None:
    file = os.open(folder / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{line}\n".encode())
    os.close(file)


async def effect(state: State, ctx: Context[Path]) -> None:
    note(ctx.deps, f"{ctx.run_id} {ctx.step} {os.getpid()}")
    await asyncio.sleep(0.002)
    state[ctx.step] = True


def many() -> FlowBuilder[State]:
    flow = FlowBuilder[State]("many")
    for number in range(STEPS):
        flow = flow.then(effect, name=f"s{number}")
    return flow


async def frail(state: State, ctx: Context[Path]) -> None:
    """Dies once in each process, at its first step there, where it is frail; then it is done."""
    died = ctx.deps / f"died-{ctx.step}"
    if (ctx.deps / "frail").exists() and not died.exists():
        died.touch()
        os._exit(3)
    state[ctx.step] = True


async def poison(state: State, ctx: Context[Path]) -> None:
    note(ctx.deps, "poison")
    if (ctx.deps / "poison").exists():
        os.kill(os.getpid(), signal.SIGKILL)


def poisoned() -> FlowBuilder[State]:
    flow = FlowBuilder[State]("poisoned").then(frail, name="before").then(poison)
    for number in range(2 * RECOVERIES):
        flow = flow.then(frail, name=f"after{number}")
    return flow


async def hang(state: State) -> None:
    if not state:
        state["hung"] = True
        say("hangs")
        await asyncio.sleep(3600)


def hanging() -> FlowBuilder[State]:
    return FlowBuilder[State]("hanging").then(hang)


async def work(mode: str, folder: Path, place: list[str]) -> None:
    store = store_at(*place)
    engine = Engine(store, [many(), poisoned(), hanging()], deps=folder, max_recoveries=RECOVERIES, poll=0.05, grace=0)
    if mode == "many":
        async with store, engine:
            handles = [await engine.start("many", {}, run_id=f"r{number}") for number in range(RUNS)]
            say("accepted")
            for handle in handles:
                await handle.result()
    elif mode == "poison":
        async with store, engine:
            say("at work")
            await (await engine.start("poisoned", {}, run_id="p")).result()
    elif mode == "serve":
        async with asyncio.TaskGroup() as group:
            group.create_task(engine.serve())
            await begin_hanging(engine)
        say("left")
    else:
        await in_lifespan(engine)


async def begin_hanging(engine: Engine) -> None:
    while engine.is_stopping:
        await asyncio.sleep(0.01)
    await engine.start("hanging", {}, run_id="h")


async def in_lifespan(engine: Engine) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def mine(number: int, frame: FrameType | None) -> None:
        say(f"mine {signal.Signals(number).name}")
        loop.call_soon_threadsafe(told.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, mine)
    app: Any = SimpleNamespace(state=SimpleNamespace())
    async with engine.lifespan(app):
        assert app.state.engine is engine
        await begin_hanging(engine)
        await told.wait()
        say(f"stopping {engine.is_stopping}")
    say(f"restored {signal.getsignal(signal.SIGTERM) is mine and signal.getsignal(signal.SIGINT) is mine}")


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
