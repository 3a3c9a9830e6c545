"""The contract of drop."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest

from flowneer_async.errors import UnknownRun, UnknownVersion, VersionConflict
from flowneer_async.store import RunFilter, VersionStore
from flowneer_async.testing.chains import EARLY, counting, first_kept, new_run, owned
from flowneer_async.testing.keeping import LENGTH, all_of, ended, kept_whole, with_keyframes
from flowneer_async.versions import Status, checked, version_id

_UNKNOWN = ["none", "", "run@0", "RUN", "ru", "run%", "run\0", "r" * 5000]

_KEYFRAMES = [(0,), (0, 4, 5, 9), (0, 11), tuple(range(LENGTH))]
_TIMES = {
    "in order": [EARLY + number for number in range(LENGTH)],
    "of clocks that went back": [EARLY + number for number in (0, 9, 1, 7, 2, 2, 8, 3, 4, 0, 3, 1)],
}
_CUTS: list[tuple[int, int | None]] = [
    *((keep, None) for keep in (0, 1, 2, 3, 4, 7, 8, LENGTH, LENGTH + 1, 10**6)),
    *((1, since) for since in (0, EARLY, EARLY + 2, EARLY + 4, EARLY + 8, EARLY + 9, EARLY + 11, EARLY + 12, 2**53)),
    *((keep, EARLY + since) for keep in (2, 4, 9) for since in (1, 3, 7, 8, 12)),
]
"""How many versions to keep, and since when."""


class DroppingContract:
    """What is dropped is gone, and all else is as it was."""

    @pytest.mark.parametrize("keyframes", _KEYFRAMES, ids=str)
    @pytest.mark.parametrize("times", _TIMES.values(), ids=_TIMES)
    async def test_what_is_kept_is_whole(
        self, store: VersionStore, times: Sequence[int], keyframes: tuple[int, ...]
    ) -> None:
        """The last so many, those made since, all after them, and what these fold from: no more and no fewer."""
        chains = [counting(f"run-{number}", LENGTH, keyframes, times) for number in range(len(_CUTS))]
        for chain in chains:
            await store.create(new_run(chain[0].run_id), chain)
        for chain, (keep, since) in zip(chains, _CUTS, strict=True):
            run_id, first = chain[0].run_id, first_kept(chain, keep, since)
            before = await store.read(run_id)
            assert await store.drop(run_id, keep, since) == first, (keep, since)
            assert await store.read(run_id) == replace(before, first=first, head=LENGTH - 1)
            await kept_whole(store, chain, first)

    async def test_nothing_is_dropped_twice(self, store: VersionStore) -> None:
        """What is dropped is counted once; who wants more to be kept afterwards does not get it back."""
        run = await with_keyframes(store)
        numbers = [await store.drop("run", keep) for keep in (8, 8, 7, 12, 3, 1, 1, 10**6)]
        assert numbers == [4, 0, 0, 0, 5, 0, 0, 0]
        await kept_whole(store, run.versions[:LENGTH], 9)

    async def test_of_many_that_drop_at_once_each_counts_its_own(self, store: VersionStore) -> None:
        """The numbers given back are together that of the versions that are gone."""
        run = await with_keyframes(store)
        numbers = await asyncio.gather(*(store.drop("run", keep) for keep in (8, 7, 3, 1, 3, 12)))
        assert sum(numbers) == (await store.read("run")).first == 9
        await kept_whole(store, run.versions[:LENGTH], 9)

    async def test_the_last_version_always_stays(self, store: VersionStore) -> None:
        """Also where none is to be kept, and the whole run is older than what is."""
        await owned(store, stored=0)
        run = counting("other", 3, keyframes=(0, 1, 2))
        await store.create(new_run("other"), run)
        assert await store.drop("other", 0, 2**53) == 2
        await kept_whole(store, run, 2)
        assert await store.drop("other", 0, 2**53) == 0

    async def test_of_a_run_without_versions_none_are_dropped(self, store: VersionStore) -> None:
        """It has no version afterwards either, and its first one may come."""
        run = await owned(store, stored=0)
        assert await store.drop("run", 1) == await store.drop("run", 1, 2**53) == 0
        assert ((await store.read("run")).first, (await store.read("run")).head) == (0, -1)
        await run.append(0, 2)
        assert list(await store.versions("run")) == run.versions[:2]

    async def test_a_run_at_work_goes_on_after_a_drop(self, store: VersionStore) -> None:
        """Its lease is still good, its head where it was, and what it appends folds from what was kept."""
        run = await with_keyframes(store)
        assert await store.drop("run", 2) == 9
        await run.append(12, 14)
        await kept_whole(store, run.versions[:14], 9)
        with pytest.raises(VersionConflict) as caught:
            await run.append(12, 14)
        assert (caught.value.version, caught.value.head) == ("run@12", "run@13")
        await run.append(14, 18)
        assert await store.drop("run", 1) == 6
        await store.release(run.lease, "completed")
        await kept_whole(store, run.versions, 15)
        assert ((await store.read("run")).status, (await store.read("run")).head) == ("completed", 17)

    @pytest.mark.parametrize("status", get_args(Status))
    async def test_a_claim_that_was_about_to_be_made_is_still_good(self, store: VersionStore, status: Status) -> None:
        """A run of any status is pruned, and goes on as it was read before, with its signals and its error."""
        run = await with_keyframes(store)
        await store.send("run", "go", b"1")
        await store.release(run.lease, status, "why")
        free = await store.read("run")
        assert await store.drop("run", 1) == 9
        assert (await store.read("run")).error == "why"
        lease = await store.claim(free)
        await store.append(lease, run.versions[12:])
        await kept_whole(store, run.versions, 9)
        assert [signal.name for signal in await store.signals("run")] == ["go"]

    async def test_versions_are_dropped_while_the_run_appends_and_others_read(self, store: VersionStore) -> None:
        """Whoever reads meanwhile is given a whole chain, or told that the version is gone; no version is lost."""
        run = await owned(store, stored=0)
        run.versions = counting("run", 60, keyframes=range(0, 60, 4))
        await run.append(0, 1)
        dropped = 0

        async def append() -> None:
            for seq in range(1, 60):
                await run.append(seq, seq + 1)

        async def prune() -> None:
            nonlocal dropped
            while (await store.read("run")).head < 59:
                dropped += await store.drop("run", 2)

        async def read() -> None:
            while (head := (await store.read("run")).head) < 59:
                for seq in (head, head - 3):
                    try:
                        assert checked(version_id("run", seq), await store.chain(version_id("run", seq)))
                    except UnknownVersion:
                        assert seq < head or (await store.read("run")).first > seq

        await asyncio.gather(append(), prune(), read())
        dropped += await store.drop("run", 1)
        assert dropped == (await store.read("run")).first == 56
        await kept_whole(store, run.versions, 56)

    async def test_a_fork_of_a_dropped_version_stays_whole(self, store: VersionStore) -> None:
        """Its root is a keyframe: it needs nothing of the run it came from, and still says which version that was."""
        await with_keyframes(store)
        versions = counting("fork", 3, fork_of="run@2")
        lease = await store.create(replace(new_run("fork"), fork_of="run@2"), versions[:1])
        before = await store.read("fork")
        assert await store.drop("run", 1) == 9
        assert lease is not None
        await store.append(lease, versions[1:])
        await kept_whole(store, versions, 0)
        assert await store.read("fork") == replace(before, head=2)

    async def test_dropping_and_purging_leave_other_runs_alone(self, store: VersionStore) -> None:
        """However similar their ids are."""
        others = ["run.", "Run", "run-1", "ru", "run:0"]
        for run_id in others:
            await with_keyframes(store, run_id)
            await store.send(run_id, "go", b"1")
        run = await with_keyframes(store)
        before = [await all_of(store, run_id) for run_id in others]
        assert await store.drop("run", 1) == 9
        await store.release(run.lease, "completed")
        await store.purge("run")
        assert [await all_of(store, run_id) for run_id in others] == before
        assert {found.run_id for found in (await store.find(RunFilter(), 10)).runs} == set(others)

    @pytest.mark.parametrize("run_id", _UNKNOWN)
    async def test_an_unknown_run_is_neither_pruned_nor_purged(self, store: VersionStore, run_id: str) -> None:
        """The error names it, and the runs that are there stay."""
        run = await ended(store)
        for use in (store.drop(run_id, 1), store.drop(run_id, 1, EARLY), store.purge(run_id)):
            with pytest.raises(UnknownRun) as caught:
                await use
            assert caught.value.run_id == run_id
        assert list(await store.versions("run")) == run.versions[:4]
