"""What a store holds of a run, checked while it is read."""

from flowneer_async import Snapshot, UnknownRun, Version
from flowneer_async.store import VersionStore, resolve
from flowneer_async.versions import checked


async def stored_versions(store: VersionStore, run_id: str) -> list[Version]:
    """All versions of a run, which have to be an unbroken and undamaged chain from its root; none without a run."""
    try:
        versions = list(await store.versions(run_id))
    except UnknownRun:
        return []
    assert [version.seq for version in versions] == list(range(len(versions)))
    for version in versions:
        checked(version.id, versions[version.base : version.seq + 1])
    return versions


async def stored_snapshots(store: VersionStore, run_id: str) -> list[Snapshot[dict[str, object]]]:
    """Every version of a run, resolved."""
    return [await resolve(store, version.id) for version in await stored_versions(store, run_id)]


async def stored_states(store: VersionStore, run_id: str) -> list[dict[str, object]]:
    """The state at every version of a run."""
    return [snapshot.state for snapshot in await stored_snapshots(store, run_id)]
