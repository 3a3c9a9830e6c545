"""`ctx.transaction()`: what a step does in the database of its store is committed with its version, or not at all."""

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Literal, NamedTuple

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async import (
    BadOption,
    BadTransaction,
    Chunk,
    Context,
    Fenced,
    FlowBuilder,
    FlowError,
    Hooks,
    Lease,
    NoTransactions,
    RunFailed,
    RunFilter,
    StepDone,
    StoreBusy,
    StoreFailed,
    StoreFull,
    Transaction,
    TransactionalStore,
    UnknownRun,
    Version,
    fragment,
    goto,
)
from flowneer_async.behind import Behind
from flowneer_async.store import resolve
from flowneer_async.testing import Crash, CrashingStore, crash_points
from flowneer_async.testing.cancelling import by_scope, by_task
from flowneer_async.testing.chains import counting
from flowneer_stores import EncryptedStore, MemoryStore, SignedStore
from flowneer_stores.wrapper import Wrapper
from tests.support import booking_child
from tests.support.books import BOOKS, Books, Ctx, SqliteBooks, State, book, booking, failure_of, then, versions_of
from tests.support.children import ENVIRONMENT, ROOT
from tests.support.entries import DictStore
from tests.support.interrupt import Stepped, a_turn_later, at_once, some_turns_later

Flow = FlowBuilder[State]
TOTAL = {"booked": lambda before, values: sum(values) - (len(values) - 1) * (before or 0)}
"""What lanes have booked together."""

HOWS = ("before", "after", "unheard")

LIMIT = 0.05  # seconds, of a real clock
LONG_LIMIT = 0.5  # long enough for a transaction to begin

Step = Callable[[State, Ctx], Awaitable[None]]

every_durability = pytest.mark.parametrize("durability", ["sync", "async", "exit"])


@pytest.fixture(params=BOOKS)
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Books:
    return BOOKS[request.param](tmp_path)


@pytest.fixture
async def store(books: Books) -> AsyncGenerator[TransactionalStore, None]:
    async with books.store() as store:
        yield store


def new() -> Flow:
    return FlowBuilder("flow")


# Together -------------------------------------------------------------------------------------------------------------


@every_durability
async def test_the_rows_and_the_version_are_there(durability: Any, books: Books, store: TransactionalStore) -> None:
    """After the step both are stored, whichever way the run is kept."""
    seen: list[tuple[list[str], int]] = []

    async def look(state: State) -> None:
        seen.append((books.rows(), (await store.read("r")).head))

    flow = new().then(booking, name="a").then(look).with_versioned_checkpoint(store, durability=durability)
    assert (await flow.run({}, run_id="r")).state == {"booked": 1}
    assert seen == [(["a"], 1)]


async def test_nothing_is_there_before_the_step_is_done(books: Books, store: TransactionalStore) -> None:
    """Behind its block the transaction is still open: its rows wait for the version."""

    async def look(state: State, ctx: Ctx) -> None:
        assert books.rows() == []

    await new().then(then(look), name="a").with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == ["a"]


async def test_loops_branches_and_nested_flows(books: Books, store: TransactionalStore) -> None:
    """Wherever the step stands, its transaction is committed with the version of that step."""
    step = fragment().then(booking, name="a")
    flow = (
        new()
        .loop(lambda _, ctx: ctx.index < 2, step, name="loop")
        .branch(lambda _: "x", {"x": step}, name="branch")
        .then(step, name="sub")
        .batch(lambda _: [1, 2], step, name="batch")
    )
    await flow.with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == ["loop[0]/a", "loop[1]/a", "branch/x/a", "sub/a", "batch[0]/a", "batch[1]/a"]
    assert await versions_of(store, "r", ["a"]) == books.rows()


async def test_a_jump(books: Books, store: TransactionalStore) -> None:
    """A step that jumps has one version, with where it lands: and its rows."""

    async def again(state: State, ctx: Ctx) -> Any:
        await booking(state, ctx)
        return goto("top") if state["booked"] < 3 else None

    await new().anchor("top").then(again, name="a").with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == await versions_of(store, "r") == ["a", "a~1", "a~2"]


@every_durability
@pytest.mark.parametrize("where", ["main", "lane"])
async def test_a_step_with_a_transaction_always_makes_a_version(
    where: str, durability: Any, books: Books, store: TransactionalStore
) -> None:
    """Though the filter leaves it out, and though it has changed nothing: else its rows could not be committed."""

    async def quiet(state: State, ctx: Ctx) -> None:
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)

    step = fragment().then(quiet, name="a")
    flow = new().then(quiet, name="a") if where == "main" else new().parallel([step, step], name="p")
    flow = flow.with_versioned_checkpoint(store, lambda name: False, durability=durability, skip_unchanged=True)
    await flow.run({}, run_id="r")
    assert sorted(books.rows()) == sorted(await versions_of(store, "r", ["a"]))
    assert len(books.rows()) == (1 if where == "main" else 2)


