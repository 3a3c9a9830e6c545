"""The contract of create, claim, release and read."""

import asyncio
from dataclasses import replace
from typing import get_args

import pytest

from flowneer_async.errors import RunBusy, StoreError, UnknownRun
from flowneer_async.store import Lease, VersionStore
from flowneer_async.testing.chains import EARLY, new_run, owned
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
        """An id that two ask for in the same moment is given to one."""
        leases = await asyncio.gather(*(store.create(new_run()) for _ in range(5)))
        assert sum(lease is not None for lease in leases) == 1

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
        run = await owned(store)
        await store.release(run.lease, "failed")
        free = await store.read("run")
        claims = await asyncio.gather(*(store.claim(free) for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(claim, Lease) for claim in claims) == 1
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
