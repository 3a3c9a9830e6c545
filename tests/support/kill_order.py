"""A process to be killed: an order on SQLite that waits for its payment, ships, and is undone when it must be.

    python kill_order.py FOLDER RUN_ID FLOW

FLOW is "waiting" or "undoing". Each effect is a line in the ledger: the path of its step, and the process. The process
works on the run until it is over or waits; `waiting` sends the signal that it waits for, once, and goes on.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from flowneer_async import Context, FlowBuilder, FlowError, Undone, fragment
from flowneer_stores import SqliteStore

State = dict[str, Any]
STEPS = 12
SIGNALS = 8


class Ledger:
    """The outside world: it is told every effect, and forgets nothing."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, path: str) -> None:
        os.write(self._file, f"{path} {os.getpid()}\n".encode())


def take(state: State) -> None:
    state["taken"] = [*state.get("taken", []), state.pop("paid")]


async def ask(state: State, ctx: Context[Ledger]) -> None:
    """A call that is remembered, a question, and an effect after the answer."""
    ctx.deps.note(f"{ctx.step}/asked")
    state["answer"] = await ctx.interrupt("go on?")
    ctx.deps.note(ctx.step)


def waiting() -> FlowBuilder[State]:
    """Takes signals one by one in a loop, beside a lane that asks; then both are merged."""
    signals = FlowBuilder[State]("signals").loop(
        lambda state: len(state.get("taken", [])) < SIGNALS,
        fragment().wait_for("paid", into="paid").then(take),
        name="all",
    )
    return FlowBuilder[State]("waiting").parallel([signals, ask], name="lanes")


def do(state: State, ctx: Context[Ledger]) -> None:
    ctx.deps.note(ctx.step)
    state[ctx.step] = "done"


def undo(state: State, ctx: Context[Ledger]) -> None:
    ctx.deps.note(ctx.step)
    del state[ctx.step.removesuffix("/@undo")]


async def fail(state: State) -> None:
    raise ValueError


def undoing() -> FlowBuilder[State]:
    """Does steps, some of them in lanes, and fails when all are done: so all are undone."""
    flow: FlowBuilder[State] = FlowBuilder("undoing")
    for number in range(STEPS):
        flow = flow.then(do, name=f"step-{number}", compensate=undo)
    lanes = [
        fragment().then(do, name=name, compensate=undo).then(do, name=f"{name}2", compensate=undo) for name in "ab"
    ]
    return flow.parallel(lanes, name="lanes").then(fail)


async def wait_and_go_on(store: SqliteStore, run_id: str, ledger: Ledger) -> None:
    """Plays both sides: sends what the run still waits for, each once, and lets it go on."""
    flow = waiting().with_versioned_checkpoint(store)
    result = await flow.run({}, run_id=run_id, deps=ledger)
    while result.status == "waiting":
        sent = len(await store.signals(run_id))
        if sent < SIGNALS:
            await flow.signal(run_id, "paid", sent)
            result = await flow.resume(run_id, deps=ledger)
        elif any(wait.kind == "answer" for wait in result.waits):
            result = await flow.resume(run_id, answer="yes", deps=ledger)
        else:
            result = await flow.resume(run_id, deps=ledger)


async def fail_and_undo(store: SqliteStore, run_id: str, ledger: Ledger) -> None:
    """Works until the run is undone."""
    try:
        await undoing().with_versioned_checkpoint(store).run({}, run_id=run_id, deps=ledger)
    except (FlowError, Undone):
        return
    raise AssertionError("the run cannot end well")


async def main(folder: str, run_id: str, flow: str) -> None:
    print("imported", flush=True)
    ledger = Ledger(Path(folder) / "ledger")
    async with SqliteStore(Path(folder) / "runs.db") as store:
        print("opened", flush=True)
        await {"waiting": wait_and_go_on, "undoing": fail_and_undo}[flow](store, run_id, ledger)
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
