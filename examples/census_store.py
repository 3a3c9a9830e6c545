"""What a store knows of a census: read between two starts, and by the demo while another process counts."""

from dataclasses import dataclass
from typing import cast

from census_count import Census, new_census

from flowneer_async import Run, UnknownRun
from flowneer_stores import SqliteStore


@dataclass(frozen=True, slots=True)
class Stored:
    """A run and its last stored state; no run and an empty state where the store has none."""

    run_id: str
    run: Run | None
    census: Census

    @property
    def finished(self) -> bool:
        return self.run is not None and self.run.status == "completed"

    @property
    def steps_done(self) -> int:
        """Version 0 is the state before any step; each step adds one."""
        return max(self.run.head, 0) if self.run else 0

    @property
    def steps(self) -> int:
        return len(self.run.steps) if self.run else 0

    @property
    def progress(self) -> tuple[int, int]:
        """How many files are counted, how many there are."""
        return self.census["done"], len(self.census["files"])


async def stored_census(store: SqliteStore, run_id: str) -> Stored:
    """The run and the state after its last stored step."""
    try:
        run = await store.read(run_id)
    except UnknownRun:
        return Stored(run_id, None, new_census(""))
    if run.head < 0:
        return Stored(run_id, run, new_census(""))
    snapshot = await store.resolve(f"{run_id}@{run.head}")
    return Stored(run_id, run, cast(Census, snapshot.state))
