"""Runs that go on: the same id again, the last version, an older one as a fork."""

from pathlib import Path
from typing import Any

import pytest

from flowneer_async import (
    BadName,
    BadState,
    Context,
    FlowBuilder,
    FlowChanged,
    FlowError,
    ForeignRun,
    RunBusy,
    UnknownRun,
    UnknownVersion,
    VersionStore,
)
from flowneer_stores import MemoryStore
from tests.support.chains import stored_snapshots, stored_states, stored_versions
from tests.support.stores import KINDS, opened

State = dict[str, Any]


class Trap:
    """Deps that note the steps done, and let one of them fail once."""

    def __init__(self, at: str = "") -> None:
        self.at, self.done = at, list[str]()


async def step(state: State, ctx: Context[Trap]) -> None:
    ctx.deps.done.append(ctx.step)
    state["path"] = [*state.get("path", []), ctx.step]
    if ctx.deps.at == ctx.step:
        ctx.deps.at = ""
        raise OSError


def flow_on(store: VersionStore, *names: str) -> FlowBuilder[State]:
    flow: FlowBuilder[State] = FlowBuilder("flow")
    for name in names or ("a", "b", "c"):
        flow = flow.then(step, name=name)
    return flow.with_versioned_checkpoint(store)


async def half_done(store: VersionStore, run_id: str = "r") -> FlowBuilder[State]:
    """A run of a, b, c that failed in b."""
    flow = flow_on(store)
    with pytest.raises(FlowError):
        await flow.run({}, run_id=run_id, deps=Trap(at="b"))
    return flow


# The same id again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", [None, {}, {"path": ["other"], "more": 1}])
async def test_an_unfinished_run_goes_on_from_its_own_state(kind: str, state: State | None, tmp_path: Path) -> None:
    """An id that was begun goes on after its last version, whatever state is passed with it, in a new object."""
    async with opened(kind, tmp_path) as store:
        flow, trap = await half_done(store), Trap()
        result = await flow.run(state, run_id="r", deps=trap)
        assert trap.done == ["b", "c"]
        assert result.state == {"path": ["a", "b", "c"]}
        assert result.state is not state
        assert (result.version, result.status) == ("r@3", "completed")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_finished_run_gives_its_result_and_does_nothing(kind: str, tmp_path: Path) -> None:
    """An id that is finished returns the stored result; no step runs, nothing is stored."""
    async with opened(kind, tmp_path) as store:
        flow = flow_on(store)
        first = await flow.run({}, run_id="r", deps=Trap())
        before, trap = await store.read("r"), Trap()
        again = await flow.run({"path": ["other"]}, run_id="r", deps=trap)
        assert (again.state, again.version, again.status) == (first.state, "r@3", "completed")
        assert again.state is not first.state
        assert trap.done == []
        assert await store.read("r") == before


async def test_a_finished_run_survives_what_is_done_to_its_result() -> None:
    """Changing the state of a result changes nothing stored."""
    flow = flow_on(MemoryStore())
    result = await flow.run({}, run_id="r", deps=Trap())
    result.state["path"].append("mine")
    assert (await flow.run(run_id="r")).state == {"path": ["a", "b", "c"]}


async def test_an_unknown_id_without_a_state_is_told() -> None:
    """Going on with a run that does not exist is an error that names it."""
    with pytest.raises(UnknownRun, match="'r'"):
        await flow_on(MemoryStore()).run(run_id="r")


async def test_the_id_of_another_flow_is_refused() -> None:
    """A run never goes on in a flow of another name."""
    store = MemoryStore()
    await half_done(store)
    with pytest.raises(ForeignRun):
        await FlowBuilder("other").then(step).with_versioned_checkpoint(store).run({}, run_id="r", deps=Trap())
    with pytest.raises(ForeignRun):
        await FlowBuilder("other").then(step).resume_from("r@0", store).run(deps=Trap())


async def test_a_run_that_is_under_way_is_busy_before_any_step() -> None:
    """The second of two callers with one id is told that the run is busy, and none of its steps is called."""
    store, outer, inner = MemoryStore(), Trap(), Trap()
    busy: list[str] = []

    async def meet(state: State, ctx: Context[Trap]) -> None:
        with pytest.raises(RunBusy):
            await flow.run({}, run_id="r", deps=inner)
        busy.append("told")

    flow = flow_on(store, "a").then(meet, name="meet")
    await flow.run({}, run_id="r", deps=outer)
    assert (outer.done, inner.done, busy) == (["a"], [], ["told"])


