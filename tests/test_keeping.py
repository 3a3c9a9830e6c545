"""`runs`, `every_run`, `counts` and `prune` of the stores, and flows whose versions are pruned."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flowneer_async import (
    BadOption,
    Context,
    FlowBuilder,
    FlowError,
    Lease,
    ResumePlan,
    Run,
    Status,
    StoreError,
    UnknownVersion,
    Version,
    fragment,
)
from flowneer_async.cursor import decode, static
from flowneer_async.keeping import Where, checked_tags, every_run, prune, run_filter
from flowneer_async.policy import unix_ms
from flowneer_async.store import EVERY_STATUS, RunFilter, resolve
from flowneer_async.testing.chains import EARLY, counting, first_kept, new_run
from flowneer_stores import MemoryStore
from flowneer_stores.methods import Methods
from flowneer_stores.wrapper import Wrapper
from tests.support.stores import KINDS, opened

State = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = [UTC, timezone(timedelta(hours=-9.5))]
moments = st.datetimes(datetime(1900, 1, 1), datetime(2500, 1, 1), timezones=st.sampled_from(ZONES))


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Methods]:
    async with opened(request.param, tmp_path) as store:
        assert isinstance(store, Methods)
        yield store


# Words ----------------------------------------------------------------------------------------------------------------


def test_nothing_said_means_every_run() -> None:
    """What is left out asks for nothing."""
    assert run_filter({}) == RunFilter()


@pytest.mark.parametrize(
    ("status", "statuses"),
    [
        *((status, {status}) for status in get_args(Status)),
        (["failed", "waiting", "failed"], {"failed", "waiting"}),
        (("running",), {"running"}),
        (frozenset({"completed"}), {"completed"}),
        ([], set()),
        (EVERY_STATUS, EVERY_STATUS),
    ],
)
def test_a_status_is_one_or_several(status: Any, statuses: set[Status]) -> None:
    """By its name, or a collection of names, even an empty one."""
    assert run_filter({"status": status}) == RunFilter(frozenset(statuses))


def test_every_word_has_its_place() -> None:
    """What is said of a run is what the store is asked for."""
    where: Where = {
        "status": "failed",
        "flow": "f",
        "tags": {"b": "2", "a": "1"},
        "owned": False,
        "created_after": 1,
        "created_before": 2,
        "updated_after": 3,
        "updated_before": datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
    }
    assert run_filter(where) == RunFilter(frozenset({"failed"}), "f", {"a": "1", "b": "2"}, False, 1, 2, 3, 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("status", bad) for bad in ("done", "", "Failed", ["failed", "done"], "failed,waiting")),
        *(("tags", bad) for bad in ({"a": 1}, {1: "a"}, {"a": None}, {"a\0": ""}, {"": "\0"}, {"\ud800": ""})),
        *(("created_after", bad) for bad in (datetime(2020, 1, 1), 1.5, "2020", True, None, timedelta(1))),
        *((word, datetime(2020, 1, 1)) for word in ("created_before", "updated_after", "updated_before")),
        *((word, True) for word in ("created_before", "updated_after", "updated_before")),
        *((word, bad) for word in ("created_after", "updated_before") for bad in (10**30, -(10**30), 2**63)),
        ("state", "failed"),
        ("tag", {}),
    ],
)
async def test_a_word_that_makes_no_sense_is_named(option: str, value: object) -> None:
    """Unknown words, statuses that there are not, tags that are no texts, times without a zone or beyond all clocks."""
    store, where = MemoryStore(), cast(Where, {option: value})
    for ask in (store.runs, store.counts, partial(store.prune, keep=1)):
        with pytest.raises(BadOption) as caught:
            await ask(**where)
        assert caught.value.option == option
    with pytest.raises(BadOption):
        async for _ in store.every_run(**where):
            pass


def test_what_an_error_says_of_tags_is_not_their_text() -> None:
    """Tags may be secrets; a message shows none."""
    with pytest.raises(BadOption) as caught:
        checked_tags({"secret-name": "secret\0value"})
    assert "secret" not in str(caught.value)


@given(st.dictionaries(st.text(max_size=4), st.text(max_size=4)))
@example({"\0": "a"})
def test_tags_are_kept_in_the_order_of_their_names(tags: Mapping[str, str]) -> None:
    """Any texts are tags, but for what no database takes."""
    if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for text in (*tags, *tags.values()) for sign in text):
        with pytest.raises(BadOption):
            checked_tags(tags)
    else:
        assert list(checked_tags(tags).items()) == sorted(tags.items())


@given(moments, st.integers(-3, 3))
@example(datetime(2023, 11, 14, 22, 13, 20, 1000, UTC), 0)
@example(datetime(1969, 12, 31, 23, 59, 59, 999_500, UTC), 0)
@example(datetime(2024, 1, 1, microsecond=500, tzinfo=UTC), 0)
def test_a_datetime_means_what_it_says(moment: datetime, off: int) -> None:
    """Of a run that was created close to it, to the microsecond: *after* is then or later, *before* is before it."""
    created = (moment - EPOCH) // timedelta(milliseconds=1) + off  # in ms, as stores know times
    filters = run_filter({"created_after": moment, "created_before": moment})
    assert filters.created_after is not None
    assert filters.created_before is not None
    assert (created >= filters.created_after) == (EPOCH + timedelta(milliseconds=created) >= moment)
    assert (created < filters.created_before) == (EPOCH + timedelta(milliseconds=created) < moment)


@given(st.integers(0, 2**42))
def test_a_datetime_and_the_same_time_in_ms_are_one(ms: int) -> None:
    """No millisecond is lost between them."""
    assert run_filter({"updated_after": EPOCH + timedelta(milliseconds=ms)}) == run_filter({"updated_after": ms})


# Finding --------------------------------------------------------------------------------------------------------------


async def stored(store: Methods, number: int, **more: Any) -> Run:
    run = Run(f"run-{number}", "flow", "dict", ("one",), created=EARLY + number, updated=EARLY + number, **more)
    lease = await store.create(run)
    assert lease is not None
    await store.release(lease, "failed" if number % 3 else "completed")
    return run


async def test_runs_are_found_by_what_is_said_of_them(store: Methods) -> None:
    """By a status, a flow, tags, times; what `runs` finds, `counts` counts, and `every_run` gives one by one."""
    for number in range(12):
        await stored(store, number, tags={"half": str(number % 2), "number": str(number)})
    for where, numbers in (
        ({}, range(12)),
        ({"status": "completed"}, (0, 3, 6, 9)),
        ({"status": ["completed", "waiting"], "tags": {"half": "1"}}, (3, 9)),
        ({"flow": "other"}, ()),
        ({"owned": True}, ()),
        ({"owned": False, "tags": {"half": "0", "number": "4"}}, (4,)),
        ({"created_after": EARLY + 3, "created_before": EPOCH + timedelta(milliseconds=EARLY + 5)}, (3, 4)),
        ({"updated_before": EARLY}, ()),
        ({"updated_after": EARLY}, range(12)),
    ):
        expected = [f"run-{number}" for number in reversed(numbers)]
        said = cast(Where, where)
        page = await store.runs(**said)
        assert ([run.run_id for run in page.runs], page.next) == (expected, None), where
        assert [run.run_id async for run in store.every_run(**said)] == expected
        assert dict(await store.counts(**said)) == Counter(run.status for run in page.runs)


async def test_every_run_is_given_however_many_there_are(store: Methods) -> None:
    """Page after page, each once, the newest first; a page has a hundred, if nothing else is said."""
    await asyncio.gather(*(stored(store, number) for number in range(250)))
    every = [run.run_id async for run in store.every_run()]
    assert sorted(every) == sorted(f"run-{number}" for number in range(250))
    page = await store.runs()
    assert [run.run_id for run in page.runs] == every[:100]
    page = await store.runs(limit=150, after=page.next)
    assert ([run.run_id for run in page.runs], page.next) == (every[100:], None)
    assert [run.run_id async for run in every_run(store, RunFilter(frozenset({"completed"})))] == [
        run_id for run_id in every if int(run_id[4:]) % 3 == 0
    ]
    assert dict(await store.counts()) == {"completed": 84, "failed": 166}


@pytest.mark.parametrize("limit", [0, -1, 10_001, 10**30])
async def test_a_page_of_no_size_is_refused(limit: int) -> None:
    """A page has at least one run, and not all that there ever were."""
    with pytest.raises(BadOption) as caught:
        await MemoryStore().runs(limit=limit)
    assert caught.value.option == "limit"


async def test_a_page_after_nonsense_is_refused(store: Methods) -> None:
    """Only what a page has given leads to the next one."""
    with pytest.raises(BadOption) as caught:
        await store.runs(after="nonsense")
    assert caught.value.option == "after"


async def test_who_reads_run_after_run_may_purge_them(store: Methods) -> None:
    """The run that was given, and any other, may go: those that are left come, each once."""
    for number in range(230):
        await store.create(new_run(f"run-{number}"))
        run = await store.read(f"run-{number}")
    seen = list[str]()
    async for run in store.every_run():
        seen.append(run.run_id)
        if len(seen) % 2:
            await release(store, run)
            await store.purge(run.run_id)
    assert seen == [f"run-{number}" for number in range(229, -1, -1)]
    assert dict(await store.counts()) == {"running": 115}


async def release(store: Methods, run: Run) -> None:
    """Give a run back, as its owner would."""
    await store.release(Lease(run.run_id, run.epoch), "completed")


# Pruning --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("keep", keep) for keep in (0, -1, None)),
        *(("older_than", span) for span in (-1, -0.001, float("nan"), float("inf"), timedelta(seconds=-1))),
    ],
)
async def test_what_to_keep_has_to_make_sense(option: str, value: Any) -> None:
    """At least the last version, and a span of time: without either, or with a good one beside it, none are dropped."""
    store = MemoryStore()
    await store.create(new_run(), counting("run", 3, keyframes=range(3)))
    good = {"keep": 1, "older_than": 0}
    del good[option]
    for options in ({option: value}, {**good, option: value}) if value is not None else ({},):
        with pytest.raises(BadOption) as caught:
            await store.prune(**options)
        assert caught.value.option == option
    assert (await store.read("run")).first == 0


TIMES = [EARLY + seconds * 1000 for seconds in (0, 1, 2, 3, 5, 8, 8, 13, 21, 34)]
KEYFRAMES = (0, 2, 3, 6, 7, 9)
seconds = st.integers(0, 40) | st.floats(0, 40)
spans = st.none() | seconds | st.builds(timedelta, seconds=seconds) | st.sampled_from([1e30, timedelta.max])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(keep=st.none() | st.integers(1, 12), older_than=spans, since_last=st.integers(0, 10_000), runs=st.integers(1, 3))
def test_a_version_is_dropped_if_neither_keeps_it(
    keep: int | None, older_than: timedelta | float | None, since_last: int, runs: int
) -> None:
    """Not among the last so many, and older than that; where one of the two is not given, the other decides alone."""
    if keep is None and older_than is None:
        return
    now = TIMES[-1] + since_last
    span = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
    chains = [counting(f"run-{number}", len(TIMES), KEYFRAMES, TIMES) for number in range(runs)]

    async def pruned() -> None:
        store = MemoryStore()
        for chain in chains:
            await store.create(new_run(chain[0].run_id), chain)
        since = None if span is None else now - int(min(span, 1e12) * 1000)
        first = first_kept(chains[0], keep or 1, since)
        assert await prune(store, RunFilter(), keep, older_than, now) == runs * first
        for chain in chains:
            assert list(await store.versions(chain[0].run_id)) == chain[first:]

    asyncio.run(pruned())


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"keep": 3}, 3),
        ({"older_than": 60}, 5),
        ({"older_than": timedelta(minutes=1)}, 5),
        ({"older_than": timedelta(hours=5)}, 1),
        ({"older_than": 0}, 5),
        ({"keep": 1, "older_than": 60}, 5),
        ({"keep": 4, "older_than": 60}, 2),
        ({"keep": 4, "older_than": timedelta(hours=5)}, 1),
        ({"older_than": 1e30}, 0),
        ({"older_than": timedelta.max}, 0),
        ({"keep": 10**30}, 0),
    ],
)
async def test_what_is_old_is_so_by_the_clock(store: Methods, options: dict[str, Any], first: int) -> None:
    """Seconds and a timedelta mean the same; two days are older than an hour."""
    times = [unix_ms() - hours * 3_600_000 for hours in (48, 4, 3, 3, 2, 1)]
    await store.create(new_run(), counting("run", 6, keyframes=range(6), times=times))
    assert await store.prune(**options) == first
    assert (await store.read("run")).first == first


async def test_only_the_runs_that_are_meant_are_pruned(store: Methods) -> None:
    """By status, flow and tags, and more than a page of them; the others keep what they have."""
    for number in range(130):
        run_id = f"run-{number}"
        run = Run(run_id, f"flow-{number % 2}", "dict", (), created=EARLY, updated=EARLY, tags={"n": str(number % 5)})
        lease = await store.create(run, counting(run_id, 4, keyframes=(0, 2)))
        assert lease is not None
        await store.release(lease, "completed" if number % 3 else "failed")

    async def pruned() -> set[int]:
        return {int(run.run_id[4:]) async for run in store.every_run() if run.first}

    assert await store.prune(keep=1, status="failed", flow="flow-1", tags={"n": "0"}) == 2 * 4
    expected = {number for number in range(130) if number % 3 == 0 and number % 2 == 1 and number % 5 == 0}
    assert await pruned() == expected
    assert await store.prune(keep=1, status=["failed", "waiting"], tags={"n": "1"}) == 2 * 9
    expected |= {number for number in range(130) if number % 3 == 0 and number % 5 == 1}
    assert await pruned() == expected
    assert await store.prune(keep=2, created_before=EARLY) == 0
    assert await store.prune(keep=2) == 2 * (130 - len(expected))
    assert await store.prune(keep=1) == 0


async def test_a_run_that_is_purged_meanwhile_is_passed_over(tmp_path: Path) -> None:
    """Who prunes does not stop at a run that somebody else has purged: the others are pruned."""

    class Purging(MemoryStore):
        async def drop(self, run_id: str, keep: int, since: int | None = None) -> int:
            if run_id == "run-1":
                await self.purge(run_id)
            return await super().drop(run_id, keep, since)

    store = Purging()
    for number in range(3):
        lease = await store.create(new_run(f"run-{number}"), counting(f"run-{number}", 4, keyframes=(0, 2)))
        assert lease is not None
        await store.release(lease, "completed")
    assert await store.prune(keep=1) == 4
    assert [run.first async for run in store.every_run()] == [2, 2]


# Flows ----------------------------------------------------------------------------------------------------------------

LENGTH = 40


async def step(state: State) -> None:
    await asyncio.sleep(0)
    state["n"] += 1


def long_flow(fails_at: int = -1) -> FlowBuilder[State]:
    """Forty steps that count; with `fails_at`, that one fails at the first call."""
    calls = count()

    async def fail_once(state: State) -> None:
        if not next(calls):
            raise OSError
        state["n"] += 1

    flow = FlowBuilder[State]("long")
    for number in range(LENGTH):
        flow = flow.then(fail_once if number == fails_at else step, name=f"s{number}")
    return flow


async def kept_whole(store: Methods, run_id: str, head: int) -> int:
    """Every kept version of a run resolves to the state that it stood for; gives the first of them."""
    run = await store.read(run_id)
    versions = await store.versions(run_id)
    assert [version.seq for version in versions] == list(range(run.first, head + 1))
    for version in versions:
        assert (await resolve(store, version.id)).state == {"n": version.seq}
    return run.first


async def test_flows_go_on_while_their_versions_are_pruned(store: Methods) -> None:
    """Twenty of them, pruned over and over: each ends as it should, and what is kept is whole."""
    flow = long_flow().with_versioned_checkpoint(store)
    running = asyncio.gather(*(flow.run({"n": 0}, run_id=f"run-{number}") for number in range(20)))
    dropped = 0
    while not running.done():
        dropped += await store.prune(keep=3)
        await asyncio.sleep(0)
    for result in await running:
        assert (result.state, result.version, result.status) == (
            {"n": LENGTH},
            f"{result.run_id}@{LENGTH}",
            "completed",
        )
    dropped += await store.prune(keep=3)
    firsts = [await kept_whole(store, f"run-{number}", LENGTH) for number in range(20)]
    assert sum(firsts) == dropped
    assert min(firsts) > LENGTH / 2


async def test_a_flow_whose_versions_come_later_is_pruned(store: Methods) -> None:
    """Many at once, behind its back: it ends as it should."""
    flow = long_flow().with_versioned_checkpoint(store, durability="async")
    running = asyncio.ensure_future(flow.run({"n": 0}, run_id="run"))
    while not running.done():
        await store.prune(older_than=0)
        await asyncio.sleep(0)
    assert (await running).state == {"n": LENGTH}
    assert await store.prune(keep=1) >= 0
    assert await kept_whole(store, "run", LENGTH) > LENGTH / 2


async def test_a_run_whose_older_versions_are_gone_goes_on(store: Methods) -> None:
    """It failed, was pruned, and is run again: it does the steps that are left, and no others."""
    flow = long_flow(fails_at=30).with_versioned_checkpoint(store)
    with pytest.raises(FlowError):
        await flow.run({"n": 0}, run_id="run")
    assert await store.prune(keep=1, status="failed") > 10
    result = await flow.run(run_id="run")
    assert (result.state, result.version) == ({"n": LENGTH}, f"run@{LENGTH}")
    first = await kept_whole(store, "run", LENGTH)
    assert 10 < first <= 30
    again = await flow.run(run_id="run")
    assert (again.state, again.version) == (result.state, result.version)


async def test_forks_of_what_is_kept_go_on_and_of_what_is_not_are_refused(store: Methods) -> None:
    """A version that was dropped is unknown; from any that is kept a fork ends as the run did."""
    flow = long_flow().with_versioned_checkpoint(store)
    await flow.run({"n": 0}, run_id="run")
    await store.prune(keep=6)
    first = (await store.read("run")).first
    for seq in range(LENGTH + 1):
        bound = flow.resume_from(f"run@{seq}", store)
        if seq < first:
            with pytest.raises(UnknownVersion) as caught:
                await bound.run(run_id=f"fork-{seq}")
            assert caught.value.version == f"run@{seq}"
        else:
            result = await bound.run(run_id=f"fork-{seq}")
            assert result.state == {"n": LENGTH}
            assert (await store.read(f"fork-{seq}")).fork_of == f"run@{seq}"
    assert {run.run_id async for run in store.every_run()} == {
        "run",
        *(f"fork-{seq}" for seq in range(first, LENGTH + 1)),
    }


@pytest.mark.parametrize("purged", [False, True])
async def test_a_fork_outlives_the_version_it_is_of(store: Methods, purged: bool) -> None:
    """It was begun, and failed; its origin was pruned, or purged; it goes on, and is pruned itself."""
    await long_flow().with_versioned_checkpoint(store).run({"n": 0}, run_id="run")
    flow = long_flow(fails_at=30).with_versioned_checkpoint(store)
    with pytest.raises(FlowError):
        await flow.resume_from("run@2", store).run(run_id="fork")
    if purged:
        await store.purge("run")
    else:
        await store.prune(keep=1)
    await store.drop("fork", 1)
    result = await flow.run(run_id="fork")
    assert (result.state, result.version) == ({"n": LENGTH}, f"fork@{LENGTH - 2}")
    assert (await resolve(store, f"fork@{LENGTH - 2}")).state == {"n": LENGTH}
    assert (await store.read("fork")).fork_of == "run@2"
    again = await flow.resume_from("run@2", store).run(run_id="fork")  # as it was begun: it is finished
    assert (again.state, again.version) == (result.state, result.version)


@pytest.mark.parametrize("purged", [False, True])
async def test_who_asks_for_a_fork_again_is_given_it(store: Methods, purged: bool) -> None:
    """The same call goes on with the fork that is there, though its origin is gone; another version is no excuse."""
    await long_flow().with_versioned_checkpoint(store).run({"n": 0}, run_id="run")
    flow = long_flow(fails_at=30)
    with pytest.raises(FlowError):
        await flow.resume_from("run@2", store).run(run_id="fork")
    await (store.purge("run") if purged else store.prune(keep=1))
    result = await flow.resume_from("run@2", store).run(run_id="fork")
    assert (result.state, result.version) == ({"n": LENGTH}, f"fork@{LENGTH - 2}")
    with pytest.raises(StoreError):
        await flow.resume_from("run@1", store).run(run_id="fork")


async def test_a_run_that_waits_goes_on_after_it_was_pruned(store: Methods) -> None:
    """What it waits for, and the signals that came, do not hang on versions that are gone."""

    def take(state: State, ctx: Context[Any]) -> None:
        state["n"] += 1

    flow = FlowBuilder[State]("waits")
    for number in range(20):
        flow = flow.then(take, name=f"s{number}")
    flow = flow.wait_for("go", name="wait").then(take, name="last").with_versioned_checkpoint(store)
    assert (await flow.run({"n": 0}, run_id="run")).status == "waiting"
    assert await store.prune(keep=1) > 8
    assert (await flow.run(run_id="run")).status == "waiting"
    await store.send("run", "go", b"null")
    await store.prune(keep=1)
    result = await flow.run(run_id="run")
    assert (result.status, result.state["n"]) == ("completed", 21)


def mark(state: State, ctx: Context[Any]) -> None:
    """Count how often the step was done."""
    state[ctx.step] = state.get(ctx.step, 0) + 1


def fail_unless_mended(state: State, ctx: Context[Any]) -> None:
    if ctx.deps != "mended":
        raise OSError
    mark(state, ctx)


def count_round(state: State) -> None:
    state["rounds"] = state.get("rounds", 0) + 1


def few_rounds(state: State) -> bool:
    return state.get("rounds", 0) < 5


def is_last_round(state: State) -> str:
    return str(state["rounds"] == 5)


def x(state: State) -> str:
    return "x"


def letters(state: State) -> str:
    return "abc"


def steps(name: str, flow: FlowBuilder[State] | None = None) -> FlowBuilder[State]:
    """Five more steps; a body, where there is no flow."""
    flow = fragment() if flow is None else flow
    for number in range(5):
        flow = flow.then(mark, name=f"{name}{number}")
    return flow


def begun() -> FlowBuilder[State]:
    return steps("a", FlowBuilder[State]("flow"))


def failing(name: str) -> FlowBuilder[State]:
    return steps("more", steps(name).then(fail_unless_mended, name="bad"))


ROUND = steps("r").then(count_round)
STOPPED: dict[str, FlowBuilder[State]] = {
    "in a row": steps("b", steps("z", begun()).then(fail_unless_mended)),
    "after a loop": begun().loop(few_rounds, ROUND).then(fail_unless_mended),
    "in a loop": begun().loop(few_rounds, ROUND.branch(is_last_round, {"True": failing("t"), "False": steps("f")})),
    "in a case": steps("b", begun().branch(x, {"x": failing("x"), "y": steps("y")})),
    "after a case": begun().branch(x, {"x": steps("x"), "y": steps("y")}).then(fail_unless_mended),
    "in a lane": begun().parallel([steps("x"), failing("y")], on_error="wait").then(mark),
    "after lanes": begun().parallel([steps("x"), steps("y")]).then(fail_unless_mended),
    "in a batch": begun().batch(letters, failing("b")).then(mark),
    "after a batch": begun().batch(letters, steps("b")).then(fail_unless_mended),
}


def is_around(path: str, plan: ResumePlan) -> bool:
    """Does this step stand in a body that the run is in?"""
    body = path.rpartition("/")[0]
    return any(static(decode(again)).startswith(f"{body}/" if body else "") for again in plan.again)


@pytest.mark.parametrize("stopped", STOPPED)
async def test_a_run_that_stopped_anywhere_goes_on_from_what_is_kept(store: Methods, stopped: str) -> None:
    """In a loop, a case, a lane: the plan of going on is what it was, and the end that of a run never pruned."""
    flow = STOPPED[stopped].with_versioned_checkpoint(store)
    for run_id in ("whole", "pruned"):
        with pytest.raises(FlowError):
            await flow.run({}, run_id=run_id)
    plan = await flow.plan_resume("pruned")
    assert await store.drop("pruned", 1) > 0
    pruned = await flow.plan_resume("pruned")
    assert replace(pruned, skipped=()) == replace(plan, skipped=())
    assert set(pruned.skipped) <= set(plan.skipped)
    assert [path for path in pruned.skipped if is_around(path, plan)] == [
        path for path in plan.skipped if is_around(path, plan)
    ]
    ends = [await flow.run(run_id=run_id, deps="mended") for run_id in ("whole", "pruned")]
    assert ends[0].state == ends[1].state
    assert (await store.read("whole")).head == (await store.read("pruned")).head
    assert ends[1].status == "completed"


async def test_a_plan_of_a_finished_run_does_not_need_what_was_pruned(store: Methods) -> None:
    """All its steps are done, though the versions that said so are gone."""
    flow = long_flow().with_versioned_checkpoint(store)
    await flow.run({"n": 0}, run_id="run")
    plan = await flow.plan_resume("run")
    await store.prune(keep=1)
    assert await flow.plan_resume("run") == plan
    assert len(plan.skipped) == LENGTH


class Pruned(Wrapper):
    """A store that drops all it may after each append."""

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        await super().append(lease, versions)
        await self.drop(lease.run_id, 1)


@pytest.mark.parametrize("stopped", STOPPED)
async def test_a_run_that_is_pruned_after_every_step_ends_as_any_other(store: Methods, stopped: str) -> None:
    """Nothing that a run needs is older than its last keyframe, wherever it is, and wherever it stopped."""
    for each in (store, Pruned(store)):
        flow, run_id = STOPPED[stopped].with_versioned_checkpoint(each), type(each).__name__
        with pytest.raises(FlowError):
            await flow.run({}, run_id=run_id)
        await flow.run(run_id=run_id, deps="mended")
    whole, pruned = [await store.read(run_id) for run_id in (type(store).__name__, "Pruned")]
    assert (whole.first, whole.head, whole.status) == (0, pruned.head, pruned.status)
    versions = await store.versions("Pruned")
    assert [version.is_keyframe for version in versions] == [True] + [False] * (len(versions) - 1)
    for seq in range(pruned.first, pruned.head + 1):
        assert await resolve(store, f"Pruned@{seq}") == await resolve(store, f"{type(store).__name__}@{seq}")
