"""A transaction that a step has opened, from its block to its version."""

from collections.abc import Callable, Sequence

from flowneer_async.behind import Behind
from flowneer_async.shield import complete
from flowneer_async.store import Lease, Transaction
from flowneer_async.versions import Version


class StepTransaction:
    """While it is open, nothing else of its run is stored: what has to be, waits, and is stored with it or after it."""

    def __init__(
        self,
        transaction: Transaction,
        lease: Lease,
        behind: Behind | None,
        over: Callable[[], None],
        lost: Callable[[Sequence[Version], BaseException], None],
    ) -> None:
        self._transaction, self._lease, self._behind = transaction, lease, behind
        self._over, self._lost = over, lost
        self._is_over = False
        self.is_left = False
        """The step has left its block: what it has done there is to be committed."""

    @property
    def connection(self) -> object:
        """What the step works with."""
        return self._transaction.connection

    async def is_open(self) -> bool:
        """Can it still be committed?"""
        return not self._is_over and await self._transaction.is_open()

    async def commit(self, version: Version) -> None:
        """Store what waits, and then this version, with what the step did; raises what the store raises.

        Cancelled, it is done to the end, and then raises the cancellation.
        """
        waiting = [] if self._behind is None else self._behind.taken()
        self._is_over = True
        await complete(self._commit([*waiting, version]))

    async def roll_back(self) -> None:
        """Undo what the step did, unless it is over already."""
        if not self._is_over:
            self._is_over = True
            await complete(self._roll_back())

    async def _commit(self, versions: Sequence[Version]) -> None:
        try:
            await self._transaction.append(self._lease, versions)
            await self._transaction.commit()
        except BaseException as error:
            self._lost(versions, error)
            await self._roll_back()
            raise
        self._end(len(versions) - 1)

    async def _roll_back(self) -> None:
        try:
            await self._transaction.rollback()
        finally:
            self._end(0)

    def _end(self, stored: int) -> None:
        if self._behind is not None:
            self._behind.let_go(stored)
        self._over()