async def test_what_a_filter_has_left_out_before_is_in_the_version(books: Books, store: TransactionalStore) -> None:
    """The version has all that has changed since the one before it."""

    async def count(state: State) -> None:
        state["n"] = state.get("n", 0) + 1

    flow = new().then(count).then(count, name="more").then(booking, name="a").then(count, name="end")
    await flow.with_versioned_checkpoint(store, lambda name: name == "end").run({}, run_id="r")
    assert ((await resolve(store, "r@1")).state, books.rows()) == ({"n": 2, "booked": 1}, ["a"])


# Not at all -----------------------------------------------------------------------------------------------------------


async def fail(state: State, ctx: Ctx) -> None:
    raise ValueError


async def fail_inside(state: State, ctx: Ctx) -> None:
    async with ctx.transaction() as connection:
        await book(connection, ctx.step)
        raise ValueError


async def return_a_value(state: State, ctx: Ctx) -> Any:
    await booking(state, ctx)
    return 7


async def jump_nowhere(state: State, ctx: Ctx) -> Any:
    await booking(state, ctx)
    return goto("nowhere")


async def spoil(state: State, ctx: Ctx) -> None:
    state["spoilt"] = object()


async def hang(state: State, ctx: Ctx) -> None:
    await anyio.sleep_forever()


async def cancel(state: State, ctx: Ctx) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await anyio.sleep_forever()


async def die(state: State, ctx: Ctx) -> None:
    raise Crash


def hooked(kind: str) -> Flow:
    """A flow with a hook around the step, or behind it, that fails."""

    async def after(state: State, ctx: Ctx) -> None:
        if ctx.step == "a":
            raise ValueError

    async def wrap(proceed: Callable[[], Awaitable[Any]], state: State, ctx: Ctx) -> Any:
        await proceed()
        await after(state, ctx)

    hook: Any = {"after_step": after, "wrap_step": wrap}[kind]
    return new().add_hooks(Hooks(**{kind: hook})).then(booking, name="before").then(booking, name="a")


def after_one(step: Step, **options: Any) -> Flow:
    """A flow of two steps, the second of which fails."""
    return new().then(booking, name="before").then(step, name="a", **options)


FAILING: dict[str, Flow] = {
    "inside the block": after_one(fail_inside),
    "behind the block": after_one(then(fail)),
    "its time limit": after_one(then(hang), timeout=0.05),
    "a returned value": after_one(return_a_value),
    "a jump to nowhere": after_one(jump_nowhere),
    "a state that cannot be stored": after_one(then(spoil)),
    "a cancellation": after_one(then(cancel)),
    "a crash": after_one(then(die)),
    "a hook behind it": hooked("after_step"),
    "a middleware": hooked("wrap_step"),
}


@every_durability
@pytest.mark.parametrize("why", FAILING)
async def test_a_step_that_fails_has_booked_nothing(
    why: str, durability: Any, books: Books, store: TransactionalStore
) -> None:
    """However it fails, its rows are rolled back; the next one books."""
    with pytest.raises(BaseException, match=r".*") as raised:
        await FAILING[why].with_versioned_checkpoint(store, durability=durability).run({}, run_id="r")
    assert not isinstance(raised.value, StoreBusy)
    assert books.rows() == await versions_of(store, "r") == ["before"]
    mended = after_one(booking).with_versioned_checkpoint(store, durability=durability)
    await mended.run({}, run_id="r")
    assert books.rows() == ["before", "a"]


async def test_a_step_that_yields_in_its_block(books: Books, store: TransactionalStore) -> None:
    """Who streams the run sees what it yields; the rows come with the version."""

    async def speak(state: State, ctx: Ctx) -> AsyncIterator[str]:
        async with ctx.transaction() as connection:
            yield "begun"
            await book(connection, ctx.step)
        yield "booked"

    seen: list[object] = []
    async with new().then(speak, name="a").with_versioned_checkpoint(store).stream({}, run_id="r") as events:
        async for event in events:
            if isinstance(event, Chunk):
                seen += [event.value, *books.rows()]
            elif isinstance(event, StepDone):
                seen += [event.version, *books.rows()]
    assert seen == ["begun", "booked", "r@1", "a"]


async def test_a_step_that_may_not_be_done_twice(books: Books, store: TransactionalStore) -> None:
    """Its mark is stored before the transaction, and what its verify says stands."""

    async def was_booked(state: State) -> bool:
        return bool(books.rows())

    step = partial(new().then, name="a", delivery="at_most_once", verify=was_booked)
    with pytest.raises(Crash):
        await step(then(die)).with_versioned_checkpoint(store).run({}, run_id="r")
    await step(booking).with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == ["a"]
    assert [version.path for version in await store.versions("r")] == ["", "a/@begun", "a/@begun", "a"]


async def test_a_step_that_asks_has_booked_nothing(books: Books, store: TransactionalStore) -> None:
    """With the answer it begins anew, and books then, once."""

    async def ask(state: State, ctx: Ctx) -> None:
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)
            state["answer"] = await ctx.interrupt("how many?")

    flow = new().then(ask, name="a").with_versioned_checkpoint(store)
    assert (await flow.run({}, run_id="r")).status == "waiting"
    assert books.rows() == []
    assert (await flow.resume("r", answer=7)).state == {"answer": 7}
    assert books.rows() == ["a"]


