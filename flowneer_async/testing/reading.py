"""The contract of chain and versions."""

import pytest

from flowneer_async.encoding import JSON
from flowneer_async.errors import UnknownRun, UnknownVersion
from flowneer_async.store import VersionStore, resolve
from flowneer_async.testing.chains import Owned, counting, owned
from flowneer_async.versions import checked, fold

_NO_VERSIONS = [
    "", "@", "run", "run@", "@0", "run@-1", "run@6", "run@1.0", "run@ 1", "run@1 ", "run@1\n", "run@x", "run@1@1",
    "run@٣", "other@0", "RUN@0", "run\0@0", "\ud800@0", "run@" + "9" * 18, "run@" + "9" * 30,
]  # fmt: skip


async def _with_keyframes(store: VersionStore) -> Owned:
    run = await owned(store, stored=0)
    run.versions = counting("run", 6, keyframes=(0, 3))
    await run.append(0, 6)
    return run


class ReadingContract:
    """A version is found with all it builds on."""

    async def test_a_chain_begins_at_the_keyframe_and_ends_at_the_version(self, store: VersionStore) -> None:
        """A chain is no longer than it need be to fold, and whole."""
        run = await _with_keyframes(store)
        for seq in range(6):
            chain = list(await store.chain(f"run@{seq}"))
            assert chain == run.versions[0 if seq < 3 else 3 : seq + 1]
            assert chain[0].is_keyframe
            assert checked(f"run@{seq}", chain) == chain

    async def test_resolving_gives_the_state_that_the_versions_fold_to(self, store: VersionStore) -> None:
        """From the last keyframe or from the root: the state is the same."""
        await _with_keyframes(store)
        versions = await store.versions("run")
        for seq in range(6):
            snapshot = await resolve(store, f"run@{seq}")
            texts = fold(versions[: seq + 1])
            assert snapshot.state == {key: JSON.load(text) for key, text in texts.items()} == {"n": seq}
            assert snapshot.step_index == seq - 1

    async def test_versions_from_one_number_to_another(self, store: VersionStore) -> None:
        """Both are given too, and all between; what lies beyond the ends of the chain is left out."""
        run = await _with_keyframes(store)
        assert list(await store.versions("run", 2)) == run.versions[2:]
        for first in (*range(8), 10**6):
            for last in (*range(8), 10**6):
                assert list(await store.versions("run", first, last)) == run.versions[first : last + 1]
                assert list(await store.versions("run", first=first)) == run.versions[first:]
                assert list(await store.versions("run", last=last)) == run.versions[: last + 1]

    async def test_versions_of_a_pruned_run_have_their_numbers(self, store: VersionStore) -> None:
        """From the first one that is kept on; those before it are left out."""
        run = await _with_keyframes(store)
        assert await store.drop("run", 2) == 3
        for first in range(7):
            for last in range(7):
                expected = [version for version in run.versions[3:] if first <= version.seq <= last]
                assert list(await store.versions("run", first, last)) == expected

    async def test_no_versions_of_an_unknown_run(self, store: VersionStore) -> None:
        """Whichever of them are asked for; of a run without versions, there are none."""
        await owned(store, stored=0)
        assert list(await store.versions("run", 0, 5)) == list(await store.versions("run", 3)) == []
        for first, last in ((0, None), (0, 5), (3, None), (3, 2)):
            with pytest.raises(UnknownRun):
                await store.versions("none", first, last)

    @pytest.mark.parametrize("version", _NO_VERSIONS)
    async def test_an_unknown_version_is_named(self, store: VersionStore, version: str) -> None:
        """Of a run that is not there, of a number not reached yet, or written wrongly: UnknownVersion says which."""
        await owned(store, stored=6)
        with pytest.raises(UnknownVersion) as caught:
            await store.chain(version)
        assert caught.value.version == version

    async def test_a_run_without_versions_has_no_version(self, store: VersionStore) -> None:
        """Not even number 0 is there before it is appended."""
        await owned(store, stored=0)
        with pytest.raises(UnknownVersion):
            await store.chain("run@0")

    async def test_what_was_given_out_may_be_changed(self, store: VersionStore) -> None:
        """What a caller does to the lists it was given, it does to them only."""
        run = await _with_keyframes(store)
        for given in (await store.versions("run"), await store.chain("run@2")):
            if isinstance(given, list):
                given.clear()
        assert list(await store.versions("run")) == run.versions
        assert list(await store.chain("run@2")) == run.versions[:3]

    async def test_reading_does_not_hold_up_writing(self, store: VersionStore) -> None:
        """A chain that was read stays what it was when versions are appended."""
        run = await owned(store, stored=2)
        chain, versions = await store.chain("run@1"), await store.versions("run")
        await run.append(2, 6)
        assert list(chain) == list(versions) == run.versions[:2]
