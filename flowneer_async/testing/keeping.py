"""Runs that are dropped from or purged, and what has to be true of them afterwards."""

import asyncio
from collections.abc import Sequence

import pytest

from flowneer_async.errors import UnknownVersion
from flowneer_async.store import VersionStore
from flowneer_async.testing.chains import Owned, counting, owned
from flowneer_async.versions import Run, Status, Version, checked, fold

LENGTH = 12


async def kept_whole(store: VersionStore, versions: Sequence[Version], first: int) -> None:
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


async def with_keyframes(store: VersionStore, run_id: str = "run") -> Owned:
    """A run at work, of whose versions 12 are stored, and 6 are to come."""
    run = await owned(store, run_id, stored=0)
    run.versions = counting(run_id, 18, keyframes=(0, 4, 9, 15))
    await run.append(0, LENGTH)
    return run


async def ended(store: VersionStore, run_id: str = "run", status: Status = "completed") -> Owned:
    """A run that nobody owns, with versions and signals."""
    run = await owned(store, run_id, stored=4)
    await store.send(run_id, "go", b"1")
    await store.send(run_id, "on", b"2")
    await store.release(run.lease, status)
    return run


async def all_of(store: VersionStore, run_id: str) -> tuple[Run, list[Version], list[object]]:
    """Whatever a store has of a run."""
    return await store.read(run_id), list(await store.versions(run_id)), list(await store.signals(run_id))