@pytest.mark.parametrize("inside", [True, False])
async def test_a_retry_begins_from_nothing(inside: bool, books: Books, store: TransactionalStore) -> None:
    """What an attempt has booked that failed is not there."""

    async def flaky(state: State, ctx: Ctx) -> None:
        async with ctx.transaction() as connection:
            await book(connection, f"attempt {ctx.attempt}")
            if inside and ctx.attempt < 3:
                raise ValueError
        if ctx.attempt < 3:
            raise ValueError

    await new().then(flaky, name="a", retries=2).with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == ["attempt 3"]


async def test_a_middleware_that_proceeds_again(books: Books, store: TransactionalStore) -> None:
    """The second try takes the place of the first one."""

    async def twice(proceed: Callable[[], Awaitable[Any]], state: State, ctx: Ctx) -> Any:
        await proceed()
        return await proceed()

    flow = new().add_hooks(Hooks(wrap_step=twice)).then(booking, name="a")
    assert (await flow.with_versioned_checkpoint(store).run({}, run_id="r")).state == {"booked": 1}
    assert books.rows() == ["a"]


async def test_a_middleware_that_fails_once(books: Books, store: TransactionalStore) -> None:
    """What the attempt has booked that it has failed behind is not there, and the retry may book."""
    failures = [ValueError()]

    async def fail_once(proceed: Callable[[], Awaitable[Any]], state: State, ctx: Ctx) -> Any:
        await proceed()
        if failures:
            raise failures.pop()

    flow = new().add_hooks(Hooks(wrap_step=fail_once)).then(booking, name="a", retries=1)
    with anyio.fail_after(4):
        assert (await flow.with_versioned_checkpoint(store).run({}, run_id="r")).state == {"booked": 1}
    assert books.rows() == ["a"]


async def test_a_hook_that_fails_behind_a_step_with_a_fallback(books: Books, store: TransactionalStore) -> None:
    """The step is rolled back before anybody is told that it has failed, and before its fallback."""
    told: list[list[str]] = []

    async def fail_after(state: State, ctx: Ctx) -> None:
        raise ValueError

    async def tell(state: State, ctx: Ctx, error: BaseException) -> None:
        await (await store.begin()).rollback()  # which waits in vain while another is open
        told.append(books.rows())

    flow = new().add_hooks(Hooks(after_step=fail_after, on_error=tell)).then(booking, name="a", fallback=booking)
    with anyio.fail_after(4):
        assert (await flow.with_versioned_checkpoint(store).run({}, run_id="r")).state == {"booked": 1}
    assert (told, books.rows()) == ([[]], ["a/@fallback"])


async def test_a_fallback_books_in_place_of_its_step(books: Books, store: TransactionalStore) -> None:
    """Its transaction is committed with the version of the step; what the step itself did is not."""

    async def instead(state: State, ctx: Ctx) -> None:
        async with ctx.transaction() as connection:
            await book(connection, "instead")

    flow = new().then(then(fail), name="a", fallback=instead)
    await flow.with_versioned_checkpoint(store).run({}, run_id="r")
    assert (books.rows(), await versions_of(store, "r")) == (["instead"], ["a"])


async def test_a_compensation_books_with_its_own_version(books: Books, store: TransactionalStore) -> None:
    """What undoes a step is committed with the version that says so: resumed, it is not done twice."""
    undone: list[str] = []

    async def undo(state: State, ctx: Ctx) -> None:
        undone.append(ctx.step)
        async with ctx.transaction() as connection:
            await book(connection, "undone")

    flow = new().then(booking, name="a", compensate=undo).then(fail)
    assert isinstance(await failure_of(flow, store), ValueError)
    assert (books.rows(), len(undone)) == (["a", "undone"], 1)
    assert [version.path for version in await store.versions("r")] == ["", "a", "@failed", "a/@undo"]


async def test_a_block_that_fails_in_a_step_that_goes_on(books: Books, store: TransactionalStore) -> None:
    """It is rolled back at once; the step may have another one."""

    async def careful(state: State, ctx: Ctx) -> None:
        try:
            async with ctx.transaction() as connection:
                await book(connection, "first")
                raise ValueError
        except ValueError:
            assert await ctx.once("why", asyncio.sleep, 0, "because") == "because"
        async with ctx.transaction() as connection:
            await book(connection, "second")

    await new().then(careful, name="a").with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == ["second"]


# Rules ----------------------------------------------------------------------------------------------------------------


async def open_another(state: State, ctx: Ctx) -> None:
    async with ctx.transaction():
        pass


async def never() -> None:
    raise AssertionError


async def remember(state: State, ctx: Ctx) -> None:
    await ctx.once("x", never)


async def remember_inside(state: State, ctx: Ctx) -> None:
    async with ctx.transaction() as connection:
        await book(connection, ctx.step)
        await ctx.once("x", never)


