"""Walking through all that a store holds, a page at a time, and naming whatever is damaged."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Self

from flowneer_async.errors import CorruptRun, Forged, StoreBusy, StoreClosed, StoreError, UnknownRun
from flowneer_async.links import Links
from flowneer_async.paging import FIRST_SIZE, size_after
from flowneer_async.store import EVERY_STATUS, RunFilter, VersionStore
from flowneer_async.versions import Run, Version, version_id

_RUNS = 100
_OUT_OF_REACH = (StoreBusy, StoreClosed, UnknownRun)
"""What is no damage."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong, where: with `version`, or else with the run itself, or with the list of runs (None)."""

    run_id: str | None
    version: str | None
    reason: str

    def __str__(self) -> str:
        where = self.version or (f"run {self.run_id}" if self.run_id is not None else "the list of runs")
        return f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Verified:
    """How many runs and versions were read, and what of them is damaged."""

    runs: int
    versions: int
    damages: tuple[Damage, ...]


async def verify(store: VersionStore, run_id: str | None = None) -> Verified:
    """Read one run, or all that a store has, and name each damage; it raises none, and goes on after it.

    Looked at are the numbers of versions and signals, digests, keyframes, whether each version folds, and the JSON of
    the last state. What runs, prunes and purges meanwhile is no damage. Raises UnknownRun, StoreBusy, StoreClosed.

    A digest finds what went wrong by itself. It is no seal: whoever can write to the store can make new ones.
    """
    if run_id is not None:
        found = await _verified(store, run_id)
        return Verified(1, found.versions, tuple(found.damages))
    runs = versions = 0
    damages: list[Damage] = []
    async for each in _run_ids(store):
        if isinstance(each, Damage):
            damages.append(each)
            continue
        try:
            found = await _verified(store, each)
        except UnknownRun:
            continue  # purged meanwhile
        runs += 1
        versions += found.versions
        damages += found.damages
    return Verified(runs, versions, tuple(damages))


async def _run_ids(store: VersionStore) -> AsyncGenerator[str | Damage, None]:
    """The ids of all runs, also of those that cannot be read: these are found one by one."""
    after: str | None = None
    size = _RUNS
    while True:
        try:
            page = await store.find(RunFilter(), size, after)
        except _OUT_OF_REACH:
            raise
        except StoreError as error:
            if size > 1:
                size = 1
                continue
            if isinstance(error, CorruptRun):
                yield error.run_id
                after = error.after
            elif isinstance(error, Forged):
                yield error.name
                after = error.after
            else:
                yield Damage(None, None, f"the runs from here on cannot be listed: {error}")
                after = None
        else:
            for run in page.runs:
                yield run.run_id
            after, size = page.next, min(2 * size, _RUNS)
        if after is None:
            return


async def _verified(store: VersionStore, run_id: str) -> "_Look":
    """What is found in a run; a damage is looked for twice, for the run may have been made anew while it was read."""
    look = await _Look(store, run_id).at_all()
    return await _Look(store, run_id).at_all() if look.damages else look


class _Look:
    """One walk through a run."""

    def __init__(self, store: VersionStore, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        # The numbers of versions that were named because nothing of them can be read.
        self._unread: set[int] = set()
        self.versions = 0
        self.damages: list[Damage] = []

    async def at_all(self) -> Self:
        """Look at the run, its versions and its signals."""
        run = await self._run()
        if run is None:
            await self._at_versions_alone()
        else:
            self._name(None, None if run.status in EVERY_STATUS else "its status is none that a run can have")
            await self._at_versions(run)
        await self._at_signals()
        return self

    async def _run(self) -> Run | None:
        try:
            return await self._store.read(self._run_id)
        except _OUT_OF_REACH:
            raise
        except StoreError as error:
            self._name(None, str(error))
            return None

    async def _at_versions(self, run: Run) -> None:
        """Look at the versions up to the head as it was read."""
        links = Links(run.run_id, run.first, run)
        at, size = run.first, FIRST_SIZE
        while at <= run.head:
            page = await self._page(at, min(at + size - 1, run.head))
            at += size
            size = size_after(page, size)
            await self._at_page(links, page)
        if links.expected <= run.head:
            await self._skip(links, run.head + 1)
        self._name(run.head, links.check_values())

    async def _at_versions_alone(self) -> None:
        """The same where the run cannot be read: which of them there are is not known."""
        page = await self._page(0, None)
        if page:
            links = Links(self._run_id, page[0].seq)
            await self._at_page(links, page)
            self._name(page[-1].seq, links.check_values())

    async def _at_page(self, links: Links, page: Sequence[Version]) -> None:
        self.versions += len(page)
        for version in page:
            if version.seq > links.expected:
                await self._skip(links, version.seq)
            if version.seq == links.expected:  # else it was dropped since it was read
                reason = links.check(version)
                if reason is not None:
                    self._name(version.seq, reason)

    async def _page(self, first: int, last: int | None) -> Sequence[Version]:
        """The versions between two numbers; what cannot be read is found by halves."""
        try:
            return await self._store.versions(self._run_id, first, last)
        except _OUT_OF_REACH:
            raise
        except StoreError as error:
            if last is None or first == last:
                self._unread.add(first)
                self._name(None if last is None else first, str(error))
                return ()
        middle = (first + last) // 2
        return (*await self._page(first, middle), *await self._page(middle + 1, last))

    async def _skip(self, links: Links, to: int) -> None:
        """Go on at version number `to`: those before it were dropped meanwhile, or are missing."""
        first = await self._first()
        if first > links.expected:
            links.begin(first)
        while links.expected in self._unread:
            links.miss(links.expected + 1)
        missing = to - links.expected - sum(links.expected < seq < to for seq in self._unread)
        if missing > 0:
            more = f", and {missing - 1} more up to number {to - 1}" if missing > 1 else ""
            self._name(links.expected, f"it is missing{more}")
        if to > links.expected:
            links.miss(to)

    async def _first(self) -> int:
        """The number of the first version that is kept by now; 0 where that is not known."""
        try:
            return (await self._store.read(self._run_id)).first
        except _OUT_OF_REACH:
            raise
        except StoreError:
            return 0

    async def _at_signals(self) -> None:
        try:
            signals = await self._store.signals(self._run_id)
        except _OUT_OF_REACH:
            raise
        except StoreError as error:
            return self._name(None, str(error))
        numbers = [signal.number for signal in signals]
        missing = sorted(set(range(1, len(numbers) + 1)).difference(numbers))
        return self._name(None, f"its signal number {missing[0]} is missing" if missing else None)

    def _name(self, seq: int | None, reason: str | None) -> None:
        if reason is None:
            return
        damage = Damage(self._run_id, None if seq is None else version_id(self._run_id, seq), reason)
        if damage not in self.damages[-1:]:  # of a run that cannot be read, it may be said again for its versions
            self.damages.append(damage)
