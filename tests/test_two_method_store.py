"""Stores of two methods, the seed's kind: any object with `save` and `resolve`."""

import asyncio
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from flowneer_async import (
    BadOption,
    Context,
    FlowBuilder,
    FlowChanged,
    FlowError,
    Snapshot,
    StoreFailed,
    StoreFull,
    VersionedCheckpointEntry,
    VersionedCheckpointStore,
)
from tests.support.entries import DictStore

State = dict[str, Any]


class AsyncDictStore:
    """The same store with both methods async."""

    def __init__(self) -> None:
        self._kept = DictStore()
        self.versions, self.snapshots = self._kept.versions, self._kept.snapshots

    async def save(self, entry: VersionedCheckpointEntry) -> None:
        await anyio.lowlevel.checkpoint()
        self._kept.save(entry)

    async def resolve(self, version: str) -> Snapshot[State]:
        await anyio.lowlevel.checkpoint()
        return self._kept.resolve(version)


Store = DictStore | AsyncDictStore
both = pytest.mark.parametrize("new_store", [DictStore, AsyncDictStore])


async def fetch(state: State, ctx: Context) -> None:
    called(ctx)
    state["pages"] = ["one", "two"]
    state["draft"] = True


async def mail(state: State, ctx: Context) -> None:
    called(ctx)


def summarise(state: State, ctx: Context) -> None:
    called(ctx)
    state["summary"] = " ".join(state["pages"])
    del state["draft"]


def called(ctx: Context) -> None:
    if isinstance(ctx.deps, list):
        ctx.deps.append(ctx.step)


REPORT: FlowBuilder[State] = FlowBuilder("report")
REPORT = REPORT.then(fetch).then(mail).then(summarise)
START: State = {"url": "https://example.org"}
FETCHED: State = {**START, "pages": ["one", "two"], "draft": True}
DONE: State = {**START, "pages": ["one", "two"], "summary": "one two"}


async def run_once(store: VersionedCheckpointStore) -> Any:
    return await REPORT.with_versioned_checkpoint(store).run(deepcopy(START), run_id="r")


@both
async def test_a_run_gives_an_entry_for_the_root_and_each_step_that_changed_something(
    new_store: Callable[[], Store],
) -> None:
    """The root entry has index -1, no parent and the whole state; the others are linked, and have what changed."""
    store = new_store()
    result = await run_once(store)
    entries = list(store.versions.values())
    assert [(e.version, e.parent_version, e.step_index, e.step) for e in entries] == [
        ("r@0", None, -1, ""),
        ("r@1", "r@0", 0, "fetch"),
        ("r@2", "r@1", 2, "summarise"),
    ]
    assert [e.diff.changed for e in entries] == [
        START,
        {"pages": ["one", "two"], "draft": True},
        {"summary": "one two"},
    ]
    assert [e.diff.removed for e in entries] == [(), (), ("draft",)]
    assert (result.state, result.version, result.status, result.run_id) == (DONE, "r@2", "completed", "r")


async def test_entries_are_frozen_and_have_the_time() -> None:
    """An entry cannot be changed, and tells the Unix time in ms at which it was made."""
    store = DictStore()
    await run_once(store)
    times = [entry.timestamp for entry in store.versions.values()]
    assert times == sorted(times)
    assert times[0] > 1_700_000_000_000
    with pytest.raises(AttributeError):
        store.versions["r@0"].version = "other"  # type: ignore[misc]


@both
@pytest.mark.parametrize(("version", "rest"), [("r@0", ["fetch", "mail", "summarise"]), ("r@1", ["mail", "summarise"])])
async def test_a_run_resumes_after_any_version(new_store: Callable[[], Store], version: str, rest: list[str]) -> None:
    """A resume restores the state by itself and does the steps after the version's own; its entries go on from it."""
    store, steps = new_store(), list[str]()
    await run_once(store)
    before = len(store.versions)
    result = await REPORT.resume_from(version, store).run(run_id="fork", deps=steps)
    assert (result.state, steps) == (DONE, rest)
    added = list(store.versions.values())[before:]
    assert [entry.parent_version for entry in added] == [version, *(entry.version for entry in added[:-1])]
    assert result.version == added[-1].version
    assert store.snapshots[added[-1].version].state == DONE