async def leave_open(state: State, ctx: Ctx) -> None:
    opened = anyio.Event()

    async def left() -> None:
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)
            opened.set()
            await anyio.sleep_forever()

    state["task"] = asyncio.ensure_future(left())
    await opened.wait()


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (then(open_another), "one at most"),
        (then(remember), "before the transaction begins"),
        (remember_inside, "before the transaction begins"),
        (leave_open, "still open"),
    ],
)
async def test_a_wrong_use_is_refused(step: Step, said: str, books: Books, store: TransactionalStore) -> None:
    """A second block, what would have to be stored at once, and a block that is left open: nothing is stored."""
    state: State = {}
    with pytest.raises(FlowError) as failed:
        await new().then(step, name="a").with_versioned_checkpoint(store).run(state, run_id="r")
    assert isinstance(failed.value.cause, BadTransaction)
    assert said in str(failed.value.cause)
    assert (books.rows(), await versions_of(store, "r")) == ([], [])
    if "task" in state:
        state["task"].cancel()
        with pytest.raises(asyncio.CancelledError):
            await state["task"]


async def test_a_result_that_is_kept_may_be_asked_for(books: Books, store: TransactionalStore) -> None:
    """`ctx.once` before the block stores at once; its result is there inside, and after a failure."""
    calls: list[int] = []

    async def call() -> int:
        calls.append(1)
        return len(calls)

    async def step(state: State, ctx: Ctx) -> None:
        state["n"] = await ctx.once("n", call)
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)
            assert await ctx.once("n", call) == 1
            if not state.get("again"):
                raise ValueError

    flow = new().then(step, name="a").with_versioned_checkpoint(store)
    with pytest.raises(FlowError):
        await flow.run({}, run_id="r")
    fork = new().then(booking, name="a").with_versioned_checkpoint(store)
    await fork.run(run_id="r")
    assert (len(calls), books.rows()) == (1, ["a"])


async def test_what_stores_and_what_begins_take_turns(books: Books, store: TransactionalStore) -> None:
    """Tasks of one step that keep a result and open a transaction at the same time do not wait for each other."""
    told: list[BaseException | None] = []

    async def step(state: State, ctx: Ctx) -> None:
        async def keep(name: str) -> None:
            try:
                await ctx.once(name, asyncio.sleep, 0, name)
            except BadTransaction as error:
                told.append(error)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(keep, f"{number}")
            group.start_soon(booking, state, ctx)

    with anyio.fail_after(4):
        await new().then(step, name="a").with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == ["a"]


@pytest.mark.parametrize("who", ["router", "condition", "items", "verify"])
async def test_a_function_that_makes_no_version_has_none(who: str, books: Books, store: TransactionalStore) -> None:
    """A router, a condition, a verify: there is nothing to commit it with."""

    async def ask(state: State, ctx: Ctx) -> Any:
        await open_another(state, ctx)

    step: Any = fragment().then(booking, name="a")
    flows = {
        "router": new().branch(ask, {"x": step}, name="b"),
        "condition": new().loop(ask, step, name="b"),
        "items": new().batch(ask, step, name="b"),
        "verify": new().then(then(die), name="b", delivery="at_most_once", verify=ask),
    }
    if who == "verify":
        with pytest.raises(Crash):
            await flows[who].with_versioned_checkpoint(store).run({}, run_id="r")
    assert isinstance(await failure_of(flows[who], store), BadTransaction)


@pytest.mark.parametrize("store", [None, MemoryStore(), DictStore(), CrashingStore(MemoryStore())], ids=repr)
async def test_a_store_without_transactions(store: Any) -> None:
    """It is said which store has none, and nothing of the step is done."""
    flow = new().then(booking, name="a")
    with pytest.raises(FlowError) as failed:
        await (flow if store is None else flow.with_versioned_checkpoint(store)).run({})
    assert isinstance(failed.value.cause, NoTransactions)


async def test_a_streamed_run_without_a_store() -> None:
    """It has a journal, but none that stores."""
    failures: list[object] = []
    async with new().then(booking, name="a").stream({}) as events:
        with suppress(FlowError):
            async for event in events:
                failures += [event.error] if isinstance(event, RunFailed) else []
    (error,) = failures
    assert isinstance(error, FlowError)
    assert isinstance(error.cause, NoTransactions)


async def test_a_context_made_by_hand() -> None:
    """A step under test is told what it needs."""
    with pytest.raises(NoTransactions, match="not of a running step"):
        Context("r", "a", 1, None).transaction()


async def test_the_class_of_the_connection(books: Books, store: TransactionalStore) -> None:
    """A step may say which it needs: another one is refused before anything is done."""

    async def wrong(state: State, ctx: Ctx) -> None:
        async with ctx.transaction(sqlite3.Connection) as connection:
            connection.execute("never")

    error = await failure_of(new().then(wrong, name="a"), store)
    assert isinstance(error, BadOption)
    assert await store.read("r")
    async with anyio.create_task_group():
        transaction = await store.begin()  # nothing is left open
        await transaction.rollback()


