"""What the processes of a service have left in their store, looked at from outside."""

from collections.abc import Sequence

from flowneer_async.store import RunFilter, VersionStore, resolve
from tests.support.chains import stored_versions


async def check_completed(store: VersionStore, run_id: str, steps: Sequence[str]) -> None:
    """A run is over, has a version for each step, in an unbroken chain, and the state that they lead to."""
    run, versions = await store.read(run_id), await stored_versions(store, run_id)
    assert (run.status, run.error, run.owner, run.head) == ("completed", None, None, len(steps))
    assert [version.path for version in versions[1:]] == list(steps)
    assert (await resolve(store, versions[-1].id)).state == {"log": list(steps)}


async def run_ids(store: VersionStore) -> set[str]:
    """All runs that there are."""
    page = await store.find(RunFilter(), 10_000)
    return {run.run_id for run in page.runs}