@both
async def test_a_resume_of_the_last_version_of_a_complete_run_does_nothing(new_store: Callable[[], Store]) -> None:
    """After the last step there is nothing to do: the state comes back, and no step runs."""
    store, steps = new_store(), list[str]()
    await run_once(store)
    result = await REPORT.resume_from("r@2", store).run(deps=steps)
    assert (result.state, result.version, steps) == (DONE, "r@2", [])


@both
async def test_deleted_keys_stay_deleted_after_a_resume(new_store: Callable[[], Store]) -> None:
    """A key that a step deleted is not there in any later version, nor in a run that resumes from one."""
    seen: list[State] = []
    store = new_store()
    await run_once(store)

    async def look(state: State) -> None:
        seen.append(dict(state))

    await REPORT.then(look).resume_from("r@2", store).run()
    assert seen == [DONE]


async def test_a_failed_run_resumes_at_the_failed_step() -> None:
    """What a store of two methods has at a failure is all that was done before it."""
    store = DictStore()

    async def fail(state: State) -> None:
        state["mess"] = True
        raise OSError

    with pytest.raises(FlowError):
        await REPORT.then(fail).with_versioned_checkpoint(store).run(deepcopy(START), run_id="r")
    assert list(store.versions) == ["r@0", "r@1", "r@2"]
    assert (await REPORT.then(mail, name="fail").resume_from("r@2", store).run()).state == DONE


@both
async def test_a_resumed_run_changes_nothing_that_the_store_holds(new_store: Callable[[], Store]) -> None:
    """The run works on a copy, so steps that change deep values in place do not reach into the store."""
    store = new_store()
    await run_once(store)
    before = deepcopy(store.snapshots)

    async def spoil(state: State) -> None:
        state["pages"].append("spoilt")
        state["pages"][0] = "spoilt"

    await FlowBuilder("report").then(mail).then(spoil).resume_from("r@1", store).run(run_id="fork")
    assert {version: store.snapshots[version] for version in before} == before


async def test_an_entry_does_not_change_with_the_run() -> None:
    """What was handed to `save` stays as it was, whatever steps and store do to the values later."""
    entries: list[VersionedCheckpointEntry] = []

    class Careless(DictStore):
        def save(self, entry: VersionedCheckpointEntry) -> None:
            entries.append(entry)
            super().save(entry)
            entry.diff.changed.clear()

    async def grow(state: State) -> None:
        state.setdefault("rows", []).append(len(state.get("rows", ())))

    flow = FlowBuilder("grow").then(grow, name="a").then(grow, name="b")
    result = await flow.with_versioned_checkpoint(Careless()).run({})
    assert [entry.diff.changed for entry in entries] == [{}, {"rows": [0]}, {"rows": [0, 1]}]
    assert result.state == {"rows": [0, 1]}


async def test_a_filter_and_the_final_state() -> None:
    """With a filter only the steps it names give entries, and a complete run ends with one of its final state."""
    store = DictStore()
    await REPORT.with_versioned_checkpoint(store, ["fetch"]).run(deepcopy(START), run_id="r")
    assert [entry.step_index for entry in store.versions.values()] == [-1, 0, 2]
    store = DictStore()
    await REPORT.with_versioned_checkpoint(store, ["mail"]).run(deepcopy(START), run_id="r")
    assert [entry.step_index for entry in store.versions.values()] == [-1, 1, 2]
    assert [snapshot.state for snapshot in store.snapshots.values()] == [START, FETCHED, DONE]


async def test_an_empty_state_has_a_root_too() -> None:
    """A run that begins with an empty state gives a root entry that changes nothing."""
    store = DictStore()
    await FlowBuilder("empty").with_versioned_checkpoint(store).run({}, run_id="r")
    assert [(e.version, e.parent_version, e.diff.changed) for e in store.versions.values()] == [("r@0", None, {})]


# Stores that fail -----------------------------------------------------------------------------------------------------


def failing(at: int, error: Exception, *, awaited: bool) -> VersionedCheckpointStore:
    class Failing(DictStore):
        def save(self, entry: VersionedCheckpointEntry) -> Awaitable[None] | None:  # type: ignore[override]
            if len(self.versions) == at and not awaited:
                raise error
            return self._later(entry) if awaited else super().save(entry)

        async def _later(self, entry: VersionedCheckpointEntry) -> None:
            if len(self.versions) == at:
                raise error
            super().save(entry)

    return Failing()


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_save_that_fails_is_no_failed_step(at: int, awaited: bool) -> None:
    """What `save` raises comes out as StoreFailed with its cause, naming store and version: never as a FlowError."""
    error = OSError("disk on fire")
    with pytest.raises(StoreFailed, match=f"save of r@{at}") as caught:
        await run_once(failing(at, error, awaited=awaited))
    assert caught.value.__cause__ is error
    assert "Failing" in str(caught.value)