# Several at once ------------------------------------------------------------------------------------------------------


@every_durability
async def test_lanes_with_a_transaction_each(durability: Any, books: Books, store: TransactionalStore) -> None:
    """Eight lanes: each has its turn, and all are stored."""
    lane = fragment().then(booking, name="a").then(lambda state: None, name="b").then(booking, name="c")
    flow = new().parallel([lane] * 8, name="p", reducer={"booked": lambda _, values: sum(values)})
    stored = flow.with_versioned_checkpoint(store, durability=durability)
    with anyio.fail_after(20):
        assert (await stored.run({}, run_id="r")).state == {"booked": 16}
    assert sorted(books.rows()) == sorted(f"p[{lane}]/{step}" for lane in range(8) for step in "ac")
    assert sorted(await versions_of(store, "r", ["a", "c"])) == sorted(books.rows())


@every_durability
async def test_items_at_once(durability: Any, books: Books, store: TransactionalStore) -> None:
    """Of the items of a batch, those that fail for good have booked nothing; the others have."""

    async def item(state: State, ctx: Ctx) -> None:
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)
        if ctx.index % 3 == 0:
            raise ValueError

    flow = new().batch(lambda _: range(12), item, name="b", concurrency=4, max_failures=4)
    stored = flow.with_versioned_checkpoint(store, durability=durability)
    with anyio.fail_after(20):
        assert len((await stored.run({}, run_id="r")).failures) == 4
    assert sorted(books.rows()) == sorted(f"b[{n}]/item" for n in range(12) if n % 3)
    assert sorted(await versions_of(store, "r", ["item"])) == sorted(books.rows())


@every_durability
async def test_other_lanes_wait(durability: Any, books: Books, store: TransactionalStore) -> None:
    """What lanes do meanwhile, marks and kept results too, is stored with the transaction or after it."""
    opened, others = anyio.Event(), anyio.Event()

    async def slow(state: State, ctx: Ctx) -> None:
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)
            opened.set()
            await others.wait()
            await anyio.wait_all_tasks_blocked()

    async def meanwhile(state: State, ctx: Ctx) -> None:
        await opened.wait()
        others.set()
        await ctx.once("x", asyncio.sleep, 0)

    async def mark(state: State) -> None:
        await opened.wait()

    marks = fragment().then(mark).then(mark, name="once", delivery="at_most_once")
    flow = new().parallel([fragment().then(slow), fragment().then(meanwhile), marks], name="p")
    with anyio.fail_after(4):
        await flow.with_versioned_checkpoint(store, durability=durability).run({}, run_id="r")
    assert books.rows() == ["p[0]/slow"]


async def test_a_lane_that_fails_while_another_has_one(books: Books, store: TransactionalStore) -> None:
    """The others are cancelled, and what they had open is rolled back: nothing waits for it for ever."""
    opened = anyio.Event()

    async def slow(state: State, ctx: Ctx) -> None:
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)
            opened.set()
            await anyio.sleep_forever()

    async def failing(state: State) -> None:
        await opened.wait()
        raise ValueError

    lanes = [fragment().then(slow), fragment().then(failing), fragment().then(booking, name="third")]
    with anyio.fail_after(4):
        assert isinstance(await failure_of(new().parallel(lanes, name="p"), store), ValueError)
    assert books.rows() == await versions_of(store, "r", ["slow", "third"])


async def test_runs_of_one_store_take_turns(books: Books) -> None:
    """Many runs with a transaction in each step, beside many without: none is told that the store is busy."""
    async with books.store(timeout=5) as store:
        with_one = new().then(booking, name="a").then(booking, name="b").with_versioned_checkpoint(store)
        without = FlowBuilder[State]("other").then(lambda state: None, name="x").then(lambda state: None, name="y")
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(lambda n=number: with_one.run({}, run_id=f"with-{n}"))
                group.start_soon(lambda n=number: without.with_versioned_checkpoint(store).run({}, run_id=f"not-{n}"))
        assert sorted(books.rows()) == ["a"] * 20 + ["b"] * 20


# Stores around the store ----------------------------------------------------------------------------------------------

KEY = bytes(32)
AROUND: dict[str, Callable[[TransactionalStore], Any]] = {
    "plain": lambda store: Wrapper(store),
    "encrypted": lambda store: EncryptedStore(store, {"k": KEY}),
    "signed": lambda store: SignedStore(store, KEY),
    "both": lambda store: EncryptedStore(SignedStore(store, KEY), {"k": KEY}),
}


@pytest.mark.parametrize("around", AROUND)
async def test_a_wrapper_passes_them_on(around: str, books: Books, store: TransactionalStore) -> None:
    """The versions are stored in its own form, after what is rolled back too, and can be read through it."""

    async def flaky(state: State, ctx: Ctx) -> None:
        await booking(state, ctx)
        if ctx.attempt == 1:
            raise ValueError

    lane = fragment().then(flaky, name="b", retries=1).then(lambda state: state.update(n=1), name="plain")
    flow = new().then(booking, name="a").parallel([lane, fragment().then(booking, name="c")], name="p", reducer=TOTAL)
    flow = flow.then(lambda state: state.update(n=2), name="plain").then(flaky, name="d", retries=1)
    wrapped = AROUND[around](store)
    assert (await flow.with_versioned_checkpoint(wrapped).run({}, run_id="r")).state == {"booked": 4, "n": 2}
    assert sorted(await versions_of(wrapped, "r", list("abcd"))) == sorted(books.rows())
    assert (await resolve(AROUND[around](store), (await store.versions("r"))[-1].id)).state == {"booked": 4, "n": 2}


