"""A process to be killed: a flow of fifty small steps on SQLite, each with an effect that a ledger shows.

    python kill_child.py FOLDER RUN_ID [DURABILITY [STEP]]

Given the number of a step, it kills itself in it, after its effect. It says on its output how far it has come.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

from flowneer_async import Context, FlowBuilder
from flowneer_stores import SqliteStore

STEPS = 50
State = dict[str, Any]


class Ledger:
    """The outside world: it is told every effect with its key, and forgets nothing."""

    def __init__(self, path: Path, die_at: int | None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._die_at = die_at

    def note(self, index: int, key: str) -> None:
        os.write(self._file, f"{index} {key} {os.getpid()}\n".encode())
        if index == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Nothing(Ledger):
    """A world without memory, for the undisturbed run to compare with."""

    def __init__(self) -> None:
        pass

    def note(self, index: int, key: str) -> None:
        pass


def start() -> State:
    return {"log": [], "text": "", "tree": {"leaf": 0}}


async def step(state: State, ctx: Context[Ledger]) -> None:
    """An effect, then a change; every tenth step has nothing but its effect."""
    index = int(ctx.step.removeprefix("step-"))
    ctx.deps.note(index, ctx.idempotency_key)
    if index % 10 == 9:
        return
    state["log"].append(f"step {index}")
    state["text"] += "é" * index
    state["tree"]["leaf"] += index
    state[f"key-{index % 7}"] = [index, {"half": index / 2}]
    if index % 5 == 4:
        del state[f"key-{(index - 2) % 7}"]


def fifty_steps() -> FlowBuilder[State]:
    flow: FlowBuilder[State] = FlowBuilder("fifty")
    for index in range(STEPS):
        flow = flow.then(step, name=f"step-{index}")
    return flow


async def main(folder: str, run_id: str, durability: str = "sync", die_at: str | None = None) -> None:
    print("imported", flush=True)
    ledger = Ledger(Path(folder) / "ledger", None if die_at is None else int(die_at))
    async with SqliteStore(Path(folder) / "runs.db") as store:
        print("opened", flush=True)
        flow = fifty_steps().with_versioned_checkpoint(store, durability=cast(Any, durability))
        print("done", (await flow.run(start(), run_id=run_id, deps=ledger)).version, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
