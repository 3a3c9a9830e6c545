"""Two owners and one run: whatever they do, in whatever order, against a model of what is true of it."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowneer_async import Fenced, Lease, Run, RunBusy, Version, VersionConflict
from flowneer_async.testing.chains import EARLY, body_of, new_run
from flowneer_async.versions import Head, grow
from flowneer_stores.methods import Methods
from tests.support.places import KINDS, ask, place_of, store_at

LONG = 3600.0  # seconds: a lease that lapses only when the test says so
MOVES = ("look", "claim", "claim", "append", "misfit", "release", "lapse", "forget")

Moves = Sequence[tuple[str, int, int]]
moves = st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 1), st.integers(0, 2)), min_size=3, max_size=25)


class Game:
    """A run, as two stores have it, and as it should be."""

    def __init__(self, place: Sequence[str], stores: Sequence[Methods], run_id: str) -> None:
        self._place, self._stores, self._run_id = place, stores, run_id
        self._epoch, self._lapsed = 0, False
        self._owner: int | None = None
        self._head, self._versions = Head(run_id), list[Version]()
        self._seen: list[Run | None] = [None, None]
        self._leases: list[list[Lease]] = [[], []]
        self._times = count(EARLY)

    async def play(self, moves: Moves) -> None:
        """Begin, let both look at the run, make these moves, and compare after each."""
        await self._create(0)
        for who in range(2):
            await self.look(who, 0)
        for name, who, number in moves:
            await getattr(self, name)(who, number)
            await self._compare(who)

    async def look(self, who: int, number: int) -> None:
        """Read the run, for a claim that may come late."""
        self._seen[who] = await self._stores[who].read(self._run_id)

    async def claim(self, who: int, number: int) -> None:
        """It is had as it was last read, and where nobody else may be at it."""
        seen = self._seen[who]
        if seen is None:
            return
        if seen.epoch == self._epoch and (self._owner is None or self._lapsed):
            lease = await self._stores[who].claim(seen)
            assert lease.epoch == self._epoch + 1
            self._own(who, lease)
        else:
            with pytest.raises(RunBusy):
                await self._stores[who].claim(seen)

    async def append(self, who: int, number: int) -> None:
        """By the last lease, however long ago it lapsed; by any other, even one's own, nothing is stored."""
        lease = self._lease(who, number)
        if lease is None:
            return
        versions, head = self._grown(number)
        if lease.epoch != self._epoch:
            with pytest.raises(Fenced):
                await self._stores[who].append(lease, versions)
            return
        await self._stores[who].append(lease, versions)
        self._versions, self._head = self._versions + versions, head

    async def misfit(self, who: int, number: int) -> None:
        """What leaves one version out is not stored, by whichever lease."""
        lease = self._lease(who, number)
        if lease is not None:
            versions, _ = self._grown(3)
            with pytest.raises(VersionConflict if lease.epoch == self._epoch else Fenced):
                await self._stores[who].append(lease, versions[1:])

    async def release(self, who: int, number: int) -> None:
        """The last lease is given back; by any other nothing happens."""
        lease = self._lease(who, number)
        if lease is None:
            return
        await self._stores[who].release(lease, "failed", f"{who} {number}")
        if lease.epoch == self._epoch:
            self._epoch, self._owner, self._lapsed = self._epoch + 1, None, False

    async def lapse(self, who: int, number: int) -> None:
        await ask(self._place, f"UPDATE {{runs}} SET lease_until = 0 WHERE run_id = '{self._run_id}'")
        self._lapsed = True

    async def forget(self, who: int, number: int) -> None:
        """A run of the same id that comes later is above all leases that there ever were."""
        if self._owner is not None and not self._lapsed:
            with pytest.raises(RunBusy):
                await self._stores[who].purge(self._run_id)
            return
        await self._stores[who].purge(self._run_id)
        self._head, self._versions = Head(self._run_id), []
        await self._create(who)

    async def _create(self, who: int) -> None:
        lease = await self._stores[who].create(replace(new_run(self._run_id), flow=self._run_id))
        assert lease is not None
        assert lease.epoch > max((each.epoch for leases in self._leases for each in leases), default=0)
        self._own(who, lease)

    def _own(self, who: int, lease: Lease) -> None:
        self._epoch, self._owner, self._lapsed = lease.epoch, who, False
        self._leases[who].append(lease)

    def _lease(self, who: int, number: int) -> Lease | None:
        """The last lease that one was given, or one before it."""
        leases = self._leases[who]
        return leases[max(-len(leases), -1 - number)] if leases else None

    def _grown(self, number: int) -> tuple[list[Version], Head]:
        """Versions for the head, unlike any that were made before."""
        head, versions = self._head, list[Version]()
        for time, _ in zip(self._times, range(number + 1), strict=False):
            version, head = grow(head, body_of(time=time), True, head.seq, "step", time)
            versions.append(version)
        return versions, head

    async def _compare(self, who: int) -> None:
        run = await self._stores[who].read(self._run_id)
        assert (run.epoch, run.head, run.owner is None) == (self._epoch, self._head.seq, self._owner is None)
        assert list(await self._stores[who].versions(self._run_id)) == self._versions
        page = await self._stores[who].runs(flow=self._run_id, owned=True)
        assert len(page.runs) == (self._owner is not None and not self._lapsed)


def hold(kind: str, folder: Path, examples: int) -> None:
    place, numbers = place_of(kind, folder), count()
    with asyncio.Runner() as loop:
        stack = AsyncExitStack()
        stores = [loop.run(stack.enter_async_context(store_at(*place, lease=LONG))) for _ in range(2)]

        @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(moves)
        def play(moves: Moves) -> None:
            loop.run(Game(place, stores, f"run-{next(numbers)}").play(moves))

        try:
            play()
        finally:
            loop.run(stack.aclose())


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_one_owner_whatever_happens(kind: str, tmp_path: Path) -> None:
    """Only the last lease stores anything; none is given while another is good, nor twice; the chain is that of one."""
    hold(kind, tmp_path, 15)


@pytest.mark.torture
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_one_owner_whatever_happens_for_long(kind: str, tmp_path: Path) -> None:
    """The same for many more games."""
    hold(kind, tmp_path, 500)