async def test_a_wrapper_of_a_store_without() -> None:
    """It is the store inside that has none."""
    error = await failure_of(new().then(booking, name="a"), Wrapper(MemoryStore()))
    assert (type(error), str(error)[:13]) == (NoTransactions, "a MemoryStore")


# Stores that fail -----------------------------------------------------------------------------------------------------


@every_durability
@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("how", HOWS)
async def test_a_commit_that_fails_or_is_not_heard_of(
    how: Any, lanes: bool, durability: Any, books: Books, store: TransactionalStore
) -> None:
    """The run ends, and running it again goes on from what is stored: every step has booked exactly once."""
    lane = fragment().then(booking, name="a").then(booking, name="b")
    flow = new().parallel([lane, lane], name="p", reducer={"booked": lambda _, all: sum(all)}) if lanes else new()
    flow = flow.then(booking, name="c").then(booking, name="d")
    for at in range(2 + HOWS.index(how), 12, 3):
        crashing = CrashingStore(store, at, how)
        run_id = f"r{at}"
        try:
            with anyio.fail_after(10):
                await flow.with_versioned_checkpoint(crashing, durability=durability).run({}, run_id=run_id)
        except (Crash, StoreFailed):
            pass
        await crashing.die()
        with anyio.fail_after(10):
            result = await flow.with_versioned_checkpoint(store, durability=durability).run({}, run_id=run_id)
        assert result.state == {"booked": 6 if lanes else 2}
        assert sorted(await versions_of(store, run_id, list("abcd"))) == sorted(books.rows())
        books.clear()


@every_durability
async def test_a_crash_at_any_commit(durability: Any, books: Books, store: TransactionalStore) -> None:
    """Runs of loops, lanes, items and an undone step that die at each commit: all that is booked has its version."""
    inner = fragment().then(booking, name="b").then(booking, name="c", retries=1)
    flow = (
        new()
        .loop(lambda _, ctx: ctx.index < 2, fragment().then(booking, name="a"), name="loop")
        .parallel([inner, inner], name="p", reducer=TOTAL)
        .batch(lambda _: range(3), booking, name="items", concurrency=2, reducer=TOTAL)
        .then(fragment().then(booking, name="d", compensate=booking).then(fail).on_error(booking), name="rescued")
    )
    stored = flow.with_versioned_checkpoint(store)
    assert await crash_points(stored, {}, durability=durability, most=8, again=4, seed=7) == 8
    found = [
        version.path
        for run in (await store.find(RunFilter(), 100)).runs
        for version in await store.versions(run.run_id)
        if version.path.rpartition("/")[2] in ("a", "b", "c", "d", "booking") or version.path.endswith("d/@undo")
    ]
    assert sorted(found) == sorted(books.rows())


class Hanging(Wrapper):
    """Hangs in the first append of a kept result, before or after it has stored."""

    def __init__(self, store: TransactionalStore, stored: bool) -> None:
        super().__init__(store)
        self.stored, self.is_over = stored, False

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        if self.is_over or not versions[-1].path.endswith("@once"):
            await super().append(lease, versions)
            return
        self.is_over = True
        if self.stored:
            await super().append(lease, versions)
        await anyio.sleep_forever()


@pytest.mark.parametrize("stored", [True, False])
async def test_what_may_be_stored_is_found_out_first(stored: bool, books: Books, store: TransactionalStore) -> None:
    """An append that was cut off by a time limit is stored before the transaction begins."""

    async def step(state: State, ctx: Ctx) -> None:
        with anyio.move_on_after(LIMIT):
            await ctx.once("x", asyncio.sleep, 0)
        await booking(state, ctx)

    flow = new().then(step, name="a").then(booking, name="b")
    await flow.with_versioned_checkpoint(Hanging(store, stored)).run({}, run_id="r")
    assert [version.path for version in await store.versions("r")] == ["", "a/@once", "a", "b"]
    assert books.rows() == ["a", "b"]


class Full(Wrapper):
    """The commit of a transaction fails, later than the time limit of its lane."""

    async def begin(self) -> Transaction:
        transaction = await super().begin()

        async def commit() -> None:
            end = perf_counter() + LONG_LIMIT
            while perf_counter() < end:
                await asyncio.sleep(0)
            raise StoreFull("here")

        transaction.commit = commit  # type: ignore[method-assign]
        return transaction