# A flow that has changed ----------------------------------------------------------------------------------------------


async def test_steps_after_the_passed_ones_may_change() -> None:
    """A run goes on in a flow that has its passed steps in their order, with whatever comes after."""
    store, trap = MemoryStore(), Trap()
    await half_done(store)
    result = await flow_on(store, "a", "x", "b", "y").run(run_id="r", deps=trap)
    assert result.state == {"path": ["a", "x", "b", "y"]}


@pytest.mark.parametrize("names", [("b", "c"), ("x",), ("c", "b", "a")])
async def test_a_passed_step_that_is_gone_or_moved_is_an_error(names: tuple[str, ...]) -> None:
    """Where the steps passed are not in the flow in their order, both lists are shown and nothing runs."""
    store, trap = MemoryStore(), Trap()
    with pytest.raises(FlowError):
        await flow_on(store).run({}, run_id="r", deps=Trap(at="c"))
    with pytest.raises(FlowChanged) as caught:
        await flow_on(store, *names).run(run_id="r", deps=trap)
    assert (caught.value.passed, caught.value.steps, trap.done) == (("a", "b"), names, [])
    assert (await flow_on(store).run(run_id="r", deps=trap)).status == "completed"


# A version ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_the_head_of_a_run_goes_on_as_that_run(kind: str, tmp_path: Path) -> None:
    """Resuming from the last version of an unfinished run continues this run."""
    async with opened(kind, tmp_path) as store:
        flow, trap = await half_done(store), Trap()
        for_head = flow.resume_from("r@1", store)
        result = await for_head.run(deps=trap)
        assert (result.run_id, result.version, trap.done) == ("r", "r@3", ["b", "c"])
        assert await stored_states(store, "r") == [{}] + [{"path": list("abc")[:n]} for n in (1, 2, 3)]


