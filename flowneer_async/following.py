"""Reading along with a run that some process is at."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from flowneer_async.paging import pages
from flowneer_async.store import VersionStore
from flowneer_async.versions import OPEN, Version


async def follow(store: VersionStore, run_id: str, after: int = -1) -> AsyncGenerator[Version, None]:
    """The versions of a run after number `after`, each as soon as it is stored, until the run is over.

    Ends with the last version of a run that is completed, failed or cancelled; while it waits, this waits with it.
    Versions that were pruned meanwhile are passed over. Raises UnknownRun, also where the run is purged.
    """
    async with store.changes(run_id) as changed:
        while True:
            run = await store.read(run_id)
            async with aclosing(pages(store, run_id, after + 1, run.head)) as found:
                async for page in found:
                    for version in page:
                        yield version
            after = max(after, run.head)
            if run.status not in OPEN:
                return
            await changed()