async def test_a_commit_that_fails_while_its_lane_is_cut_off(books: Books, store: TransactionalStore) -> None:
    """The lane is given up, but the run cannot go on without its version: it ends with what the store has raised."""
    flow = new().batch(
        lambda _: [1, 2], booking, name="b", concurrency=2, timeout=LONG_LIMIT, max_failures=2, reducer=TOTAL
    )
    flow = flow.then(lambda state: None, name="end")
    with pytest.raises(StoreFull):
        await flow.with_versioned_checkpoint(Full(store)).run({}, run_id="r")
    assert (books.rows(), await versions_of(store, "r")) == ([], [])
    with anyio.fail_after(10):
        await flow.with_versioned_checkpoint(store).run({}, run_id="r")
    assert sorted(books.rows()) == sorted(await versions_of(store, "r", ["booking"]))


async def test_a_fenced_owner_books_nothing(books: Books) -> None:
    """Another process has taken the run over while the step was at work: neither version nor row of it is stored."""

    async def overtaken(state: State, ctx: Ctx) -> None:
        books.take_over("r")
        await booking(state, ctx)

    async with books.store() as store:
        flow = new().then(overtaken, name="a").with_versioned_checkpoint(store)
        with pytest.raises(Fenced):
            await flow.run({}, run_id="r")
        assert (books.rows(), await versions_of(store, "r")) == ([], [])


# Cancelled ------------------------------------------------------------------------------------------------------------


def lanes_and_steps() -> Flow:
    """Steps and lanes with transactions, and some without."""
    lane = fragment().then(booking, name="b").then(lambda state: None, name="plain")
    flow = new().then(booking, name="a").parallel([lane, lane], name="p", reducer={"booked": lambda _, all: max(all)})
    return flow.then(booking, name="c")


STEPS = ["a", "b", "c"]


INTERRUPTS = [at_once, a_turn_later, some_turns_later]


@every_durability
async def test_a_run_that_is_cancelled(durability: Any, books: Books, store: TransactionalStore) -> None:
    """What is booked is what has a version, whenever it is cancelled; and the run goes on from there."""
    flow = lanes_and_steps().with_versioned_checkpoint(store, durability=durability)
    for number, interrupt in enumerate(INTERRUPTS):
        await cancelled_everywhere(books, store, flow, interrupt, range(4 * number, 10**6, 12))


@pytest.mark.torture
@every_durability
@pytest.mark.parametrize("interrupt", INTERRUPTS)
async def test_a_run_that_is_cancelled_anywhere(
    interrupt: Callable[..., None], durability: Any, books: Books, store: TransactionalStore
) -> None:
    """The same at each await."""
    flow = lanes_and_steps().with_versioned_checkpoint(store, durability=durability)
    await cancelled_everywhere(books, store, flow, interrupt, range(10**6))


async def cancelled_everywhere(
    books: Books, store: TransactionalStore, flow: Flow, interrupt: Callable[..., None], points: range
) -> None:
    """Cancel runs at these of their points, until one does not come to the next one; all go on to the end."""
    for point in points:
        run_id = f"{interrupt.__name__}-{point}"
        task = asyncio.ensure_future(_cancelled_at(point, flow, run_id, interrupt))
        await asyncio.wait({task})
        found = await versions_of(store, run_id, STEPS) if await exists(store, run_id) else []
        assert sorted(found) == sorted(books.rows())
        with anyio.fail_after(10):
            await flow.run({}, run_id=run_id)
        assert sorted(await versions_of(store, run_id, STEPS)) == sorted(books.rows()) == ["a", "c", "p[0]/b", "p[1]/b"]
        books.clear()
        if not task.cancelled():
            task.result()
            assert point > 10
            return


async def _cancelled_at(point: int, flow: Flow, run_id: str, interrupt: Callable[..., None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    await Stepped(flow.run({}, run_id=run_id), range(point, point + 1), partial(interrupt, task.cancel)).run()


async def exists(store: TransactionalStore, run_id: str) -> bool:
    """Did a cancelled run come so far that it was stored?"""
    try:
        return bool(await store.read(run_id))
    except UnknownRun:
        return False


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 5, 6, 8, 12, 20, 50, 200])
@pytest.mark.parametrize("cancel_it", [by_task, by_scope])
async def test_begin_that_is_cancelled(turns: int, cancel_it: Any, books: Books, store: TransactionalStore) -> None:
    """Nothing is left open: the next one begins at once."""
    begun = await cancel_it(store.begin(), turns)
    if begun is not None:
        await begun.rollback()
    with anyio.fail_after(4):
        await (await store.begin()).rollback()


# Killed ---------------------------------------------------------------------------------------------------------------


async def test_processes_that_are_killed(tmp_path: Path) -> None:
    """Killed over and over: the rows are those of the versions, each once, whenever one looks."""
    await kill_many(tmp_path, 4)


@pytest.mark.torture
async def test_processes_that_are_killed_over_and_over(tmp_path: Path) -> None:
    """The same, a hundred times."""
    await kill_many(tmp_path, 100)