async def test_a_save_that_raises_one_of_our_errors_raises_just_that() -> None:
    """A store that speaks of itself in the words of this package is not put into others."""
    error = StoreFull("/disk")
    with pytest.raises(StoreFull) as caught:
        await run_once(failing(1, error, awaited=False))
    assert caught.value is error


@both
async def test_a_version_that_the_store_does_not_know_is_a_failed_resolve(new_store: Callable[[], Store]) -> None:
    """What `resolve` raises comes out as StoreFailed with its cause; nothing runs."""
    steps: list[str] = []
    with pytest.raises(StoreFailed, match="resolve of 'nope'") as caught:
        await REPORT.resume_from("nope", new_store()).run(deps=steps)
    assert isinstance(caught.value.__cause__, KeyError)
    assert steps == []


BAD_ANSWERS: list[Any] = [
    None,
    {"url": 1},
    (0, {}),
    Snapshot(0, ["no dict"]),
    Snapshot(0, None),
    Snapshot(cast(Any, "0"), {}),
    Snapshot(-2, {}),
]


@pytest.mark.parametrize("answer", BAD_ANSWERS, ids=repr)
async def test_a_resolve_that_gives_something_else_is_told(answer: Any) -> None:
    """An answer that is no Snapshot of a dict after one of the flow's steps is StoreFailed, and no step runs."""

    class Wrong(DictStore):
        def resolve(self, version: str) -> Snapshot[State]:
            return answer

    steps: list[str] = []
    with pytest.raises(StoreFailed, match="resolve of 'r@1'"):
        await REPORT.resume_from("r@1", Wrong()).run(deps=steps)
    assert steps == []


async def test_an_index_beyond_the_flow_is_told() -> None:
    """A version made after a step that the flow does not have is an error: the run would end with a wrong state."""
    store, steps = DictStore(), list[str]()
    await run_once(store)
    shorter = FlowBuilder("report").then(fetch).then(mail)
    with pytest.raises((StoreFailed, FlowChanged)):
        await shorter.resume_from("r@2", store).run(deps=steps)
    assert steps == []


@pytest.mark.parametrize("store", [object(), {}, None, "runs.db"], ids=repr)
def test_what_has_not_the_two_methods_is_no_store(store: Any) -> None:
    """An object without `save` and `resolve` is refused while building."""
    with pytest.raises(BadOption, match="save and resolve"):
        REPORT.with_versioned_checkpoint(store)
    with pytest.raises(BadOption, match="save and resolve"):
        REPORT.resume_from("r@1", store)


@pytest.mark.parametrize("durability", ["async", "exit"])
def test_a_store_of_two_methods_saves_each_version_as_it_is_made(durability: Any) -> None:
    """Durability other than sync is refused for it, as it has no way to say how far it is."""
    with pytest.raises(BadOption, match="durability"):
        REPORT.with_versioned_checkpoint(DictStore(), durability=durability)


# Concurrency and trio -------------------------------------------------------------------------------------------------


@both
async def test_concurrent_runs_share_a_store_and_no_chain(new_store: Callable[[], Store]) -> None:
    """The chains of runs at the same time on one flow and one store do not mix."""
    store = new_store()
    flow = REPORT.with_versioned_checkpoint(store)
    await asyncio.gather(*(flow.run(deepcopy(START), run_id=f"r{number}") for number in range(20)))
    for number in range(20):
        chain = [entry for version, entry in store.versions.items() if version.startswith(f"r{number}@")]
        assert [entry.parent_version for entry in chain] == [None, f"r{number}@0", f"r{number}@1"]


@both
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_run_resume_and_fork_work_in_every_event_loop(new_store: Callable[[], Store], backend: str) -> None:
    """A user's store works under asyncio and under trio."""

    async def main() -> None:
        store = new_store()
        assert (await run_once(store)).state == DONE
        assert (await REPORT.resume_from("r@1", store).run()).state == DONE
        assert (await REPORT.resume_from("r@0", store).run(run_id="fork")).version == "fork@1"

    anyio.run(main, backend=backend)
