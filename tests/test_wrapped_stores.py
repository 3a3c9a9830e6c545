"""Wrappers around each kind of store: flows run through them as they do without."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import FlowBuilder, FlowError, VersionStore, copy_run
from flowneer_stores import EncryptedStore, LimitedStore, MemoryStore, ReadOnlyStore, RedactedStore, SignedStore
from flowneer_stores.methods import Methods
from tests.support.stores import KINDS, opened

KEYS = {"2026": os.urandom(32)}
WRAPPERS: dict[str, Callable[[VersionStore], Methods]] = {
    "encrypted": lambda store: EncryptedStore(store, KEYS),
    "signed": lambda store: SignedStore(store, KEYS["2026"]),
    "limited": LimitedStore,
    "all of them": lambda store: LimitedStore(EncryptedStore(SignedStore(store, KEYS["2026"]), KEYS)),
}
outages: list[str] = []


def note(state: dict[str, Any]) -> None:
    state["secret"] = "4711" * 10


def fail(state: dict[str, Any]) -> None:
    if outages:
        raise ConnectionError(outages.pop())
    state["done"] = True


flow = FlowBuilder[dict[str, Any]]("wrapped").start_with(note).then(fail).wait_for("go", into="go")
END = {"secret": "4711" * 10, "done": True, "go": 7}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_flow_fails_waits_and_ends_through_a_wrapper(
    kind: str, wrap: Callable[[VersionStore], Methods], tmp_path: Path
) -> None:
    """Its run is found, verified, pruned, copied and purged; only through the wrapper is it what it was."""
    async with opened(kind, tmp_path) as inner:
        store = wrap(inner)
        kept = flow.with_versioned_checkpoint(store)
        outages.append("no route to host")
        with pytest.raises(FlowError):
            await kept.run({}, run_id="r", tags={"of": "ada"})
        assert (await kept.run(run_id="r")).status == "waiting"
        await kept.signal("r", "go", 7)
        target = MemoryStore()
        await copy_run("r", store, target)
        result = await kept.resume("r")
        assert (result.status, result.state) == ("completed", END)
        assert [run.run_id for run in (await store.runs(tags={"of": "ada"})).runs] == ["r"]
        assert (await store.verify()).damages == ()
        assert await store.prune(keep=1) >= 0
        assert (await store.resolve(result.version or "")).state == END
        await store.purge("r")
        assert (await store.counts()) == {}
    assert (await flow.with_versioned_checkpoint(target).resume("r")).state == END


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_stored_through_an_encrypted_store_shows_nothing(kind: str, tmp_path: Path) -> None:
    """Neither the bodies of versions nor the payloads of signals."""
    async with opened(kind, tmp_path) as inner:
        kept = flow.with_versioned_checkpoint(EncryptedStore(inner, KEYS))
        await kept.run({}, run_id="r")
        await kept.signal("r", "go", 47114711)
        rows = [*await inner.versions("r"), *await inner.signals("r")]
        assert len(rows) > 3
        assert not any("4711" in repr(row) for row in rows)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_shown_of_a_store_is_read_and_not_written(kind: str, tmp_path: Path) -> None:
    """A view is the same over each kind of store, and hides what it is told to."""
    async with opened(kind, tmp_path) as inner:
        result = await flow.with_versioned_checkpoint(inner).run({}, run_id="r")
        version = result.version or ""
        assert (await ReadOnlyStore(inner).resolve(version)).state == {"secret": "4711" * 10, "done": True}
        shown = RedactedStore(inner, ["secret"])
        assert (await shown.resolve(version)).state == {"secret": "«redacted»", "done": True}
        assert (await shown.verify()).damages == ()
