"""A flow that only counts, for tests of what holds it."""

from pathlib import Path
from typing import Any

from flowneer_async import FlowBuilder, VersionStore
from flowneer_async.store import resolve

State = dict[str, Any]


async def count(state: State) -> None:
    state["n"] += 1


COUNTING = FlowBuilder[State]("counting").start_with(count, name="1").then(count, name="2").then(count, name="3")


async def counts(store: VersionStore, run_id: str, **more: object) -> None:
    """Run `run_id` to its end, new or not, and look at what became of it."""
    result = await COUNTING.with_versioned_checkpoint(store).run({"n": 0, **more}, run_id=run_id)
    assert (result.state["n"], result.version) == (3, f"{run_id}@3")
    assert (await resolve(store, f"{run_id}@2")).state == {"n": 2, **more}


def sidecars(path: Path) -> list[Path]:
    """A SQLite file and those beside it."""
    return [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]
