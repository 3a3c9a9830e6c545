"""What a SQLite store consists of while it is open, and how that is closed."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiosqlite

from flowneer_stores.sqlite.transaction import Transactions
from flowneer_stores.sqlite.watches import Watches
from flowneer_stores.writer import Writer


@dataclass(frozen=True, slots=True)
class Opened:
    """Two connections, and who uses them; those of transactions come and go."""

    db: aiosqlite.Connection
    writer: Writer
    reader: aiosqlite.Connection
    transactions: Transactions
    watches: Watches

    def changed(self, run_id: str) -> None:
        """Whoever watches a run looks for himself."""

    async def end_transactions(self) -> None:
        """End what steps have left open: it keeps the file locked."""
        await self.transactions.close()

    async def close(self) -> None:
        """Close all of it, each part whatever becomes of the one before."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.db.close)
            stack.push_async_callback(self.reader.close)
            self.watches.close()
            await self.writer.close()

    def stop(self) -> None:
        """End the connections' threads where no time is left to close: while they live, the process never ends."""
        for connection in (self.db, self.reader):
            connection.stop()  # pyright: ignore[reportUnknownMemberType]
        self.transactions.stop()
        self.watches.close()
