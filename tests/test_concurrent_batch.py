"""`batch` with its items side by side: what fails, what is given up, and many of them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import Context, Failure, FlowError, MergeConflict, reducers
from flowneer_stores import MemoryStore, SqliteStore
from tests.support.chains import stored_states, stored_versions
from tests.support.lanes import crash_everywhere, key_of, remembered, turns, work, works
from tests.support.stage import Stage
from tests.support.stores import KINDS
from tests.support.traced import Flow, State, every_keeping, new, paths_of, piece, same_from_everywhere

every_how = pytest.mark.parametrize("how", ["before", "after"])
every_concurrency = pytest.mark.parametrize("concurrency", [1, 2, 5, 100])


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(request.param, tmp_path)


def each(number: int, body: Any = work, **options: Any) -> Flow:
    """A batch of so many items."""
    return new().batch(lambda state: range(number), body, name="each", **{"concurrency": 3, **options})


def failing(*bad: int) -> Any:
    """A step that half changes the state and fails, for some items."""

    async def fail(state: State, ctx: Context[list[str]]) -> None:
        ctx.deps.append(ctx.step)
        state[f"half {ctx.item}"] = True
        await asyncio.sleep(0)
        if ctx.item in bad:
            raise LookupError
        state[f"half {ctx.item}"] = False

    return fail


# Items that fail ------------------------------------------------------------------------------------------------------


async def test_when_an_item_fails_no_other_is_begun(stage: Stage) -> None:
    """Those under way are cut off; run again, the run goes on with all that are not done."""
    begun: list[object] = []
    is_mended = False

    async def step(state: State, ctx: Context) -> None:
        begun.append(ctx.item)
        if ctx.item == 3 and not is_mended:
            raise LookupError
        state[f"{ctx.item}"] = True

    with pytest.raises(FlowError) as caught:
        await stage.run(each(10, step, concurrency=2))
    assert caught.value.step == "each[3]/step"
    assert begun in ([0, 1, 2, 3], [0, 1, 2, 3, 4])
    is_mended, done = True, {path for path in await stage.paths() if "@" not in path}
    begun.clear()
    assert set((await stage.run(each(10, step, concurrency=2))).state) == {str(number) for number in range(10)}
    assert {f"each[{item}]/step" for item in begun} == {f"each[{n}]/step" for n in range(10)} - done


async def test_or_all_others_are_done(stage: Stage) -> None:
    """With on_error="wait", also those that were not begun; then the run fails with what failed first."""
    deps: list[str] = []
    flow = each(8, failing(2, 5), on_error="wait", concurrency=2)
    with pytest.raises(FlowError) as caught:
        await stage.run(flow, deps=deps)
    assert caught.value.step == "each[2]/fail"
    assert sorted(deps) == [f"each[{number}]/fail" for number in range(8)]
    deps.clear()
    with pytest.raises(FlowError):
        await stage.run(flow, deps=deps)
    assert sorted(deps) == ["each[2]/fail", "each[5]/fail"]


@every_keeping
@every_concurrency
async def test_the_failures_are_listed_in_the_order_of_items(kept: Any, concurrency: int) -> None:
    """However many there are, and whichever came first."""
    flow = each(12, failing(*range(12)), max_failures=12, concurrency=concurrency)
    result = await kept(flow).run({}, deps=[])
    assert result.failures == tuple(Failure(f"each[{number}]/fail", "LookupError") for number in range(12))
    assert (result.state, result.status) == ({}, "completed")


@every_keeping
@every_concurrency
async def test_no_more_items_fail_than_may_even_where_they_are_undone(kept: Any, concurrency: int) -> None:
    """Undoing takes its time, in which others fail, too."""
    undone: list[object] = []

    async def undo(state: State, ctx: Context) -> None:
        await turns(10)
        undone.append(ctx.item)

    body = piece().then(work, compensate=undo).then(failing(0, 1, 2))
    assert len((await kept(each(3, body, max_failures=3, concurrency=concurrency)).run({}, deps=[])).failures) == 3
    assert sorted(map(str, undone)) == ["0", "1", "2"]
    for allowed in (0, 1, 2):
        with pytest.raises(FlowError):
            await kept(each(3, body, max_failures=allowed, concurrency=concurrency)).run({}, deps=[])


async def test_failures_of_several_batches_are_listed_together(stage: Stage) -> None:
    """Each batch has as many as it allows, in each iteration of a loop anew."""
    body = each(2, failing(0), max_failures=1)
    flow = new().loop(lambda state, ctx: ctx.index < 2, body, name="loop").then(body, name="once")
    failures = (await stage.run(flow, deps=[])).failures
    assert {failure.step for failure in failures} == {
        "loop[0]/each[0]/fail",
        "loop[1]/each[0]/fail",
        "once/each[0]/fail",
    }
    assert (await stage.run(flow, deps=[])).failures == failures


async def test_an_item_that_was_given_up_leaves_nothing_but_its_failure() -> None:
    """In the state, and in what is stored."""
    store = MemoryStore()
    flow = each(3, works("a").then(failing(1)), max_failures=1).then(work, name="end").with_versioned_checkpoint(store)
    result = await flow.run({}, run_id="r", deps=[])
    assert result.state == {"each[0] a": True, "each[2] a": 2, "half 0": False, "half 2": False, "end": True}
    assert "each[1]/@given_up" in await paths_of(store)
    assert await remembered(store) == [" failure:each[1]"]
    assert (await stored_states(store, "r"))[-1] == result.state


@every_how
@pytest.mark.parametrize(
    "options",
    [{}, {"max_failures": 3}, {"concurrency": 1, "max_failures": 3}, {"timeout": 60.0}, {"on_error": "wait"}],
    ids=str,
)
async def test_items_go_on_where_they_were(how: Any, options: Any, tmp_path: Path) -> None:
    """Wherever the process dies: each stored step of an item is done once, and the same items have failed."""
    bad = (1, 3, 4) if "max_failures" in options else ()
    flow = each(5, works("a").then(failing(*bad)).then(work, name="b"), **options).then(work, name="end")
    await crash_everywhere("memory", tmp_path, how, flow)


@every_how
async def test_items_in_a_file_go_on_where_they_were(how: Any, tmp_path: Path) -> None:
    """The same where the process opens its store anew."""
    flow = each(4, works("a").then(failing(1, 2)), max_failures=2).then(work, name="end")
    await crash_everywhere("sqlite", tmp_path, how, flow)


async def test_items_that_run_out_of_time_are_given_up_with_all_inside() -> None:
    """Lanes inside of one too, wherever they are."""
    cut: list[str] = []

    async def hang(state: State, ctx: Context) -> None:
        state["hung"] = True
        if ctx.item == 1:
            try:
                await asyncio.Event().wait()
            finally:
                cut.append(ctx.step)
        del state["hung"]

    body = works("a").parallel([hang, piece().then(hang, name="too"), works("b")], name="in").then(work, name="c")
    flow = each(3, body, max_failures=1, timeout=0.2).with_versioned_checkpoint(MemoryStore())
    result = await flow.run({}, deps=[])
    assert result.failures == (Failure("each[1]", "TimeoutError"),)
    assert sorted(cut) == ["each[1]/in[0]/hang", "each[1]/in[1]/too"]
    assert set(result.state) == {f"each[{n}] {step}" for n in (0, 2) for step in ("a", "in[2] b", "c")}


async def test_a_conflict_of_items_is_told_when_all_are_done(stage: Stage) -> None:
    """It names the key and the items; with a reducer the run goes on, and no item is done again."""

    async def add(state: State, ctx: Context[list[str]]) -> None:
        ctx.deps.append(ctx.step)
        state["sum"] = state.get("sum", 0) + 1

    deps: list[str] = []
    with pytest.raises(MergeConflict) as caught:
        await stage.run(each(4, add), deps=deps)
    assert (caught.value.step, caught.value.key) == ("each", "sum")
    assert caught.value.lanes == ("each[0]", "each[1]", "each[2]", "each[3]")
    assert (await stage.run(each(4, add, reducer=reducers.sum), deps=deps)).state == {"sum": 4}
    assert len(deps) == 4


# One after the other, on drafts ---------------------------------------------------------------------------------------


@every_keeping
async def test_items_that_may_fail_one_by_one_see_what_those_before_have_done(kept: Any) -> None:
    """Each is merged before the next one begins: no reducer is needed."""

    async def count(state: State, ctx: Context) -> None:
        state["seen"] = [*state.get("seen", []), ctx.item]
        if ctx.item == 1:
            raise LookupError

    result = await kept(each(4, count, concurrency=1, max_failures=1)).run({})
    assert (result.state, len(result.failures)) == ({"seen": [0, 2, 3]}, 1)


# Many items -----------------------------------------------------------------------------------------------------------


async def test_a_thousand_items_a_hundred_at_a_time(tmp_path: Path) -> None:
    """Each is done and stored once, and merged in its order."""

    async def note(state: State, ctx: Context[list[int]]) -> None:
        ctx.deps.append(ctx.index)
        state["sum"] = state.get("sum", 0) + ctx.index
        state["items"] = [ctx.item]

    def joined(before: object, values: list[Any]) -> list[Any]:
        return [value for (value,) in values]

    flow = new().batch(
        lambda state: [f"item {number}" for number in range(1000)],
        note,
        name="each",
        concurrency=100,
        reducer={"sum": reducers.sum, "items": joined},
    )
    async with SqliteStore(tmp_path / "runs.db") as store:
        kept, deps = flow.with_versioned_checkpoint(store), list[int]()
        result = await kept.run({}, run_id="r", deps=deps)
        assert result.state == {"sum": 499_500, "items": [f"item {number}" for number in range(1000)]}
        assert sorted(deps) == list(range(1000))
        paths = [version.path for version in await stored_versions(store, "r")]
        assert sorted(paths) == sorted(["", "each/@items", *(f"each[{n}]/note" for n in range(1000)), "each"])


async def test_many_items_that_fail_and_go_on() -> None:
    """A run with a hundred items under way fails, goes on, fails…: each item that is done is done once."""
    store, deps = MemoryStore(), list[int]()

    async def note(state: State, ctx: Context[list[int]]) -> None:
        await asyncio.sleep(0)
        if ctx.index % 50 == 49 and ctx.index not in failed:
            failed.add(ctx.index)
            raise LookupError
        ctx.deps.append(ctx.index)
        state[f"{ctx.item}"] = True

    failed: set[int] = set()
    flow = each(300, note, concurrency=40).with_versioned_checkpoint(store)
    for _ in range(6):
        with pytest.raises(FlowError):
            await flow.run({}, run_id="r", deps=deps)
    assert len((await flow.run({}, run_id="r", deps=deps)).state) == 300
    assert set(deps) == set(range(300))
    assert len(failed) == 6


@every_concurrency
async def test_batches_in_batches_end_the_same_from_everywhere(concurrency: int) -> None:
    """Whatever their concurrency, and at whichever item they were."""

    async def note(state: State, ctx: Context) -> None:
        await asyncio.sleep(0)
        state[key_of(ctx.step)] = [ctx.item, ctx.index]

    inner = piece().batch(lambda state, ctx: [f"{ctx.item}a", f"{ctx.item}b"], note, name="in", concurrency=concurrency)
    await same_from_everywhere(each(3, inner.then(note, name="after"), concurrency=concurrency))
