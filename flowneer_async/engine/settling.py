"""Bringing runs to an end that nobody works on, and telling those who wait for it."""

import logging
from contextlib import suppress

from flowneer_async.control import End
from flowneer_async.engine.tags import PARENT
from flowneer_async.engine.telemetry import Telemetry
from flowneer_async.errors import FlowneerError, RunBusy, UnknownRun
from flowneer_async.policy import World
from flowneer_async.shield import complete
from flowneer_async.store import VersionStore
from flowneer_async.versions import OPEN, Run

CHILD = "@child"
"""The signal to a run that one of its children is over."""

_LOG = logging.getLogger("flowneer_async.engine")


class Settling:
    """Ends runs, and tells of runs that have ended."""

    def __init__(self, store: VersionStore, telemetry: Telemetry, world: World) -> None:
        self._store, self._telemetry, self._world = store, telemetry, world

    async def finish(self, run: Run, end: End) -> None:
        """End a run that nobody works on, unless somebody is quicker."""
        with suppress(RunBusy, UnknownRun):
            await complete(self._close(run, end))
            await self.told(run, end)

    async def told(self, run: Run, end: End) -> None:
        """Tell of a run that was stored to have ended so, where it is over; whoever has called it goes on."""
        if end.status in OPEN:
            return
        self._telemetry.ended(run, end.status, (self._world.now() - run.created) / 1000)
        parent = run.tags.get(PARENT)
        if parent is None:
            return
        try:
            await self._store.send(parent, CHILD, b"null")
        except FlowneerError as error:  # the parent looks for itself, if later
            _LOG.warning("run %s could not be told that its child %s is over: %s", parent, run.run_id, error)

    async def _close(self, run: Run, end: End) -> None:
        lease = await self._store.claim(run)
        await self._store.release(lease, end.status, end.error, wake=end.wake)
