"""Transactions of steps in PostgreSQL: what can be done on the connection that a step is lent, and how it is lost."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

from flowneer_async import BadTransaction, Fenced, FlowBuilder, StoreBusy, StoreFailed, TransactionalStore
from flowneer_async.testing.chains import owned
from flowneer_stores.postgres.transaction import PostgresTransaction
from tests.support.books import Ctx, PostgresBooks, State, book, booking, failure_of, versions_of

Flow = FlowBuilder[State]
Do = Callable[[Any], Awaitable[object]]


@pytest.fixture
def books(tmp_path: Path) -> PostgresBooks:
    return PostgresBooks(tmp_path)


@pytest.fixture
async def store(books: PostgresBooks) -> AsyncGenerator[TransactionalStore, None]:
    async with books.store(timeout=5) as store:
        yield store


def with_connection(do: Do, **options: Any) -> Flow:
    """A step that books, and does something else to its connection."""

    async def step(state: State, ctx: Ctx) -> None:
        async with ctx.transaction(asyncpg.Connection) as connection:
            await book(connection, ctx.step)
            await do(connection)

    return Flow("flow").then(step, name="a", **options)


async def commit_and_begin(connection: Any) -> None:
    await connection.execute("ROLLBACK; BEGIN")


async def pass_over(connection: Any) -> None:
    with pytest.raises(asyncpg.PostgresError):
        await connection.execute("SELECT 1 / 0")


ENDING: dict[str, Do] = {
    "ROLLBACK": lambda connection: connection.execute("ROLLBACK"),
    "ROLLBACK and BEGIN": commit_and_begin,
    "a statement that failed": pass_over,
    "close": lambda connection: connection.close(),
    "terminate": lambda connection: connection.execute("SELECT pg_terminate_backend(pg_backend_pid())"),
}


@pytest.mark.parametrize("how", ENDING)
async def test_a_transaction_that_was_ended_by_hand(how: str, books: PostgresBooks, store: TransactionalStore) -> None:
    """It is noticed behind the block: the step fails, and has no version."""
    error = await failure_of(with_connection(ENDING[how]), store)
    assert isinstance(error, asyncpg.PostgresError if how == "terminate" else BadTransaction)
    assert (books.rows(), await versions_of(store, "r")) == ([], [])
    await Flow("flow").then(booking, name="a").with_versioned_checkpoint(store).run({}, run_id="r")
    assert (books.rows(), await versions_of(store, "r")) == (["a"], ["a"])


async def test_a_transaction_that_is_ended_behind_its_block(books: PostgresBooks, store: TransactionalStore) -> None:
    """It is noticed when it is to be committed: then the run ends, and the step is done anew."""
    kept: list[Any] = []

    async def step(state: State, ctx: Ctx) -> None:
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)
        kept.append(connection)
        if len(kept) == 1:
            await kept[0].execute("ROLLBACK; BEGIN")

    flow = Flow("flow").then(step, name="a").with_versioned_checkpoint(store)
    with pytest.raises(StoreFailed, match="ended on its connection"):
        await flow.run({}, run_id="r")
    assert (books.rows(), await versions_of(store, "r")) == ([], [])
    await flow.run({}, run_id="r")
    assert (books.rows(), await versions_of(store, "r")) == (["a"], ["a"])


def keep_in(kept: list[Any]) -> Do:
    async def keep(connection: Any) -> None:
        kept.append(connection)

    return keep


async def test_transactions_inside(books: PostgresBooks, store: TransactionalStore) -> None:
    """asyncpg's own are savepoints in it: a part can be taken back."""

    async def part(connection: Any) -> None:
        async with connection.transaction():
            await book(connection, "kept")
        with suppress(ValueError):
            async with connection.transaction():
                await book(connection, "taken back")
                raise ValueError

    await with_connection(part).with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == ["a", "kept"]


async def test_a_connection_that_outlives_its_step(books: PostgresBooks, store: TransactionalStore) -> None:
    """The handle is void: what a task does that was left behind reaches no later transaction."""
    kept: list[Any] = []

    async def use(state: State, ctx: Ctx) -> None:
        async with ctx.transaction():
            with pytest.raises(asyncpg.InterfaceError, match="released"):
                await book(kept[0], "late")

    await with_connection(keep_in(kept)).then(use).with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == ["a"]


