"""What every store of this package can be asked, beside the methods of the protocol that it answers by."""

from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from typing import Unpack

from flowneer_async.errors import BadOption
from flowneer_async.following import follow
from flowneer_async.keeping import Where, every_run, prune, run_filter
from flowneer_async.store import Page, Plain, VersionStore, resolve
from flowneer_async.verifying import Verified, verify
from flowneer_async.versions import Run, Snapshot, Status, Version

_MOST = 10_000


def row_of(after: str) -> int:
    """The row that a page ended with, from its `next`; raises BadOption."""
    if not (after.isascii() and after.isdecimal() and len(after) < 19):
        raise BadOption("after", after, "it is the `next` of a page of runs")
    return int(after)


class Methods(VersionStore):
    """A full store, and what can be done with any."""

    @property
    def lag(self) -> float:
        """For how long what is being written waits already, in seconds; 0 where nothing is."""
        return 0.0

    async def resolve(self, version: str) -> Snapshot[Plain]:
        """The state that a version stood for, as a plain dict."""
        return await resolve(self, version)

    async def runs(self, *, limit: int = 100, after: str | None = None, **where: Unpack[Where]) -> Page:
        """A page of at most `limit` runs, the newest first; `after` is the `next` of the page before.

        Found by status, flow, tags, owned, key, cancelling, begun_after, created_after, created_before, updated_after,
        updated_before: all that are given have to be true. Raises BadOption.
        """
        if not 1 <= limit <= _MOST:
            raise BadOption("limit", limit, f"a page has from 1 to {_MOST} runs")
        return await self.find(run_filter(where), limit, after)

    def every_run(self, **where: Unpack[Where]) -> AsyncGenerator[Run, None]:
        """All runs that `runs` finds, the newest first, read a page at a time: `async for run in …`."""
        return every_run(self, run_filter(where))

    async def counts(self, **where: Unpack[Where]) -> Mapping[Status, int]:
        """How many runs there are of each status, of those that `runs` finds."""
        return await self.count(run_filter(where))

    def follow(self, run_id: str, after: int = -1) -> AsyncGenerator[Version, None]:
        """The versions of a run after number `after`, each as soon as it is stored, by whichever process.

        Ends when the run is completed, failed or cancelled; while it waits, this waits with it. Raises UnknownRun.
        """
        return follow(self, run_id, after)

    async def prune(
        self, *, keep: int | None = None, older_than: timedelta | float | None = None, **where: Unpack[Where]
    ) -> int:
        """Drop versions that are not among the last `keep` of their run, and older than `older_than` (seconds).

        Where one of the two is not given, the other decides alone. Of the runs that `runs` finds. What a kept version
        folds from is kept too, and the last version always: so every run goes on. Gives how many were dropped.
        """
        return await prune(self, run_filter(where), keep, older_than)

    async def verify(self, run_id: str | None = None) -> Verified:
        """Read one run, or all there are, and name each damage; raises none of them, but UnknownRun."""
        return await verify(self, run_id)
