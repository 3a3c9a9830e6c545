"""LimitedStore: it knows the size of every state, and refuses what is too large."""

import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async import BadOption, FlowBuilder, StateTooLarge, StoreFailed, TooManyVersions, Version
from flowneer_async.store import Lease
from flowneer_async.testing import StoreContract
from flowneer_async.testing.chains import body_of, chain_of, new_run
from flowneer_async.versions import fold
from flowneer_stores import LimitedStore, MemoryStore, SqliteStore
from tests.support.states import Drawn, keep

State = dict[str, Any]


class TestLimitedMemoryStore(StoreContract):
    def make_store(self, tmp_path: Path) -> LimitedStore:
        return LimitedStore(MemoryStore())


class TestLimitedSqliteStore(StoreContract):
    def make_store(self, tmp_path: Path) -> LimitedStore:
        return LimitedStore(SqliteStore(tmp_path / "runs.db"))


def sizes(versions: Sequence[Version]) -> list[int]:
    """The size of each state, from its JSON."""
    return [sum(map(len, fold(versions[each.base : each.seq + 1]).values())) for each in versions]


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 30), st.data())
async def test_the_size_is_that_of_the_json(random: Random, length: int, data: st.DataObject) -> None:
    """For any states, whichever versions come together: one is refused if its JSON, with the facts, is too long."""
    versions = Drawn(random, length).versions
    most = data.draw(st.sampled_from(sizes(versions)))
    inner = MemoryStore()
    store = LimitedStore(inner, most=most)
    allowed = next((seq for seq, size in enumerate(sizes(versions)) if size > most), length)
    if not allowed:
        with pytest.raises(StateTooLarge):
            await store.create(new_run(), versions[:1])
        return
    lease, done = await store.create(new_run(), versions[:1]), 1
    assert lease is not None
    while done < length:
        end = data.draw(st.integers(done + 1, min(length, done + 4)))
        if data.draw(st.integers(0, 4)) == 0:
            await store.release(lease, "waiting")
            lease = await store.claim(await store.read("run"))
        if end > allowed:
            with pytest.raises(StateTooLarge) as caught:
                await store.append(lease, versions[done:end])
            assert (caught.value.run_id, caught.value.size, caught.value.limit) == (
                "run",
                sizes(versions)[allowed],
                most,
            )
            assert list(await inner.versions("run")) == versions[:done]
            return
        await store.append(lease, versions[done:end])
        done = end
    assert allowed == length


def put(state: State) -> None:
    state["text"] = "x" * 1000


def after(state: State) -> None:
    state["after"] = True


FLOW = FlowBuilder[State]("flow").start_with(after, name="first").then(put).then(after)


async def test_a_run_goes_on_once_more_is_allowed() -> None:
    """What was stored before is kept, and nothing of what was refused; the same id ends the run elsewhere."""
    inner = MemoryStore()
    with pytest.raises(StateTooLarge, match=r"'run' would have 1,\d\d\d bytes, and may have 1,000"):
        await FLOW.with_versioned_checkpoint(LimitedStore(inner, most=1000)).run({}, run_id="run")
    read = await inner.read("run")
    assert (read.head, read.owner) == (1, None)
    result = await FLOW.with_versioned_checkpoint(LimitedStore(inner, most=2000)).run(run_id="run")
    assert (result.status, result.version) == ("completed", "run@3")


async def test_a_run_has_no_more_versions_than_allowed() -> None:
    """Those that were dropped count too, for they were made; the run goes on once more are allowed."""
    inner = MemoryStore()
    with pytest.raises(TooManyVersions) as caught:
        await FLOW.with_versioned_checkpoint(LimitedStore(inner, versions=3)).run({}, run_id="run")
    assert (caught.value.run_id, caught.value.limit) == ("run", 3)
    assert len(await inner.versions("run")) == 3
    await inner.drop("run", 1)
    with pytest.raises(TooManyVersions):
        await FLOW.with_versioned_checkpoint(LimitedStore(inner, versions=3)).run(run_id="run")
    result = await FLOW.with_versioned_checkpoint(LimitedStore(inner, versions=4)).run(run_id="run")
    assert result.version == "run@3"


async def test_what_the_engine_remembers_counts() -> None:
    """The items of a batch are kept beside the state, and are as long as they are."""
    flow = FlowBuilder[State]("flow").batch(
        lambda state: ["x" * 1000] * 3, FlowBuilder[State]("each").then(after), name="all"
    )
    with pytest.raises(StateTooLarge):
        await flow.with_versioned_checkpoint(LimitedStore(MemoryStore(), most=2000)).run({}, run_id="run")


async def test_a_large_state_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning for each run, with its id and sizes, and no more of it."""
    store = LimitedStore(MemoryStore(), warn=1000)
    flow = FLOW.then(put, name="again").then(after, name="last").with_versioned_checkpoint(store)
    with caplog.at_level(logging.WARNING, "flowneer_stores"):
        await flow.run({"secret": "s" * 50}, run_id="one")
        await flow.run({"secret": "s" * 5000}, run_id="two")
    assert [record.getMessage() for record in caplog.records] == [
        "the state of run 'one' has 1058 bytes, more than 1000",
        "the state of run 'two' has 5002 bytes, more than 1000",
    ]
    assert {record.name for record in caplog.records} == {"flowneer_stores"}


class FailsOnce(MemoryStore):
    """Fails in its second append."""

    appends = 0

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        self.appends += 1
        if self.appends == 2:
            raise StoreFailed("here", "writing", "of a test")
        await super().append(lease, versions)


async def test_what_was_not_stored_does_not_count() -> None:
    """After an append that failed, the size is that of what is stored."""
    bodies = [body_of(a="x" * 10), body_of(b="x" * 10)]
    refused, stored = (chain_of("run", [*bodies, body_of(**{key: "x" * 10})]) for key in ("c", "d"))
    store = LimitedStore(FailsOnce(), most=40)
    lease = await store.create(new_run(), refused[:1])
    assert lease is not None
    await store.append(lease, refused[1:2])
    with pytest.raises(StoreFailed):
        await store.append(lease, refused[2:])
    await store.append(lease, stored[2:])
    assert list(await store.versions("run")) == stored


async def test_what_others_have_stored_counts() -> None:
    """Of a run that is taken, what is there is read, also where another one of its id was there before."""
    inner = MemoryStore()
    store = LimitedStore(inner, most=40)
    assert await store.create(new_run(), chain_of("run", [body_of(a="x")])) is not None
    await inner.release(Lease("run", (await inner.read("run")).epoch), "failed")
    await inner.purge("run")
    versions = chain_of("run", [body_of(a="x" * 30), body_of(b="x" * 10)])
    await keep(inner, versions[:1])
    lease = await store.claim(await store.read("run"))
    with pytest.raises(StateTooLarge):
        await store.append(lease, versions[1:])


@pytest.mark.parametrize("name", ["warn", "most", "versions"])
def test_a_limit_is_above_nothing(name: str) -> None:
    """None is no limit; 0 would allow nothing."""
    with pytest.raises(BadOption, match=name):
        LimitedStore(MemoryStore(), **{name: 0})
    LimitedStore(MemoryStore(), **{name: None})


async def test_no_limit_allows_all() -> None:
    """Without limits it is the store that it is made of."""
    store = LimitedStore(MemoryStore(), warn=None, most=None)
    versions = chain_of("run", [body_of(text="x" * 100_000)])
    await keep(store, versions)
    assert list(await store.versions("run")) == versions
