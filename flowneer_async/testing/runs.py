"""The contract of create, claim, release and read."""

import asyncio
from dataclasses import replace
from typing import get_args

import pytest

from flowneer_async.errors import RunBusy, StoreError, UnknownRun, UnknownVersion, VersionConflict
from flowneer_async.store import Lease, VersionStore
from flowneer_async.testing.chains import EARLY, body_of, chain_of, counting, new_run, owned
from flowneer_async.versions import Status


class RunsContract:
    """What is known of a run, and who owns it."""

    async def test_a_store_is_a_version_store(self, store: VersionStore) -> None:
        """A store has every method of the protocol."""
        assert isinstance(store, VersionStore)

    async def test_a_created_run_is_read_back_as_it_was(self, store: VersionStore) -> None:
        """A new run is running, owned, without versions, and otherwise what was passed."""
        run = replace(new_run("A.b:c-d_9"), flow="a flow, ü", state_type="Order", steps=("ü", "b/c", "a'b"))
        assert await store.create(run) == Lease("A.b:c-d_9", 1)
        read = await store.read("A.b:c-d_9")
        assert replace(read, owner=None, updated=EARLY) == replace(run, epoch=1)
        assert read.owner is not None
        assert read.updated >= EARLY

    async def test_a_run_is_created_once(self, store: VersionStore) -> None:
        """The second to create an id gets no lease, and changes nothing."""
        await store.create(new_run())
        before = await store.read("run")
        assert await store.create(replace(new_run(), flow="other", steps=())) is None
        assert await store.read("run") == before

    async def test_of_two_that_create_a_run_at_once_one_owns_it(self, store: VersionStore) -> None:
        """An id that two ask for in the same moment is given to one, whatever else is stored just then."""
        leases = await asyncio.gather(store.create(new_run("other")), *(store.create(new_run()) for _ in range(5)))
        assert sum(lease is not None for lease in leases) == 2

    async def test_a_run_is_created_with_its_first_versions(self, store: VersionStore) -> None:
        """One or many are there as soon as the run is, and the owner goes on after them."""
        for length in (1, 3, 500):
            run, versions = new_run(f"run-{length}"), counting(f"run-{length}", length + 1)
            lease = await store.create(run, versions[:length])
            assert lease is not None
            assert lease == Lease(run.run_id, 1)
            read = await store.read(run.run_id)
            assert replace(read, owner=None, updated=EARLY) == replace(run, epoch=1, head=length - 1)
            assert read.owner is not None
            assert list(await store.versions(run.run_id)) == versions[:length]
            assert list(await store.chain(f"{run.run_id}@0")) == versions[:1]
            await store.append(lease, versions[length:])
            assert list(await store.versions(run.run_id)) == versions

    async def test_every_field_of_a_first_version_is_kept(self, store: VersionStore) -> None:
        """The root of a fork, any byte, great numbers: all come back."""
        (root,) = chain_of("run", [bytes(range(256))])
        root = root._replace(fork_of="other@7", path="ü'[12]/a\"b%", step_index=10**6, timestamp=2**53)
        await store.create(new_run(), [root])
        assert list(await store.versions("run")) == [root]

    @pytest.mark.parametrize("order", [(1,), (1, 2), (0, 2), (0, 0), (1, 0), (0, 1, 3)])
    async def test_a_run_is_not_created_with_versions_that_do_not_fit(
        self, store: VersionStore, order: tuple[int, ...]
    ) -> None:
        """Its first versions begin with the root and follow each other, or neither they nor the run are stored."""
        versions = counting("run", 4)
        with pytest.raises(VersionConflict):
            await store.create(new_run(), [versions[seq] for seq in order])
        with pytest.raises(UnknownRun):
            await store.read("run")
        assert await store.create(new_run(), versions) is not None

    async def test_a_run_is_not_created_with_versions_of_another(self, store: VersionStore) -> None:
        """The first versions of a run bear its id."""
        with pytest.raises(VersionConflict):
            await store.create(new_run(), counting("other", 1))
        for run_id in ("run", "other"):
            with pytest.raises(UnknownRun):
                await store.read(run_id)

    async def test_the_origin_and_the_tags_of_a_run_are_kept(self, store: VersionStore) -> None:
        """A fork knows its version, with root or without; tags, seal and fork_of stay through release and claim."""
        (root,) = counting("run", 1)
        run = replace(new_run(), fork_of="other@7", tags={"ü": "a'b", "": '"'}, seal=bytes(range(256)))
        lease = await store.create(run, [root._replace(fork_of="other@7")])
        assert lease is not None
        assert replace(await store.read("run"), owner=None, updated=EARLY, epoch=0) == replace(run, head=0)
        other = replace(run, run_id="other", fork_of=None, tags={}, seal=b"")
        await store.create(other)
        assert replace(await store.read("other"), owner=None, updated=EARLY, epoch=0) == other
        await store.append(lease, counting("run", 2)[1:])
        await store.release(lease, "failed", "why", b"\0new")
        read = await store.read("run")
        assert (read.tags, read.fork_of, read.seal) == (run.tags, "other@7", b"\0new")
        await store.release(await store.claim(replace(read, seal=b"now")), "completed", seal=b"then")
        read = await store.read("run")
        assert (read.tags, read.fork_of, read.seal) == (run.tags, "other@7", b"then")

    async def test_a_claim_stores_the_seal(self, store: VersionStore) -> None:
        """The run has the seal of the claim as soon as it is owned, and none after a release without one."""
        run = await owned(store)
        await store.release(run.lease, "failed", seal=b"old")
        lease = await store.claim(replace(await store.read("run"), seal=b"new"))
        assert (await store.read("run")).seal == b"new"
        await store.append(lease, run.versions[1:2])
        assert (await store.read("run")).seal == b"new"
        await store.release(lease, "failed")
        assert (await store.read("run")).seal == b""

    async def test_a_copy_of_a_pruned_run_begins_with_a_keyframe(self, store: VersionStore) -> None:
        """Its versions keep their numbers, from the first one that was kept on; it goes on as the other one would."""
        versions = counting("run", 9, keyframes=(0, 3, 7))
        lease = await store.create(replace(new_run(), first=3), versions[3:6])
        assert lease is not None
        read = await store.read("run")
        assert (read.first, read.head) == (3, 5)
        assert list(await store.versions("run")) == versions[3:6]
        assert list(await store.chain("run@5")) == versions[3:6]
        with pytest.raises(UnknownVersion):
            await store.chain("run@2")
        for begin in (0, 3, 5, 7):
            with pytest.raises(VersionConflict):
                await store.append(lease, versions[begin : begin + 1])
        await store.append(lease, versions[6:])
        assert list(await store.chain("run@8")) == versions[7:]
        assert await store.drop("run", 2) == 4
        assert (await store.read("run")).first == 7

    @pytest.mark.parametrize(
        ("first", "order"), [(2, (2, 3)), (3, (0, 1)), (3, (4,)), (4, (3, 4)), (3, (3, 5)), (0, (3,)), (3, ())]
    )
    async def test_a_copy_does_not_begin_elsewhere(
        self, store: VersionStore, first: int, order: tuple[int, ...]
    ) -> None:
        """A number that is not the run's first, a version that is no keyframe, a gap: nothing is stored."""
        versions = counting("run", 6, keyframes=(0, 3))
        with pytest.raises(VersionConflict):
            await store.create(replace(new_run(), first=first), [versions[seq] for seq in order])
        with pytest.raises(UnknownRun):
            await store.read("run")

    @pytest.mark.parametrize("stored", [0, 1, 2])
    async def test_versions_for_a_taken_id_are_not_stored(self, store: VersionStore, stored: int) -> None:
        """Whoever comes second with versions gets no lease, and changes nothing, even where there are none yet."""
        run = await owned(store, stored=stored)
        before = await store.read("run")
        assert await store.create(new_run(), chain_of("run", [body_of(n=7), b""])) is None
        assert await store.read("run") == before
        assert list(await store.versions("run")) == run.versions[:stored]

    async def test_of_two_that_create_a_run_with_versions_at_once_one_does(self, store: VersionStore) -> None:
        """The versions of two never mix: all are those of the one who owns the run."""
        chains = [chain_of("run", [body_of(n=number), b"", b""][: number % 3 + 1]) for number in range(6)]
        leases = await asyncio.gather(*(store.create(new_run(), chain) for chain in chains))
        (winner,) = [number for number, lease in enumerate(leases) if lease is not None]
        assert list(await store.versions("run")) == chains[winner]

    async def test_a_bad_create_fails_alone(self, store: VersionStore) -> None:
        """Of many runs created at once, those that are new are stored, those that are wrong or taken are told."""
        await owned(store, "run-1", stored=0)
        chains = [counting(f"run-{number}", 1 + number % 3) for number in range(9)]
        chains[2] = chains[2][1:]
        done = await asyncio.gather(
            *(store.create(new_run(f"run-{number}"), chain) for number, chain in enumerate(chains)),
            return_exceptions=True,
        )
        assert [type(each) for each in done] == [Lease, type(None), VersionConflict, *[Lease] * 6]
        for number in (0, *range(3, 9)):
            assert list(await store.versions(f"run-{number}")) == chains[number]
        assert list(await store.versions("run-1")) == []

    async def test_first_versions_may_be_changed_afterwards(self, store: VersionStore) -> None:
        """A store keeps the versions it was given, not the caller's list of them."""
        versions = counting("run", 2)
        passed = list(versions)
        await store.create(new_run(), passed)
        passed.clear()
        assert list(await store.versions("run")) == versions

    async def test_the_longest_run_id_and_no_steps_are_kept(self, store: VersionStore) -> None:
        """128 characters are an id like any other, and an empty list of steps is one."""
        await store.create(replace(new_run("r" * 128), steps=()))
        assert (await store.read("r" * 128)).steps == ()

    @pytest.mark.parametrize("run_id", ["none", "", "run@0", "RUN", "ru", "run%", "run\0", "r" * 5000])
    async def test_an_unknown_run_is_named(self, store: VersionStore, run_id: str) -> None:
        """Whoever reads a run that is not there is told which, whatever was asked for."""
        await store.create(new_run())
        for reading in (store.read, store.versions):
            with pytest.raises(UnknownRun) as caught:
                await reading(run_id)
            assert caught.value.run_id == run_id

    async def test_a_run_id_that_is_no_unicode_is_refused(self, store: VersionStore) -> None:
        """What cannot be the id of a run is no reason for an error that is not a store's."""
        with pytest.raises(StoreError):
            await store.read("\ud800")

    async def test_an_unknown_run_cannot_be_claimed(self, store: VersionStore) -> None:
        """There is no lease of a run that is not there."""
        with pytest.raises(UnknownRun):
            await store.claim(new_run())

    async def test_an_owned_run_cannot_be_claimed(self, store: VersionStore) -> None:
        """As long as an owner works on a run, others are told who."""
        await store.create(new_run())
        run = await store.read("run")
        with pytest.raises(RunBusy) as caught:
            await store.claim(run)
        assert (caught.value.run_id, caught.value.owner) == ("run", run.owner)
        assert await store.read("run") == run

    async def test_a_released_run_can_be_claimed(self, store: VersionStore) -> None:
        """A claim runs again, with a higher epoch and the steps that the flow has now."""
        run = await owned(store)
        await store.release(run.lease, "failed", "step 'two' failed")
        free = await store.read("run")
        lease = await store.claim(replace(free, steps=("one", "new")))
        read = await store.read("run")
        assert lease == Lease("run", read.epoch)
        assert read.epoch > free.epoch
        assert (read.status, read.error, read.steps) == ("running", None, ("one", "new"))
        assert read.owner is not None

    async def test_a_run_that_changed_since_it_was_read_cannot_be_claimed(self, store: VersionStore) -> None:
        """A claim is of the run as it was read: whoever read it before another owner had it reads it anew."""
        run = await owned(store)
        await store.release(run.lease, "failed")
        stale = await store.read("run")
        await store.release(await store.claim(stale), "failed")
        with pytest.raises(RunBusy):
            await store.claim(stale)

    async def test_of_two_that_claim_a_run_at_once_one_owns_it(self, store: VersionStore) -> None:
        """A run that two claim in the same moment is given to one, the others get RunBusy."""
        for run_id in ("other", "run"):
            await store.release((await owned(store, run_id)).lease, "failed")
        other, free = await store.read("other"), await store.read("run")
        claims = await asyncio.gather(
            store.claim(other), *(store.claim(free) for _ in range(5)), return_exceptions=True
        )
        assert sum(isinstance(claim, Lease) for claim in claims) == 2
        assert sum(isinstance(claim, RunBusy) for claim in claims) == 4

    @pytest.mark.parametrize("status", get_args(Status))
    @pytest.mark.parametrize("error", [None, "", "it's ‘broken’\n; DROP TABLE runs --"])
    async def test_how_a_run_stands_is_read_back(self, store: VersionStore, status: Status, error: str | None) -> None:
        """A release keeps status and error, and frees the run; all else stays."""
        run = await owned(store)
        before = await store.read("run")
        await store.release(run.lease, status, error)
        read = await store.read("run")
        assert (read.status, read.error, read.owner) == (status, error, None)
        assert replace(read, status="running", error=None) == replace(
            before, owner=None, epoch=read.epoch, updated=read.updated
        )
        assert read.updated >= before.updated

    async def test_an_error_text_that_is_no_unicode_stops_nobody(self, store: VersionStore) -> None:
        """A text that cannot be written is stored in some form or refused; the store works on."""
        run = await owned(store)
        await asyncio.gather(store.release(run.lease, "failed", "\ud800"), return_exceptions=True)
        assert await store.create(new_run("other")) is not None
        assert (await store.read("run")).head == 0

    async def test_the_release_of_a_lost_lease_does_nothing(self, store: VersionStore) -> None:
        """Neither twice, nor by an owner that has been followed by another, is a lease given back."""
        run = await owned(store)
        await store.release(run.lease, "failed", "why")
        await store.release(run.lease, "completed")
        assert (await store.read("run")).status == "failed"
        await store.claim(await store.read("run"))
        before = await store.read("run")
        await store.release(run.lease, "completed")
        assert await store.read("run") == before

    async def test_runs_do_not_touch_each_other(self, store: VersionStore) -> None:
        """What is done to one run leaves another, of a similar id, as it was."""
        first, second = await owned(store, "run", stored=3), await owned(store, "run.", stored=2)
        before = await store.read("run."), await store.versions("run.")
        await first.append(3, 5)
        await store.release(first.lease, "failed", "why")
        assert (await store.read("run."), await store.versions("run.")) == before
        await second.append(2, 3)
        assert (await store.read("run")).head == 4
