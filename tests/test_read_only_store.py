"""ReadOnlyStore: all reading, and no writing."""

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from flowneer_async import ReadOnly, RunFilter, VersionStore
from flowneer_async.store import Due, Lease, TransactionalStore
from flowneer_async.testing.chains import counting, new_run
from flowneer_stores import MemoryStore, ReadOnlyStore

WRITES: dict[str, Callable[[ReadOnlyStore], Coroutine[Any, Any, object]]] = {
    "create": lambda store: store.create(new_run("other"), counting("other", 1)),
    "claim": lambda store: store.claim(new_run()),
    "append": lambda store: store.append(Lease("run", 1), counting("run", 4)[3:]),
    "release": lambda store: store.release(Lease("run", 1), "failed"),
    "send": lambda store: store.send("run", "go", b"1"),
    "ask_cancel": lambda store: store.ask_cancel("run"),
    "drop": lambda store: store.drop("run", 1),
    "purge": lambda store: store.purge("run"),
    "begin": lambda store: store.begin(),
}
READS = {"read", "chain", "versions", "signals", "find", "count", "due", "changes"}


async def made() -> MemoryStore:
    store = MemoryStore()
    await store.create(new_run(), counting("run", 3, keyframes=(0, 2)))
    await store.send("run", "go", b"1")
    await store.create(replace(new_run("queued"), status="waiting", wake=1))
    return store


async def everything(store: VersionStore) -> list[object]:
    runs = RunFilter()
    return [
        await store.read("run"),
        list(await store.versions("run")),
        list(await store.versions("run", 1, 1)),
        list(await store.chain("run@2")),
        list(await store.signals("run")),
        await store.find(runs, 10),
        await store.count(runs),
        list(await store.due(Due(frozenset({"flow"})), 10)),
    ]


def test_every_method_reads_or_writes() -> None:
    """A method that is new in the protocol has to be thought of here."""
    kinds = (VersionStore, TransactionalStore)
    methods = {name for kind in kinds for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
    assert methods == {*WRITES, *READS}


@pytest.mark.parametrize("name", WRITES)
async def test_what_writes_is_refused(name: str) -> None:
    """By name, and nothing has changed."""
    inner = await made()
    before = await everything(inner)
    with pytest.raises(ReadOnly) as caught:
        await WRITES[name](ReadOnlyStore(inner))
    assert caught.value.operation.startswith(name.replace("_", " to "))
    assert await everything(inner) == before


async def test_reading_gives_what_the_store_holds() -> None:
    """All of it, as it is now, and word of what changes."""
    inner = await made()
    store = ReadOnlyStore(inner)
    assert await everything(store) == await everything(inner)
    assert (await store.resolve("run@1")).state == {"n": 1}
    async with store.changes("run") as changed:
        await inner.append(Lease("run", 1), counting("run", 4)[3:])
        await changed()
    assert (await store.read("run")).head == 3
