"""The contract of append."""

import asyncio

import pytest

from flowneer_async.errors import Fenced, StoreError, UnknownRun, VersionConflict
from flowneer_async.store import Lease, VersionStore
from flowneer_async.testing.chains import body_of, chain_of, counting, new_run, owned


class WritingContract:
    """Versions are appended to the head, by the owner, all of them or none."""

    async def test_appended_versions_are_read_back_in_order(self, store: VersionStore) -> None:
        """One at a time or several at once, what was appended is there, and the head has moved."""
        run = await owned(store, length=6, stored=1)
        await run.append(1, 2)
        await run.append(2, 6)
        assert list(await store.versions("run")) == run.versions
        assert (await store.read("run")).head == 5

    async def test_a_run_without_versions_has_none(self, store: VersionStore) -> None:
        """A run that was created, and no more, has an empty list of versions, and no head."""
        await store.create(new_run())
        assert list(await store.versions("run")) == []
        assert (await store.read("run")).head == -1

    @pytest.mark.parametrize("begin", [0, 1, 3], ids=["the root again", "the head again", "one left out"])
    async def test_what_does_not_follow_the_head_is_refused(self, store: VersionStore, begin: int) -> None:
        """The parent of what is appended is the head, or nothing of it is stored."""
        run = await owned(store, stored=2)
        with pytest.raises(VersionConflict) as caught:
            await run.append(begin, begin + 2)
        assert (caught.value.version, caught.value.head) == (f"run@{begin}", "run@1")
        assert list(await store.versions("run")) == run.versions[:2]
        await run.append(2, 3)

    async def test_a_chain_begins_at_its_root(self, store: VersionStore) -> None:
        """To a run without versions only number 0 can be appended."""
        run = await owned(store, stored=0)
        with pytest.raises(VersionConflict) as caught:
            await run.append(1, 3)
        assert caught.value.head is None
        assert list(await store.versions("run")) == []

    @pytest.mark.parametrize("order", [(1, 3), (1, 1), (2, 1), (1, 2, 4)])
    async def test_versions_that_do_not_follow_each_other_are_refused(
        self, store: VersionStore, order: tuple[int, ...]
    ) -> None:
        """A row of versions with a gap, or out of order, is stored neither as a whole nor in part."""
        run = await owned(store)
        with pytest.raises(StoreError):
            await store.append(run.lease, [run.versions[seq] for seq in order])
        assert list(await store.versions("run")) == run.versions[:1]
        await run.append(1, 6)

    async def test_nothing_can_be_appended(self, store: VersionStore) -> None:
        """To append no versions changes nothing."""
        run = await owned(store)
        await store.append(run.lease, [])
        assert list(await store.versions("run")) == run.versions[:1]

    async def test_of_two_appends_at_once_one_is_stored(self, store: VersionStore) -> None:
        """Two rows of versions on one head never mix, whichever comes first."""
        run = await owned(store)
        one, two = run.versions, chain_of("run", [body_of(n=7), b"", b"", b""])
        done = await asyncio.gather(
            store.append(run.lease, one[1:2]), store.append(run.lease, two[1:4]), return_exceptions=True
        )
        stored = list(await store.versions("run"))[1:]
        assert stored in (one[1:2], two[1:4])
        assert [type(each) for each in done if each is not None] == [VersionConflict]

    async def test_the_owner_before_the_last_is_fenced(self, store: VersionStore) -> None:
        """Whoever has lost the lease learns it when it appends, and writes nothing."""
        run = await owned(store)
        await store.release(run.lease, "running")
        lease = await store.claim(await store.read("run"))
        with pytest.raises(Fenced) as caught:
            await run.append(1, 3)
        assert caught.value.run_id == "run"
        assert list(await store.versions("run")) == run.versions[:1]
        await store.append(lease, run.versions[1:2])

    async def test_a_lease_given_back_is_a_lost_one(self, store: VersionStore) -> None:
        """After a release nobody writes to the run, its last owner neither."""
        run = await owned(store)
        await store.release(run.lease, "completed")
        with pytest.raises(Fenced):
            await run.append(1, 2)
        assert list(await store.versions("run")) == run.versions[:1]

    async def test_a_lease_of_tomorrow_is_no_lease(self, store: VersionStore) -> None:
        """An epoch that no owner has had yet does not write."""
        run = await owned(store)
        with pytest.raises(Fenced):
            await store.append(Lease("run", run.lease.epoch + 1), run.versions[1:2])
        assert list(await store.versions("run")) == run.versions[:1]

    async def test_nothing_is_appended_to_an_unknown_run(self, store: VersionStore) -> None:
        """A run is created before it has versions."""
        with pytest.raises(UnknownRun):
            await store.append(Lease("run", 1), counting("run", 1))

    async def test_a_bad_append_fails_alone(self, store: VersionStore) -> None:
        """Of many runs that append at once, those that are right are stored, those that are wrong are told."""
        runs = [await owned(store, f"run-{number}", length=3) for number in range(6)]
        await store.release(runs[0].lease, "failed")
        begins = [1, 2, 1, 1, 1, 1]
        done = await asyncio.gather(
            *(run.append(begin, 3) for run, begin in zip(runs, begins, strict=True)), return_exceptions=True
        )
        assert [type(each) for each in done] == [Fenced, VersionConflict, *[type(None)] * 4]
        assert [(await store.read(run.lease.run_id)).head for run in runs] == [0, 0, 2, 2, 2, 2]

    async def test_every_byte_is_kept(self, store: VersionStore) -> None:
        """Bodies are bytes, not text: each value comes back, at either end and alone."""
        each = bytes(range(256))
        bodies = [each, each[::-1], b"", b"\0", b"\0" * 10, b"\xff\xfe\0", "€ü😀".encode("utf-16")]
        lease = await store.create(new_run())
        assert lease is not None
        versions = chain_of("run", bodies)
        await store.append(lease, versions)
        assert [version.body for version in await store.versions("run")] == bodies

    async def test_markers_and_keyframes_are_kept_as_such(self, store: VersionStore) -> None:
        """An empty body is a marker, and a version whose base is its own number a keyframe."""
        lease = await store.create(new_run())
        assert lease is not None
        await store.append(lease, chain_of("run", [body_of(n=7), b"", body_of(n=7), b""], keyframes=(0, 2)))
        versions = await store.versions("run")
        assert [version.is_marker for version in versions] == [False, True, False, True]
        assert [version.is_keyframe for version in versions] == [True, False, True, False]

    async def test_every_field_is_kept(self, store: VersionStore) -> None:
        """The origin of a fork, a path with any sign, great numbers: all come back."""
        lease = await store.create(new_run())
        assert lease is not None
        (root,) = counting("run", 1)
        root = root._replace(fork_of="other@7", path="ü'[12]/a\"b%", step_index=10**6, timestamp=2**53)
        await store.append(lease, [root])
        assert list(await store.versions("run")) == [root]

    async def test_a_big_body_is_kept(self, store: VersionStore) -> None:
        """Five megabytes of state are a state like any other."""
        body = bytes(range(256)) * (5 * 2**20 // 256)
        lease = await store.create(new_run())
        assert lease is not None
        await store.append(lease, chain_of("run", [body]))
        (root,) = await store.chain("run@0")
        assert root.body == body

    async def test_many_versions_are_appended_at_once(self, store: VersionStore) -> None:
        """A thousand versions in one append are all there."""
        run = await owned(store, length=1000, stored=0)
        await run.append(0, 1000)
        assert list(await store.versions("run")) == run.versions

    async def test_what_was_passed_may_be_changed_afterwards(self, store: VersionStore) -> None:
        """A store keeps the versions it was given, not the caller's list of them."""
        run = await owned(store, stored=0)
        passed = run.versions[:2]
        await store.append(run.lease, passed)
        passed.clear()
        assert list(await store.versions("run")) == run.versions[:2]
