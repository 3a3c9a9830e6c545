"""Whether an engine can do its work: its store can be written."""

from dataclasses import dataclass

import anyio

from flowneer_async.engine.wording import shown
from flowneer_async.policy import World
from flowneer_async.shield import complete
from flowneer_async.store import VersionStore
from flowneer_async.versions import Run

PROBE = "@health"
"""The flow of the runs that are stored, and at once forgotten, to see whether the store can be written."""

_FRESH = 1000  # ms for which an answer is good


@dataclass(frozen=True, slots=True)
class Health:
    """Can the engine accept runs? If not, for this `reason`; so many runs are at work in this process."""

    is_ok: bool
    reason: str | None
    running: int


class Probe:
    """Finds out whether a store can be written, at most once a second however often it is asked."""

    def __init__(self, store: VersionStore, world: World) -> None:
        self._store, self._world = store, world
        self._turn = anyio.Lock()
        self._asked: int | None = None
        self._reason: str | None = None

    async def reason(self) -> str | None:
        """Why the store cannot be written; None where it can."""
        async with self._turn:  # of those who ask together, one asks the store
            now = self._world.now()
            if self._asked is None or not 0 <= now - self._asked < _FRESH:
                # As a whole: whoever stops waiting for the answer leaves no run behind.
                self._asked, self._reason = now, await complete(self._ask(now))
            return self._reason

    async def _ask(self, now: int) -> str | None:
        run_id = f"health-{self._world.new_run_id()}"
        try:
            # Waiting for nothing: so nobody owns it, and it can be purged at once.
            await self._store.create(Run(run_id, PROBE, "dict", (), "waiting", created=now, updated=now))
            await self._store.purge(run_id)
        except Exception as error:
            return shown(error)
        return None
