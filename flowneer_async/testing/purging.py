"""The contract of purge."""

import asyncio
from dataclasses import replace
from typing import get_args

import pytest

from flowneer_async.errors import Fenced, RunBusy, StoreError, UnknownRun, UnknownVersion
from flowneer_async.store import Lease, RunFilter, VersionStore
from flowneer_async.testing.chains import EARLY, counting, new_run, owned
from flowneer_async.testing.keeping import all_of, ended, kept_whole, with_keyframes
from flowneer_async.versions import Run, Status


class PurgingContract:
    """What is purged is gone, and all else is as it was."""

    async def test_a_purged_run_is_gone(self, store: VersionStore) -> None:
        """Run, versions and signals: whatever is asked of it, it is unknown."""
        await ended(store)
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
        await ended(store, status=status)
        await store.purge("run")
        with pytest.raises(UnknownRun):
            await store.read("run")

    async def test_a_run_that_is_owned_is_not_purged(self, store: VersionStore) -> None:
        """Created or claimed, the owner is named, and the run is as it was; given back, it is purged."""
        run = await with_keyframes(store)
        await store.send("run", "go", b"1")
        lease, next_one = run.lease, 12
        for _ in range(2):
            before = await all_of(store, "run")
            with pytest.raises(RunBusy) as caught:
                await store.purge("run")
            assert (caught.value.run_id, caught.value.owner) == ("run", before[0].owner)
            assert await all_of(store, "run") == before
            await store.append(lease, run.versions[next_one : next_one + 1])
            await store.release(lease, "waiting")
            lease, next_one = await store.claim(await store.read("run")), next_one + 1
        await store.release(lease, "completed")
        await store.purge("run")

    async def test_the_id_of_a_purged_run_is_free(self, store: VersionStore) -> None:
        """A new run of that id begins with nothing of the old one: no version, no signal, no tag."""
        await store.release((await with_keyframes(store)).lease, "failed", "why")
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
        run = await ended(store)
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
        await ended(store)
        versions = counting("fork", 3, fork_of="run@2")
        lease = await store.create(replace(new_run("fork"), fork_of="run@2"), versions[:1])
        await store.purge("run")
        assert lease is not None
        await store.append(lease, versions[1:])
        await kept_whole(store, versions, 0)
        assert (await store.read("fork")).fork_of == "run@2"

    async def test_a_run_is_purged_or_claimed(self, store: VersionStore) -> None:
        """Of those who purge it and those who claim it at once, one wins; the others are told the truth."""
        for number in range(8):
            run_id = f"run-{number}"
            await ended(store, run_id)
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
            await ended(store, run_id)
            uses = [store.send(run_id, "late", b"1"), store.purge(run_id), store.send(run_id, "later", b"2")]
            done = await asyncio.gather(*(uses if number % 2 else reversed(uses)), return_exceptions=True)
            assert not [each for each in done if isinstance(each, BaseException) and not isinstance(each, UnknownRun)]
            lease = await store.create(new_run(run_id))
            assert lease is not None
            assert list(await store.signals(run_id)) == []

    async def test_of_many_purges_at_once_each_is_done(self, store: VersionStore) -> None:
        """Those of runs that are there are purged, the unknown and the owned are told, and those beside them stay."""
        for number in range(6):
            await ended(store, f"run-{number}")
        await owned(store, "busy")
        ids = ["run-0", "none", "run-1", "busy", "run-2", "neither"]
        done = await asyncio.gather(*(store.purge(run_id) for run_id in ids), return_exceptions=True)
        assert [type(each) for each in done] == [type(None), UnknownRun, type(None), RunBusy, type(None), UnknownRun]
        left = [run.run_id for run in (await store.find(RunFilter(), 10)).runs]
        assert left == ["busy", "run-5", "run-4", "run-3"]
