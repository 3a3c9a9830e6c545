"""What a PostgreSQL store consists of while it is open, and how that is closed."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from flowneer_stores.postgres.lines import Lines
from flowneer_stores.postgres.news import News
from flowneer_stores.postgres.transaction import Transactions
from flowneer_stores.writer import Writer


@dataclass(frozen=True, slots=True)
class Opened:
    """The lines, and who uses them."""

    writing: Lines
    writer: Writer
    reading: Lines
    news: News
    transactions: Transactions

    def changed(self, run_id: str) -> None:
        """Tell whoever watches a run."""
        self.news.change(run_id)

    async def end_transactions(self) -> None:
        """End what steps have left open: it keeps rows locked."""
        await self.transactions.close()

    async def close(self) -> None:
        """Close all of it, each part whatever becomes of the one before."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.writing.close)
            stack.push_async_callback(self.reading.close)
            stack.push_async_callback(self.news.close)
            await self.writer.close()

    def stop(self) -> None:
        """Drop the lines where no time is left to close."""
        self.writing.stop()
        self.reading.stop()
        self.news.stop()
        self.transactions.stop()