async def test_the_settings_of_one_step_are_not_those_of_the_next(
    books: PostgresBooks, store: TransactionalStore
) -> None:
    """A connection comes back as it was."""
    seen: list[str] = []

    async def change(connection: Any) -> None:
        seen.append(await connection.fetchval("SHOW work_mem"))
        await connection.execute("SET work_mem = '77MB'")

    flow = with_connection(change).with_versioned_checkpoint(store)
    for number in range(3):
        await flow.run({}, run_id=f"r{number}")
    assert len(set(seen)) == 1


async def test_behind_a_pgbouncer(books: PostgresBooks) -> None:
    """Nothing of a session is relied on there."""
    async with books.store(pgbouncer=True) as store:
        await Flow("flow").then(booking, name="a").with_versioned_checkpoint(store).run({}, run_id="r")
        assert (books.rows(), await versions_of(store, "r")) == (["a"], ["a"])


async def test_so_many_at_a_time(books: PostgresBooks) -> None:
    """Of a store with one connection for them, the second waits, and is told that the store is busy."""
    async with books.store(transactions=1, timeout=0.3) as store:
        first = await store.begin()
        with pytest.raises(StoreBusy):
            await store.begin()
        second = asyncio.ensure_future(store.begin())
        await first.rollback()
        await (await second).rollback()


async def test_runs_side_by_side(books: PostgresBooks) -> None:
    """Steps of several runs have their transactions at the same time."""
    inside, all_in = 0, anyio.Event()

    async def together(state: State, ctx: Ctx) -> None:
        nonlocal inside
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)
            inside += 1
            if inside == 4:
                all_in.set()
            await all_in.wait()

    async with books.store(transactions=4) as store:
        flow = Flow("flow").then(together).with_versioned_checkpoint(store)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(flow.run, {})
    assert len(books.rows()) == 4


async def test_an_owner_that_is_fenced_in_its_block(books: PostgresBooks, store: TransactionalStore) -> None:
    """Another process takes the run over while the transaction is open: it can, and nothing of it is stored."""

    async def overtaken(connection: Any) -> None:
        books.take_over("r")

    with pytest.raises(Fenced):
        await with_connection(overtaken).with_versioned_checkpoint(store).run({}, run_id="r")
    assert (books.rows(), await versions_of(store, "r")) == ([], [])


async def test_a_connection_that_is_lost(books: PostgresBooks, store: TransactionalStore) -> None:
    """The step fails; its retry has another connection, and books once."""
    times = 0

    async def lose(connection: Any) -> None:
        nonlocal times
        times += 1
        if times == 1:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    await with_connection(lose, retries=1).with_versioned_checkpoint(store).run({}, run_id="r")
    assert (times, books.rows()) == (2, ["a"])


@pytest.mark.parametrize("stored", [True, False])
async def test_a_commit_whose_answer_is_lost(
    stored: bool, books: PostgresBooks, store: TransactionalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The versions themselves say whether it was done: the run goes on, or ends and is taken up again."""
    commit, lost = PostgresTransaction._commit, 0

    async def commit_and_lose(transaction: PostgresTransaction) -> None:
        nonlocal lost
        within, lost = transaction._within, lost + 1
        assert within is not None
        if lost == 1:

            class Losing:
                async def commit(self) -> None:
                    if stored:
                        await within.commit()
                    transaction.connection.terminate()
                    raise ConnectionResetError

            transaction._within = Losing()  # type: ignore[assignment]
        await commit(transaction)

    monkeypatch.setattr(PostgresTransaction, "_commit", commit_and_lose)
    flow = Flow("flow").then(booking, name="a").then(booking, name="b").with_versioned_checkpoint(store)
    if not stored:
        with pytest.raises(Exception, match="committing failed"):
            await flow.run({}, run_id="r")
        assert books.rows() == await versions_of(store, "r") == []
    await flow.run({}, run_id="r")
    assert books.rows() == await versions_of(store, "r") == ["a", "b"]


async def test_an_owner_that_freezes_in_its_commit(books: PostgresBooks) -> None:
    """The server ends the transaction after the time of a lease: then others can take the run over."""
    async with books.store(lease=0.3) as store:
        run = await owned(store)
        frozen = await store.begin()
        await book(frozen.connection, "frozen")
        await frozen.append(run.lease, run.versions[1:2])
        books.take_over("run")  # waits for the lock of the row
        with pytest.raises(Fenced):
            await frozen.commit()
        assert (books.rows(), len(await store.versions("run"))) == ([], 1)


async def test_a_store_that_is_closed_meanwhile(books: PostgresBooks) -> None:
    """What is open is rolled back."""
    async with books.store() as store:
        transaction = await store.begin()
        await book(transaction.connection, "a")
    assert not await transaction.is_open()
    assert books.rows() == []
