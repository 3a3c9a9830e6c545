"""Which runs may be at work: the slots of this process, and the limits of flows and keys over all processes."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager

import anyio

from flowneer_async.engine.limits import FREE, Limits
from flowneer_async.engine.tags import check_text
from flowneer_async.store import Due, RunFilter, VersionStore
from flowneer_async.versions import RUNNING, Run


class Look:
    """One look at what is due, whose runs are taken in order.

    Where one of them was refused, those after it that share the limit are, too: room that becomes free meanwhile is for
    the first one of all, which the next look finds. So those of a limited flow are left that an earlier look is still
    `taking`.
    """

    def __init__(self, taking: Iterable[str]) -> None:
        self.taking = frozenset(taking)
        """Flows."""
        self.full: set[str] = set()
        """Flows."""
        self.busy: set[str] = set()
        """Keys."""


class Admission:
    """Gives slots to runs, `slots` at most at the same time, and knows which flows and keys have none left.

    Whether a limit leaves room is asked of the store, before a run is taken and again after it: of two processes that
    took the last slot in the same moment, each sees the other, and gives it back. Races can exceed only a rate, by
    one run for each other process.
    """

    def __init__(self, store: VersionStore, flows: frozenset[str], limits: Mapping[str, Limits], slots: int) -> None:
        self._store, self._flows, self._limits = store, flows, limits
        self.free = slots
        """How many slots there are left in this process."""
        self._full: set[str] = set()
        self._busy: set[str] = set()
        self._ended = 0
        """How many runs have ended here."""
        self._turns = {flow: anyio.Lock() for flow in limits}

    def is_limited(self, flow: str) -> bool:
        """Has the flow any limits?"""
        return flow in self._limits

    def take(self) -> None:
        """Give a slot to a run."""
        self.free -= 1

    def give_back(self) -> None:
        """The slot is free again."""
        self.free += 1

    def ended(self, flow: str, key: str) -> None:
        """A run is not at work any more: there may be room for another of its flow or key."""
        self._ended += 1
        self._full.discard(flow)
        self._busy.discard(key)

    def look_again(self) -> None:
        """What other processes work on may have changed."""
        self._full.clear()
        self._busy.clear()

    def wanted(self) -> Due:
        """The runs for which there may be a slot."""
        return Due(self._flows - self._full, frozenset(self._busy))

    @asynccontextmanager
    async def turn(self, flow: str) -> AsyncGenerator[None]:
        """Of a flow that has limits, one run after the other is taken."""
        if flow not in self._turns:
            yield
        else:
            async with self._turns[flow]:
                yield

    async def may_begin(self, run: Run, look: Look, now: int) -> bool:
        """May this run be at work, too? One that is counted already, for its process has died, may."""
        limits = self._limits.get(run.flow, FREE)
        if limits is FREE or run.status == "running":
            return True
        if run.flow in self._full | look.full or run.key in self._busy | look.busy:
            return False
        full, busy = await self._without_room(run, limits, 0)
        if not full and not busy and not await self._is_in_rate(run, limits, now):
            full = {run.flow}
            self._full |= full
        look.full |= full
        look.busy |= busy
        return not full and not busy

    async def may_stay(self, run: Run) -> bool:
        """The same for a run that was just taken: did another process take the last slot in the same moment?"""
        limits = self._limits.get(run.flow, FREE)
        return limits is FREE or run.status == "running" or not any(await self._without_room(run, limits, 1))

    async def _without_room(self, run: Run, limits: Limits, own: int) -> tuple[set[str], set[str]]:
        """The flow of a run, if that is full, and its key, if that is busy."""
        full, busy, ended = set[str](), set[str](), self._ended
        if limits.concurrency is not None:
            number = await self._count(RunFilter(RUNNING, run.flow))
            full |= {run.flow} if number - own >= limits.concurrency else set()
        if limits.per_key is not None and run.key:
            number = await self._count(RunFilter(RUNNING, run.flow, key=run.key))
            busy |= {run.key} if number - own >= limits.per_key else set()
        if ended == self._ended:  # else one that was counted may be gone, and the next look asks again
            self._full |= full
            self._busy |= busy
        return full, busy

    async def _is_in_rate(self, run: Run, limits: Limits, now: int) -> bool:
        rate = limits.rate
        if rate is None or run.begun is not None:
            return True
        since = now - round(rate.per * 1000) + 1
        return await self._count(RunFilter(flow=run.flow, begun_after=since)) < rate.limit

    async def _count(self, runs: RunFilter) -> int:
        return sum((await self._store.count(runs)).values())


def key_of(flow: str, key: str | None) -> str:
    """How a key is stored: it is shared by runs of one flow; raises BadOption."""
    if key is None:
        return ""
    check_text("key", key)
    return f"{flow}/{key}"