async def test_the_head_of_a_finished_run_gives_its_result() -> None:
    """Resuming from the last version of a complete run returns its result; nothing runs."""
    store, trap = MemoryStore(), Trap()
    flow = flow_on(store)
    await flow.run({}, run_id="r", deps=Trap())
    result = await flow.resume_from("r@3", store).run(deps=trap)
    assert (result.run_id, result.version, result.state, trap.done) == ("r", "r@3", {"path": ["a", "b", "c"]}, [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seq", [0, 1, 2])
async def test_an_older_version_is_a_fork(kind: str, seq: int, tmp_path: Path) -> None:
    """Resuming from an older version makes a new run, whose root has that version as parent, its state and its step."""
    async with opened(kind, tmp_path) as store:
        flow, trap = flow_on(store), Trap()
        await flow.run({}, run_id="r", deps=Trap())
        origin = await stored_versions(store, "r")
        result = await flow.resume_from(f"r@{seq}", store).run(deps=trap)
        assert result.run_id != "r"
        assert result.state == {"path": ["a", "b", "c"]}
        assert trap.done == ["a", "b", "c"][seq:]
        fork, snapshots = await stored_versions(store, result.run_id), await stored_snapshots(store, result.run_id)
        assert [v.parent for v in fork] == [f"r@{seq}", *(v.id for v in fork[:-1])]
        assert [s.step_index for s in snapshots] == list(range(seq - 1, 3))
        assert snapshots == (await stored_snapshots(store, "r"))[seq:]
        assert await stored_versions(store, "r") == origin


async def test_a_fork_may_choose_its_id_and_go_on_under_it() -> None:
    """A fork with an id of its own is idempotent: failed, it goes on; finished, it returns its result."""
    store, trap = MemoryStore(), Trap(at="c")
    flow = flow_on(store)
    await flow.run({}, run_id="r", deps=Trap())
    fork = flow.resume_from("r@1", store)
    with pytest.raises(FlowError):
        await fork.run(run_id="fork", deps=trap)
    for _ in range(2):
        result = await fork.run(run_id="fork", deps=trap)
        assert (result.run_id, result.version, trap.done) == ("fork", "fork@2", ["b", "c", "c"])
    assert len(await stored_versions(store, "fork")) == 3


async def test_a_fork_never_takes_the_id_of_another_run() -> None:
    """A fork under the id of a run that did not begin at this version is refused: it would give that run's result."""
    store = MemoryStore()
    flow = flow_on(store)
    await flow.run({}, run_id="r", deps=Trap())
    await flow.run({"path": ["other"]}, run_id="other", deps=Trap())
    await flow.resume_from("r@1", store).run(run_id="fork", deps=Trap())
    for version, taken in (("r@1", "other"), ("r@2", "fork"), ("other@0", "fork")):
        with pytest.raises(BadName, match=taken):
            await flow.resume_from(version, store).run(run_id=taken, deps=Trap())


async def test_the_head_under_another_id_is_a_fork() -> None:
    """The last version, run under a new id, makes a fork: also of a run that failed, or is complete."""
    store = MemoryStore()
    flow = await half_done(store)
    result = await flow.resume_from("r@1", store).run(run_id="second", deps=Trap())
    assert (result.version, result.state) == ("second@2", {"path": ["a", "b", "c"]})
    assert (await store.read("r")).status == "failed"
    done = await flow.resume_from("second@2", store).run(run_id="third", deps=Trap())
    assert (done.version, done.state) == ("third@0", {"path": ["a", "b", "c"]})


async def test_a_fork_of_a_fork_is_linked_to_it() -> None:
    """The parent of a fork's root is the version it was forked from, of whichever run."""
    store = MemoryStore()
    flow = flow_on(store)
    await flow.run({}, run_id="r", deps=Trap())
    await flow.resume_from("r@1", store).run(run_id="f1", deps=Trap())
    await flow.resume_from("f1@1", store).run(run_id="f2", deps=Trap())
    assert (await store.versions("f2"))[0].parent == "f1@1"
    assert await stored_states(store, "f2") == [{"path": ["a", "b"]}, {"path": ["a", "b", "c"]}]


async def test_a_fork_of_a_run_that_is_under_way_is_free() -> None:
    """Forking needs no right to write to the run: it may be in work."""
    store = MemoryStore()

    async def fork(state: State, ctx: Context[Trap]) -> None:
        if ctx.run_id == "r":
            state["forked"] = (await flow.resume_from("r@0", store).run(run_id="f", deps=Trap())).version

    flow = flow_on(store, "a").then(fork, name="fork")
    result = await flow.run({}, run_id="r", deps=Trap())
    assert result.state["forked"] == "f@2"


async def test_an_older_version_cannot_go_on_under_the_id_of_its_run() -> None:
    """A run has one future: its own older version under its own id is refused."""
    store = MemoryStore()
    flow = flow_on(store)
    await flow.run({}, run_id="r", deps=Trap())
    with pytest.raises(BadName, match="r@1"):
        await flow.resume_from("r@1", store).run(run_id="r", deps=Trap())


async def test_a_resumed_flow_takes_no_state() -> None:
    """The state comes from the version: one passed beside it is refused, for one of the two would be lost."""
    store = MemoryStore()
    flow = await half_done(store)
    with pytest.raises(BadState, match="without one"):
        await flow.resume_from("r@1", store).run({"path": []}, deps=Trap())


@pytest.mark.parametrize("version", ["r@9", "x@0", "r", "", "v1", "r@-1", "r@01x", "@1"])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_version_is_told(kind: str, version: str, tmp_path: Path) -> None:
    """Resuming from what is not in the store is an error that names it, and begins nothing."""
    async with opened(kind, tmp_path) as store:
        flow, trap = await half_done(store), Trap()
        with pytest.raises((UnknownVersion, UnknownRun), match=f"'{version.partition('@')[0]}"):
            await flow.resume_from(version, store).run(deps=trap)
        assert trap.done == []


async def test_binding_to_a_version_leaves_the_flow_as_it_was() -> None:
    """`resume_from` gives another flow; the one it was called on starts new runs as before."""
    store, trap = MemoryStore(), Trap()
    flow = await half_done(store)
    flow.resume_from("r@1", store)
    assert (await flow.run({}, run_id="new", deps=trap)).state == {"path": ["a", "b", "c"]}
    assert trap.done == ["a", "b", "c"]


async def test_two_forks_of_one_flow_object_are_two_runs() -> None:
    """A bound flow may run any number of times, each a fork of its own."""
    store = MemoryStore()
    flow = flow_on(store)
    await flow.run({}, run_id="r", deps=Trap())
    bound = flow.resume_from("r@1", store)
    results = [await bound.run(deps=Trap()) for _ in range(2)]
    assert results[0].run_id != results[1].run_id
    assert results[0].state == results[1].state
    assert results[0].state is not results[1].state
