"""The versions of a run, a page at a time: however long the chain and large its states, not much of it is in memory."""

from collections.abc import AsyncGenerator, Sequence

from flowneer_async.store import VersionStore
from flowneer_async.versions import Version

FIRST_SIZE = 128
"""How many versions to ask for first."""

_MOST = 4096
_BYTES = 4_000_000  # of bodies in one page, as far as can be told from the page before


async def pages(store: VersionStore, run_id: str, first: int, last: int) -> AsyncGenerator[Sequence[Version], None]:
    """The versions from number `first` to `last`, all that there are; no page is empty. Raises UnknownRun."""
    size = FIRST_SIZE
    while first <= last:
        page = await store.versions(run_id, first, min(first + size - 1, last))
        first += size
        if page:
            yield page
        size = size_after(page, size)


def size_after(page: Sequence[Version], size: int) -> int:
    """How many versions to ask for next, where these were all of `size` numbers."""
    if not page:
        return 2 * size  # a damaged number may lie far off
    each = sum([len(version.body) for version in page]) // len(page) + 1
    return max(1, min(2 * size, _MOST, _BYTES // each))
