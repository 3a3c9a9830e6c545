"""Every store, and one that can be made to wait or to fail."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from flowneer_async import Lease, Status, Version, VersionStore
from flowneer_stores import MemoryStore, SqliteStore
from tests.support.postgres import store_at

KINDS = ("memory", "sqlite", "postgres")


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[VersionStore]:
    """A store of the kind, new unless the folder has one."""
    if kind == "memory":
        yield MemoryStore()
    else:
        async with SqliteStore(folder / "runs.db") if kind == "sqlite" else store_at(folder) as store:
            yield store


class Guarded(MemoryStore):
    """A store that asks `guard` before each append but that of the root."""

    def __init__(self, guard: Callable[[Sequence[Version]], Awaitable[None]]) -> None:
        super().__init__()
        self.guard = guard
        self.appended: list[int] = []
        """How many versions came with each append."""
        self.ends: list[Status] = []

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        if versions[0].seq:
            await self.guard(versions)
        self.appended.append(len(versions))
        await super().append(lease, versions)

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        self.ends.append(status)
        await super().release(lease, status, error, seal, wake)
