"""The contract of a store under real flows."""

import asyncio
from typing import Any

import pytest

from flowneer_async.context import Context
from flowneer_async.errors import FlowError, RunBusy, UnknownRun, UnknownVersion
from flowneer_async.flow import FlowBuilder
from flowneer_async.store import VersionStore, resolve
from flowneer_async.testing.points import crash_points

_State = dict[str, Any]


async def _one(state: _State) -> None:
    state["done"] = [*state["done"], "one"]


async def _two(state: _State, ctx: Context[Any]) -> None:
    await asyncio.sleep(0)
    if ctx.deps == "fail":
        raise ValueError("no")
    state["done"].append("two")


async def _three(state: _State) -> None:
    state.pop("extra", None)
    state["done"].append(state["seed"])


_FLOW = FlowBuilder[_State]("contract").start_with(_one).then(_two).then(_three)


def _start(seed: object = 0) -> _State:
    return {"seed": seed, "done": [], "extra": "ü" * 10}


class FlowsContract:
    """Runs, resumes and forks, each on its own chain."""

    async def test_a_run_makes_a_version_for_each_step(self, store: VersionStore) -> None:
        """The root holds the initial state, and each version the state after its step."""
        result = await _FLOW.with_versioned_checkpoint(store).run(_start(), run_id="run")
        assert (result.version, result.status) == ("run@3", "completed")
        states = [(await resolve(store, f"run@{seq}")).state for seq in range(4)]
        assert states[0] == _start()
        assert [state["done"] for state in states] == [[], ["one"], ["one", "two"], ["one", "two", 0]]
        assert states[-1] == result.state
        read = await store.read("run")
        assert (read.status, read.head, read.owner) == ("completed", 3, None)

    async def test_a_failed_run_goes_on_where_it_failed(self, store: VersionStore) -> None:
        """Run again, it takes up the stored state, does the failed step again and none of those before."""
        flow = _FLOW.with_versioned_checkpoint(store)
        with pytest.raises(FlowError):
            await flow.run(_start(), run_id="run", deps="fail")
        read = await store.read("run")
        assert (read.status, read.head, read.owner) == ("failed", 1, None)
        assert "two" in str(read.error)
        result = await flow.run(run_id="run")
        assert (result.state["done"], result.version) == (["one", "two", 0], "run@3")
        read = await store.read("run")
        assert (read.status, read.error) == ("completed", None)

    async def test_a_finished_run_gives_its_result_again(self, store: VersionStore) -> None:
        """To run a finished id does nothing, whatever state is passed."""
        flow = _FLOW.with_versioned_checkpoint(store)
        first = await flow.run(_start(), run_id="run")
        before = await store.read("run")
        again = await flow.run(_start("other"), run_id="run", deps="fail")
        assert (again.state, again.version, again.status) == (first.state, first.version, "completed")
        assert await store.read("run") == before

    async def test_a_fork_leaves_its_origin_alone(self, store: VersionStore) -> None:
        """A run from an older version is a new run, whose root has that version for a parent."""
        await _FLOW.with_versioned_checkpoint(store).run(_start(), run_id="run")
        before = await store.versions("run")
        result = await _FLOW.resume_from("run@1", store).run(run_id="fork")
        assert (result.version, result.state["done"]) == ("fork@2", ["one", "two", 0])
        root, *_ = await store.versions("fork")
        assert (root.parent, root.step_index, root.is_keyframe) == ("run@1", 0, True)
        assert list(await store.versions("run")) == list(before)

    async def test_a_hundred_runs_of_one_flow_do_not_touch_each_other(self, store: VersionStore) -> None:
        """Runs at the same time, of one flow and in one store, each end with their own state and chain."""
        flow = _FLOW.with_versioned_checkpoint(store)
        results = await asyncio.gather(*(flow.run(_start(seed), run_id=f"run-{seed}") for seed in range(100)))
        for seed, result in enumerate(results):
            assert result.state == {"seed": seed, "done": ["one", "two", seed]}
            assert (await resolve(store, f"run-{seed}@3")).state == result.state
            assert [version.seq for version in await store.versions(f"run-{seed}")] == [0, 1, 2, 3]

    @pytest.mark.parametrize("already", [False, True], ids=["new", "failed before"])
    async def test_of_runs_with_one_id_at_once_one_works(self, store: VersionStore, already: bool) -> None:
        """One owner works on a run; the others get RunBusy before any step of theirs, and then its result."""
        steps: list[str] = []
        entered, leave = asyncio.Event(), asyncio.Event()

        async def wait(state: _State) -> None:
            steps.append("wait")
            entered.set()
            await leave.wait()

        if already:
            failing = FlowBuilder[_State]("contract").start_with(_one).then(_two, name="wait")
            with pytest.raises(FlowError):
                await failing.with_versioned_checkpoint(store).run(_start(), run_id="run", deps="fail")
        flow = FlowBuilder[_State]("contract").start_with(_one).then(wait).with_versioned_checkpoint(store)
        tasks = [asyncio.create_task(flow.run(_start(), run_id="run")) for _ in range(5)]
        await entered.wait()
        losers = [task for task in tasks if (await asyncio.wait({task}, timeout=0))[0]]
        while len(losers) < 4:
            await asyncio.wait([task for task in tasks if task not in losers], return_when=asyncio.FIRST_COMPLETED)
            losers = [task for task in tasks if task.done()]
        assert [type(task.exception()) for task in losers] == [RunBusy] * 4
        leave.set()
        (winner,) = [task for task in tasks if task not in losers]
        assert (await winner).state["done"] == ["one"]
        assert steps == ["wait"]
        assert (await flow.run(run_id="run")).state["done"] == ["one"]

    async def test_a_run_ends_the_same_wherever_it_crashed(self, store: VersionStore) -> None:
        """Before and after each version, a crash costs at most one step done again."""
        assert await crash_points(_FLOW.with_versioned_checkpoint(store), _start(), again=3) == 3 * 5 + 3

    async def test_what_is_not_there_cannot_be_resumed(self, store: VersionStore) -> None:
        """An unknown version or run is named, and nothing is begun for it."""
        await _FLOW.with_versioned_checkpoint(store).run(_start(), run_id="run")
        with pytest.raises(UnknownVersion):
            await _FLOW.resume_from("run@9", store).run(run_id="fork")
        with pytest.raises(UnknownRun):
            await store.read("fork")
        assert (await _FLOW.with_versioned_checkpoint(store).run(_start(), run_id="other")).version == "other@3"