async def kill_many(folder: Path, kills: int) -> None:
    """Two processes at a time on two runs of one file, until so many were killed."""
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"KILL_SEED={seed}")  # shown where the test fails
    moments, books, numbers = random.Random(seed), SqliteBooks(folder), [0, 1]
    killed = 0
    while killed < kills:
        with started(folder, numbers[0]) as one, started(folder, numbers[1]) as other:
            spin(moments.uniform(0, 0.15))
            for process in (one, other):
                process.kill()
            killed += sum(process.wait() != 0 for process in (one, other))
        async with books.store() as store:
            stored = [f"r{at}" for at in range(max(numbers) + 1) if await exists(store, f"r{at}")]
            found = [path for run_id in stored for path in await versions_of(store, run_id, booking_child.STEPS)]
            assert sorted(found) == sorted(books.rows())
            ended = [run_id for run_id in stored if (await store.read(run_id)).status == "completed"]
        numbers = [number + 2 * (f"r{number}" in ended) for number in numbers]


@contextmanager
def started(folder: Path, number: int) -> Generator["subprocess.Popen[str]"]:
    """A process at work on a run, which it has opened the store for."""
    command = [sys.executable, "-m", "tests.support.booking_child", folder, f"r{number}"]
    with subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
        yield process


def spin(seconds: float) -> None:
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


# The buffer -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [True, False])
async def test_a_buffer_that_is_held_appends_nothing(waits: bool) -> None:
    """Whenever it is held, what is being appended then is waited for, and nothing more is until it is let go."""
    for turns in range(8):
        appended: list[Version] = []

        async def append(versions: Sequence[Version], appended: list[Version] = appended) -> None:
            await asyncio.sleep(0)
            appended += versions

        behind = Behind(append, lambda: 0, waits=waits)
        (version,) = counting("r", 1)
        async with anyio.create_task_group() as group:
            group.start_soon(behind.work)
            group.start_soon(behind.put, version)
            for _ in range(turns):
                await asyncio.sleep(0)
            await behind.hold()
            held = list(appended)
            assert held + behind.taken() in ([version], [])
            await anyio.wait_all_tasks_blocked()
            assert appended == held
            behind.let_go()
            await behind.drain()
            await anyio.wait_all_tasks_blocked()
            assert appended == [version]
            group.cancel_scope.cancel()


# Any order ------------------------------------------------------------------------------------------------------------


class Drawn(NamedTuple):
    """What a step of a lane does: with a transaction or without, and what goes wrong before it is done."""

    transacts: bool
    what: Literal["nothing", "its block", "its attempt", "once"]
    turns: int

    async def do(self, state: State, ctx: Ctx) -> None:
        if self.what == "once":
            await ctx.once("x", asyncio.sleep, 0)
        if self.what == "its block" and self.transacts:
            with suppress(ValueError):
                await fail_inside(state, ctx)
        if self.transacts:
            async with ctx.transaction() as connection:
                await book(connection, ctx.step)
                for _ in range(self.turns):
                    await asyncio.sleep(0)
        if self.what == "its attempt" and ctx.attempt == 1:
            raise ValueError


def drawn(lanes: list[list[Drawn]]) -> Flow:
    """A flow of such lanes."""
    bodies: list[Flow] = []
    for lane in lanes:
        body: Flow = fragment()
        for number, each in enumerate(lane):
            body = body.then(each.do, name=f"{each.transacts}{number}", retries=1)
        bodies.append(body)
    return new().parallel(bodies, name="p")


DRAWN = st.builds(
    Drawn, st.booleans(), st.sampled_from(["nothing", "its block", "its attempt", "once"]), st.integers(0, 3)
)


@given(
    lanes=st.lists(st.lists(DRAWN, min_size=1, max_size=3), min_size=1, max_size=4),
    durability=st.sampled_from(["sync", "async", "exit"]),
    at=st.integers(0, 12),
    how=st.sampled_from(HOWS),
)
@settings(max_examples=25, deadline=None)
async def test_what_is_booked_is_what_has_a_version(
    lanes: list[list[Drawn]], durability: Any, at: int, how: Any
) -> None:
    """Lanes of any steps, in a process that dies at any commit, and another one that goes on: each row once."""
    booked = [f"True{number}" for number in range(3)]
    flow = drawn(lanes)
    with TemporaryDirectory() as folder:
        books = SqliteBooks(Path(folder))
        async with books.store() as store:
            crashing = CrashingStore(store, at, how)
            with suppress(Crash, StoreFailed), anyio.fail_after(10):
                await flow.with_versioned_checkpoint(crashing, durability=durability).run({}, run_id="r")
            await crashing.die()
            if await exists(store, "r"):
                assert sorted(await versions_of(store, "r", booked)) == sorted(books.rows())
            with anyio.fail_after(10):
                await flow.with_versioned_checkpoint(store, durability=durability).run({}, run_id="r")
            rows = sorted(books.rows())
            assert sorted(await versions_of(store, "r", booked)) == rows
    steps = [(lane, number, each) for lane, of in enumerate(lanes) for number, each in enumerate(of)]
    assert rows == sorted(f"p[{lane}]/True{number}" for lane, number, each in steps if each.transacts)
