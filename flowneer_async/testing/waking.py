"""The contract of what is kept of a run for an engine: whose it is, when it is to be woken, whether it is to end."""

from dataclasses import replace
from typing import get_args

import pytest

from flowneer_async.errors import Fenced, UnknownRun
from flowneer_async.store import Due, Lease, RunFilter, VersionStore
from flowneer_async.testing.chains import EARLY, counting, new_run, owned
from flowneer_async.testing.due import LATE
from flowneer_async.versions import OPEN, Run, Status

_EACH = pytest.mark.parametrize("status", get_args(Status))
_WAITING = replace(new_run(), status="waiting", wake=EARLY)


async def _claimed(store: VersionStore, begun: int = EARLY) -> Lease:
    return await store.claim(replace(await store.read("run"), begun=begun))


async def _free(store: VersionStore, status: Status) -> Run:
    """A run that stands so, and which nobody owns."""
    lease = await store.create(replace(new_run(), begun=EARLY))
    assert lease is not None
    await store.release(lease, status)
    return await store.read("run")


class WakingContract:
    """A run waits for its time, for a signal, or for the wish to cancel it; whichever comes first wakes it up."""

    @pytest.mark.parametrize("length", [0, 1, 3])
    async def test_a_run_that_is_stored_to_wait_is_nobodys(self, store: VersionStore, length: int) -> None:
        """Its lease is good for nothing; whoever claims it goes on after its first versions."""
        versions = counting("run", 5)
        lease = await store.create(_WAITING, versions[:length])
        assert lease is not None
        read = await store.read("run")
        assert replace(read, updated=EARLY, epoch=0) == replace(_WAITING, head=length - 1)
        with pytest.raises(Fenced):
            await store.append(lease, versions[length:])
        for status in get_args(Status):
            await store.release(lease, status)
        assert await store.read("run") == read
        assert [run.run_id for run in (await store.find(RunFilter(owned=False), 9)).runs] == ["run"]
        await store.append(await store.claim(read), versions[length:])
        assert list(await store.versions("run")) == versions

    async def test_a_run_that_is_stored_to_wait_can_be_purged(self, store: VersionStore) -> None:
        """It was never begun, and may be stored anew; the old lease is not good for the new run."""
        lease = await store.create(_WAITING)
        await store.purge("run")
        new = await store.create(new_run())
        assert lease is not None
        assert new is not None
        with pytest.raises(Fenced):
            await store.append(lease, counting("run", 1))
        await store.append(new, counting("run", 1))

    async def test_of_two_that_store_a_run_to_wait_one_does(self, store: VersionStore) -> None:
        """The second to create an id gets no lease, and changes nothing."""
        assert await store.create(_WAITING) is not None
        before = await store.read("run")
        assert await store.create(replace(_WAITING, wake=None, key="other")) is None
        assert await store.read("run") == before

    @pytest.mark.parametrize("status", sorted(OPEN))
    async def test_what_an_engine_said_of_a_run_is_kept(self, store: VersionStore, status: Status) -> None:
        """With versions or without: wake, priority, key, begun; how often its owners died is the store's to count."""
        for length in (0, 1):
            said = replace(_WAITING, run_id=f"run-{length}", status=status, priority=-7, key="ü'", begun=EARLY + 1)
            given = replace(said, recoveries=5, cancelling=True)
            await store.create(given, counting(given.run_id, length))
            read = await store.read(given.run_id)
            assert replace(read, owner=None, updated=EARLY, epoch=0) == replace(said, head=length - 1)
            assert (await store.find(RunFilter(), 1)).runs == (read,)

    async def test_a_run_begins_once(self, store: VersionStore) -> None:
        """It has begun when it was first claimed as begun, whoever claims it later."""
        await store.create(_WAITING)
        await store.release(await store.claim(await store.read("run")), "waiting")
        assert (await store.read("run")).begun is None
        for begun in (EARLY + 5, EARLY + 9, EARLY):
            lease = await _claimed(store, begun)
            assert (await store.read("run")).begun == EARLY + 5
            await store.release(lease, "waiting")
            assert (await store.read("run")).begun == EARLY + 5

    async def test_who_claims_a_run_wakes_it(self, store: VersionStore) -> None:
        """It neither sleeps nor is to be cancelled any more, and what it has for its limits stays."""
        await store.create(replace(_WAITING, wake=LATE, priority=3, key="key"))
        await store.ask_cancel("run")
        lease = await _claimed(store)
        read = await store.read("run")
        assert (read.status, read.wake, read.cancelling, read.recoveries) == ("running", None, False, 0)
        await store.release(lease, "waiting")
        assert await store.read("run") == replace(
            read, status="waiting", owner=None, epoch=read.epoch + 1, updated=(await store.read("run")).updated
        )
        assert (read.priority, read.key) == (3, "key")

    @_EACH
    @pytest.mark.parametrize("wake", [None, 0, EARLY, LATE])
    async def test_a_run_is_put_down_until_a_time(self, store: VersionStore, status: Status, wake: int | None) -> None:
        """Only while it waits: one that is over is never woken."""
        run = await owned(store)
        await store.release(run.lease, status, wake=wake)
        assert (await store.read("run")).wake == (wake if status == "waiting" else None)

    @pytest.mark.parametrize("wake", [None, EARLY - 1, LATE])
    @pytest.mark.parametrize("came", ["signal", "wish"])
    async def test_what_came_while_a_run_was_at_work_wakes_it_at_once(
        self, store: VersionStore, came: str, wake: int | None
    ) -> None:
        """A signal, or the wish to cancel it, that came since the claim: the owner may not have seen it."""
        run = await owned(store)
        await (store.send("run", "go", b"1") if came == "signal" else store.ask_cancel("run"))
        await store.release(run.lease, "waiting", wake=wake)
        read = await store.read("run")
        assert read.wake is not None
        assert EARLY < read.wake < LATE
        await store.release(await _claimed(store), "waiting", wake=wake)
        assert (await store.read("run")).wake == wake

    @_EACH
    async def test_a_signal_wakes_a_run_that_is_not_over(self, store: VersionStore, status: Status) -> None:
        """At once, by the store's own clock, also where the signal is a copy of an old one."""
        free = await _free(store, status)
        await store.send("run", "go", b"1", sent=7)
        wake = (await store.read("run")).wake
        assert (wake is not None and EARLY < wake < LATE) == (status in OPEN)
        assert await store.read("run") == replace(free, wake=wake)

    async def test_a_signal_lets_no_run_begin_before_its_time(self, store: VersionStore) -> None:
        """It is kept for it; the wish to cancel wakes it all the same."""
        await store.create(replace(new_run(), status="waiting", wake=LATE))
        await store.send("run", "go", b"1")
        assert (await store.read("run")).wake == LATE
        assert await store.ask_cancel("run")
        wake = (await store.read("run")).wake
        assert wake is not None
        assert wake < LATE

    @_EACH
    async def test_who_asks_to_cancel_a_run_is_told_whether_it_is_over(
        self, store: VersionStore, status: Status
    ) -> None:
        """One that is not is to be cancelled, and is woken; the other stays as it is. However often one asks."""
        free = await _free(store, status)
        for _ in range(3):
            assert await store.ask_cancel("run") is (status in OPEN)
        read = await store.read("run")
        assert (read.wake is not None and EARLY < read.wake < LATE) == read.cancelling == (status in OPEN)
        assert replace(read, wake=None, cancelling=False) == free

    async def test_the_owner_is_asked_while_it_is_at_work(self, store: VersionStore) -> None:
        """It notices nothing of it but by reading the run; when it has ended it, nothing is left to ask."""
        run = await owned(store)
        before = await store.read("run")
        assert await store.ask_cancel("run") is True
        read = await store.read("run")
        assert (read.cancelling, replace(read, cancelling=False, wake=None)) == (True, before)
        assert [each.run_id for each in (await store.find(RunFilter(cancelling=True, owned=True), 9)).runs] == ["run"]
        await run.append(1, 3)
        await store.release(run.lease, "cancelled")
        assert (await store.read("run")).cancelling is False
        assert await store.ask_cancel("run") is False

    @pytest.mark.parametrize("status", sorted(OPEN))
    async def test_the_wish_to_cancel_a_run_outlives_its_owner(self, store: VersionStore, status: Status) -> None:
        """Whoever goes on with it next finds it, before the claim."""
        run = await owned(store)
        await store.ask_cancel("run")
        wake = (await store.read("run")).wake
        await store.release(run.lease, status)
        read = await store.read("run")
        assert (read.cancelling, read.wake) == (True, wake)

    async def test_a_wish_to_cancel_a_run_that_its_next_owner_has_not_read_stays(self, store: VersionStore) -> None:
        """Who claims a run as it was before cannot know of it: it is kept, and wakes the run when it comes to wait."""
        read = await _free(store, "waiting")
        assert await store.ask_cancel("run")
        lease = await store.claim(read)
        assert (await store.read("run")).cancelling
        await store.release(lease, "waiting")
        [due] = await store.due(Due(frozenset([read.flow])), 10)
        assert due.cancelling
        await store.claim(due)
        run = await store.read("run")
        assert (run.cancelling, run.wake) == (False, None)

    @pytest.mark.parametrize("run_id", ["none", "", "run@0", "RUN", "ru", "run%", "run\0", "r" * 5000])
    async def test_an_unknown_run_is_not_cancelled(self, store: VersionStore, run_id: str) -> None:
        """Whoever asks is told which; the others stay as they are."""
        await owned(store)
        with pytest.raises(UnknownRun) as caught:
            await store.ask_cancel(run_id)
        assert caught.value.run_id == run_id
        assert (await store.read("run")).cancelling is False
