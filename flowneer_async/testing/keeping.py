"""The contract of drop and purge."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest

from flowneer_async.errors import Fenced, RunBusy, StoreError, UnknownRun, UnknownVersion, VersionConflict
from flowneer_async.store import Lease, RunFilter, VersionStore
from flowneer_async.testing.chains import EARLY, Owned, counting, first_kept, new_run, owned
from flowneer_async.versions import Run, Status, Version, checked, fold, version_id

_LENGTH = 12
_UNKNOWN = ["none", "", "run@0", "RUN", "ru", "run%", "run\0", "r" * 5000]

_KEYFRAMES = [(0,), (0, 4, 5, 9), (0, 11), tuple(range(_LENGTH))]
_TIMES = {
    "in order": [EARLY + number for number in range(_LENGTH)],
    "of clocks that went back": [EARLY + number for number in (0, 9, 1, 7, 2, 2, 8, 3, 4, 0, 3, 1)],
}
_CUTS: list[tuple[int, int | None]] = [
    *((keep, None) for keep in (0, 1, 2, 3, 4, 7, 8, _LENGTH, _LENGTH + 1, 10**6)),
    *((1, since) for since in (0, EARLY, EARLY + 2, EARLY + 4, EARLY + 8, EARLY + 9, EARLY + 11, EARLY + 12, 2**53)),
    *((keep, EARLY + since) for keep in (2, 4, 9) for since in (1, 3, 7, 8, 12)),
]
"""How many versions to keep, and since when."""


async def _kept_whole(store: VersionStore, versions: Sequence[Version], first: int) -> None:
    """Of these versions, the store has those from number `first` on, and each is what it was; others are unknown."""
    run_id, number = versions[0].run_id, versions[0].seq
    kept = list(await store.versions(run_id))
    assert kept == list(versions[first - number :])
    assert kept[0].is_keyframe
    for version in versions[: first - number]:
        with pytest.raises(UnknownVersion) as caught:
            await store.chain(version.id)
        assert caught.value.version == version.id
    chains = await asyncio.gather(*(store.chain(version.id) for version in kept))
    for version, chain in zip(kept, chains, strict=True):
        assert list(chain) == list(versions[version.base - number : version.seq - number + 1])
        assert fold(checked(version.id, chain)) == {"n": b"%d" % version.seq}


async def _with_keyframes(store: VersionStore, run_id: str = "run") -> Owned:
    """A run at work, of whose versions 12 are stored, and 6 are to come."""
    run = await owned(store, run_id, stored=0)
    run.versions = counting(run_id, 18, keyframes=(0, 4, 9, 15))
    await run.append(0, _LENGTH)
    return run


async def _ended(store: VersionStore, run_id: str = "run", status: Status = "completed") -> Owned:
    """A run that nobody owns, with versions and signals."""
    run = await owned(store, run_id, stored=4)
    await store.send(run_id, "go", b"1")
    await store.send(run_id, "on", b"2")
    await store.release(run.lease, status)
    return run


async def _all_of(store: VersionStore, run_id: str) -> tuple[Run, list[Version], list[object]]:
    return await store.read(run_id), list(await store.versions(run_id)), list(await store.signals(run_id))


class KeepingContract:
    """What is dropped or purged is gone, and all else is as it was."""

    @pytest.mark.parametrize("keyframes", _KEYFRAMES, ids=str)
    @pytest.mark.parametrize("times", _TIMES.values(), ids=_TIMES)
    async def test_what_is_kept_is_whole(
        self, store: VersionStore, times: Sequence[int], keyframes: tuple[int, ...]
    ) -> None:
        """The last so many, those made since, all after them, and what these fold from: no more and no fewer."""
        chains = [counting(f"run-{number}", _LENGTH, keyframes, times) for number in range(len(_CUTS))]
        for chain in chains:
            await store.create(new_run(chain[0].run_id), chain)
        for chain, (keep, since) in zip(chains, _CUTS, strict=True):
            run_id, first = chain[0].run_id, first_kept(chain, keep, since)
            before = await store.read(run_id)
            assert await store.drop(run_id, keep, since) == first, (keep, since)
            assert await store.read(run_id) == replace(before, first=first, head=_LENGTH - 1)
            await _kept_whole(store, chain, first)

    async def test_nothing_is_dropped_twice(self, store: VersionStore) -> None:
        """What is dropped is counted once; who wants more to be kept afterwards does not get it back."""
        run = await _with_keyframes(store)
        numbers = [await store.drop("run", keep) for keep in (8, 8, 7, 12, 3, 1, 1, 10**6)]
        assert numbers == [4, 0, 0, 0, 5, 0, 0, 0]
        await _kept_whole(store, run.versions[:_LENGTH], 9)

    async def test_of_many_that_drop_at_once_each_counts_its_own(self, store: VersionStore) -> None:
        """The numbers given back are together that of the versions that are gone."""
        run = await _with_keyframes(store)
        numbers = await asyncio.gather(*(store.drop("run", keep) for keep in (8, 7, 3, 1, 3, 12)))
        assert sum(numbers) == (await store.read("run")).first == 9
        await _kept_whole(store, run.versions[:_LENGTH], 9)

    async def test_the_last_version_always_stays(self, store: VersionStore) -> None:
        """Also where none is to be kept, and the whole run is older than what is."""
        await owned(store, stored=0)
        run = counting("other", 3, keyframes=(0, 1, 2))
        await store.create(new_run("other"), run)
        assert await store.drop("other", 0, 2**53) == 2
        await _kept_whole(store, run, 2)
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
        run = await _with_keyframes(store)
        assert await store.drop("run", 2) == 9
        await run.append(12, 14)
        await _kept_whole(store, run.versions[:14], 9)
        with pytest.raises(VersionConflict) as caught:
            await run.append(12, 14)
        assert (caught.value.version, caught.value.head) == ("run@12", "run@13")
        await run.append(14, 18)
        assert await store.drop("run", 1) == 6
        await store.release(run.lease, "completed")
        await _kept_whole(store, run.versions, 15)
        assert ((await store.read("run")).status, (await store.read("run")).head) == ("completed", 17)

    @pytest.mark.parametrize("status", get_args(Status))
    async def test_a_claim_that_was_about_to_be_made_is_still_good(self, store: VersionStore, status: Status) -> None:
        """A run of any status is pruned, and goes on as it was read before, with its signals and its error."""
        run = await _with_keyframes(store)
        await store.send("run", "go", b"1")
        await store.release(run.lease, status, "why")
        free = await store.read("run")
        assert await store.drop("run", 1) == 9
        assert (await store.read("run")).error == "why"
        lease = await store.claim(free)
        await store.append(lease, run.versions[12:])
        await _kept_whole(store, run.versions, 9)
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
        await _kept_whole(store, run.versions, 56)

    async def test_a_fork_of_a_dropped_version_stays_whole(self, store: VersionStore) -> None:
        """Its root is a keyframe: it needs nothing of the run it came from, and still says which version that was."""
        await _with_keyframes(store)
        versions = counting("fork", 3, fork_of="run@2")
        lease = await store.create(replace(new_run("fork"), fork_of="run@2"), versions[:1])
        before = await store.read("fork")
        assert await store.drop("run", 1) == 9
        assert lease is not None
        await store.append(lease, versions[1:])
        await _kept_whole(store, versions, 0)
        assert await store.read("fork") == replace(before, head=2)

    async def test_dropping_and_purging_leave_other_runs_alone(self, store: VersionStore) -> None:
        """However similar their ids are."""
        others = ["run.", "Run", "run-1", "ru", "run:0"]
        for run_id in others:
            await _with_keyframes(store, run_id)
            await store.send(run_id, "go", b"1")
        run = await _with_keyframes(store)
        before = [await _all_of(store, run_id) for run_id in others]
        assert await store.drop("run", 1) == 9
        await store.release(run.lease, "completed")
        await store.purge("run")
        assert [await _all_of(store, run_id) for run_id in others] == before
        assert {found.run_id for found in (await store.find(RunFilter(), 10)).runs} == set(others)

    @pytest.mark.parametrize("run_id", _UNKNOWN)
    async def test_an_unknown_run_is_neither_pruned_nor_purged(self, store: VersionStore, run_id: str) -> None:
        """The error names it, and the runs that are there stay."""
        run = await _ended(store)
        for use in (store.drop(run_id, 1), store.drop(run_id, 1, EARLY), store.purge(run_id)):
            with pytest.raises(UnknownRun) as caught:
                await use
            assert caught.value.run_id == run_id
        assert list(await store.versions("run")) == run.versions[:4]

    async def test_a_purged_run_is_gone(self, store: VersionStore) -> None:
        """Run, versions and signals: whatever is asked of it, it is unknown."""
        await _ended(store)
        await store.purge("run")
        for use in (store.read("run"), store.versions("run"), store.signals("run"), store.send("run", "go", b"1")):
            with pytest.raises(UnknownRun):
                await use
        for change in (store.drop("run", 1), store.purge("run"), store.claim(new_run())):
            with pytest.raises(UnknownRun):
                await change
        for seq in range(4):
            with pytest.raises(UnknownVersion):
                await store.chain(f"run@{seq}")
        assert list((await store.find(RunFilter(), 10)).runs) == []
        assert dict(await store.count(RunFilter())) == {}

    @pytest.mark.parametrize("status", get_args(Status))
    async def test_a_run_of_any_status_is_purged(self, store: VersionStore, status: Status) -> None:
        """Whether it is over or not: what matters is that nobody owns it."""
        await _ended(store, status=status)
        await store.purge("run")
        with pytest.raises(UnknownRun):
            await store.read("run")

    async def test_a_run_that_is_owned_is_not_purged(self, store: VersionStore) -> None:
        """Created or claimed, the owner is named, and the run is as it was; given back, it is purged."""
        run = await _with_keyframes(store)
        await store.send("run", "go", b"1")
        lease, next_one = run.lease, 12
        for _ in range(2):
            before = await _all_of(store, "run")
            with pytest.raises(RunBusy) as caught:
                await store.purge("run")
            assert (caught.value.run_id, caught.value.owner) == ("run", before[0].owner)
            assert await _all_of(store, "run") == before
            await store.append(lease, run.versions[next_one : next_one + 1])
            await store.release(lease, "waiting")
            lease, next_one = await store.claim(await store.read("run")), next_one + 1
        await store.release(lease, "completed")
        await store.purge("run")

    async def test_the_id_of_a_purged_run_is_free(self, store: VersionStore) -> None:
        """A new run of that id begins with nothing of the old one: no version, no signal, no tag."""
        await store.release((await _with_keyframes(store)).lease, "failed", "why")
        for number in range(3):
            await store.send("run", "old", b"%d" % number)
        await store.drop("run", 1)
        await store.purge("run")
        new = replace(new_run(), flow="new", tags={"new": "1"}, created=EARLY + 7)
        lease = await store.create(new)
        assert lease is not None
        read = await store.read("run")
        assert replace(read, owner=None, updated=EARLY, epoch=0) == new
        assert (list(await store.versions("run")), list(await store.signals("run"))) == ([], [])
        assert (await store.send("run", "new", b"1")).number == 1
        versions = counting("run", 3)
        await store.append(lease, versions)
        assert list(await store.versions("run")) == versions

    @pytest.mark.parametrize("first", [0, 2], ids=["begun empty", "begun with versions"])
    async def test_no_lease_of_a_purged_run_is_good_for_the_next_one(self, store: VersionStore, first: int) -> None:
        """However often a run of one id is purged and stored anew: old leases neither append nor release."""
        old, versions = list[Lease](), counting("run", 4)
        for _ in range(3):
            await store.release((await owned(store, "other")).lease, "failed")
            created = await store.create(new_run(), versions[:first])
            assert created is not None
            await store.append(created, versions[first:2])
            await store.release(created, "failed")
            claimed = await store.claim(await store.read("run"))
            for lease in old:
                with pytest.raises(Fenced):
                    await store.append(lease, versions[2:])
                before = await store.read("run")
                await store.release(lease, "completed", "by an old owner")
                assert await store.read("run") == before
            await store.append(claimed, versions[2:])
            await store.release(claimed, "failed")
            old += [created, claimed]
            await store.purge("run")
            await store.purge("other")  # which is as old, and had fewer owners
        epochs = [lease.epoch for lease in old]
        assert epochs == sorted(set(epochs))

    async def test_a_lease_of_a_purged_run_does_nothing(self, store: VersionStore) -> None:
        """Its append is told that it is over; its release is nothing, and brings nothing back."""
        run = await _ended(store)
        await store.purge("run")
        with pytest.raises((Fenced, UnknownRun)):
            await run.append(4, 5)
        await store.release(run.lease, "failed")
        with pytest.raises(UnknownRun):
            await store.read("run")

    async def test_a_run_as_it_was_before_it_was_purged_cannot_be_claimed(self, store: VersionStore) -> None:
        """A claim is of the run as it was read, and the new run of that id is another one."""
        stale = list[Run]()
        for _ in range(3):
            run = await owned(store)
            stale.append(await store.read("run"))
            await store.release(run.lease, "failed")
            stale.append(await store.read("run"))
            for old in stale[:-1]:
                with pytest.raises(RunBusy):
                    await store.claim(old)
            await store.purge("run")

    async def test_a_fork_of_a_purged_run_stays_whole(self, store: VersionStore) -> None:
        """It resolves, and goes on."""
        await _ended(store)
        versions = counting("fork", 3, fork_of="run@2")
        lease = await store.create(replace(new_run("fork"), fork_of="run@2"), versions[:1])
        await store.purge("run")
        assert lease is not None
        await store.append(lease, versions[1:])
        await _kept_whole(store, versions, 0)
        assert (await store.read("fork")).fork_of == "run@2"

    async def test_a_run_is_purged_or_claimed(self, store: VersionStore) -> None:
        """Of those who purge it and those who claim it at once, one wins; the others are told the truth."""
        for number in range(8):
            run_id = f"run-{number}"
            await _ended(store, run_id)
            free = await store.read(run_id)
            uses = [store.claim(free), store.purge(run_id), store.purge(run_id), store.claim(free)]
            done = await asyncio.gather(*(uses if number % 2 else reversed(uses)), return_exceptions=True)
            won = [each for each in done if not isinstance(each, StoreError | RunBusy)]
            assert len(won) == 1
            lost = {type(each) for each in done if each is not won[0]}
            if isinstance(won[0], Lease):
                assert lost == {RunBusy}
                assert len(await store.versions(run_id)) == 4
            else:
                assert lost == {UnknownRun}

    async def test_what_is_sent_while_a_run_is_purged_is_not_left_behind(self, store: VersionStore) -> None:
        """A signal comes before the end, or is refused; a run that is stored anew has none of them."""
        for number in range(8):
            run_id = f"run-{number}"
            await _ended(store, run_id)
            uses = [store.send(run_id, "late", b"1"), store.purge(run_id), store.send(run_id, "later", b"2")]
            done = await asyncio.gather(*(uses if number % 2 else reversed(uses)), return_exceptions=True)
            assert not [each for each in done if isinstance(each, BaseException) and not isinstance(each, UnknownRun)]
            lease = await store.create(new_run(run_id))
            assert lease is not None
            assert list(await store.signals(run_id)) == []

    async def test_of_many_purges_at_once_each_is_done(self, store: VersionStore) -> None:
        """Those of runs that are there are purged, the unknown and the owned are told, and those beside them stay."""
        for number in range(6):
            await _ended(store, f"run-{number}")
        await owned(store, "busy")
        ids = ["run-0", "none", "run-1", "busy", "run-2", "neither"]
        done = await asyncio.gather(*(store.purge(run_id) for run_id in ids), return_exceptions=True)
        assert [type(each) for each in done] == [type(None), UnknownRun, type(None), RunBusy, type(None), UnknownRun]
        left = [run.run_id for run in (await store.find(RunFilter(), 10)).runs]
        assert left == ["busy", "run-5", "run-4", "run-3"]
