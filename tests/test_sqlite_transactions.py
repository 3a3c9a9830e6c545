"""Transactions of steps in SQLite: what can be done on the connection that a step is lent, and the turns they take."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import aiosqlite
import anyio
import pytest

from flowneer_async import BadTransaction, FlowBuilder, StoreBusy, TransactionalStore
from flowneer_stores import SqliteStore
from flowneer_stores.sqlite.turns import Turns
from tests.support.books import Ctx, SqliteBooks, State, book, booking, failure_of, versions_of
from tests.support.interrupt import Stepped

Flow = FlowBuilder[State]


@pytest.fixture
def books(tmp_path: Path) -> SqliteBooks:
    return SqliteBooks(tmp_path)


@pytest.fixture
async def store(books: SqliteBooks) -> AsyncGenerator[TransactionalStore, None]:
    async with books.store() as store:
        yield store


# The connection -------------------------------------------------------------------------------------------------------


def with_connection(do: Callable[[aiosqlite.Connection], Awaitable[object]]) -> Flow:
    """A step that books, and does something else to a SQLite connection."""

    async def step(state: State, ctx: Ctx) -> None:
        async with ctx.transaction(aiosqlite.Connection) as connection:
            await book(connection, ctx.step)
            state["did"] = str(await do(connection))

    return Flow("flow").then(step, name="a")


ENDING: dict[str, Callable[[aiosqlite.Connection], Awaitable[object]]] = {
    "commit": lambda db: db.commit(),
    "rollback": lambda db: db.rollback(),
    "COMMIT": lambda db: db.execute("COMMIT"),
    "end": lambda db: db.execute("  end transaction"),
    "ROLLBACK": lambda db: db.execute("ROLLBACK"),
    "script": lambda db: db.executescript("INSERT INTO booked (step) VALUES ('script')"),
    "close": lambda db: db.close(),
}


@pytest.mark.parametrize("how", ENDING)
async def test_nobody_ends_the_transaction_by_hand(how: str, tmp_path: Path) -> None:
    """Whatever would commit the rows without the version is refused; what was done is rolled back."""
    books = SqliteBooks(tmp_path)
    async with books.store() as store:
        error = await failure_of(with_connection(ENDING[how]), store)
        assert isinstance(error, BadTransaction if how == "close" else sqlite3.ProgrammingError)
        assert (books.rows(), await versions_of(store, "r")) == ([], [])


@pytest.mark.parametrize("how", [how for how in ENDING if how != "close"])
async def test_a_refusal_that_is_passed_over_ends_nothing(how: str, tmp_path: Path) -> None:
    """The transaction goes on as if it had not been tried."""

    async def tried(db: aiosqlite.Connection) -> None:
        with pytest.raises(sqlite3.ProgrammingError):
            await ENDING[how](db)

    books = SqliteBooks(tmp_path)
    async with books.store() as store:
        await with_connection(tried).with_versioned_checkpoint(store).run({}, run_id="r")
        assert (books.rows(), await versions_of(store, "r")) == (["a"], ["a"])


async def test_no_statement_is_done_without_a_transaction(tmp_path: Path) -> None:
    """SQLite itself may end it, ON CONFLICT ROLLBACK: what comes then would be committed by itself."""

    async def conflict(db: aiosqlite.Connection) -> None:
        await db.execute("CREATE UNIQUE INDEX one ON booked (step)")
        with pytest.raises(sqlite3.IntegrityError):
            await db.execute("INSERT OR ROLLBACK INTO booked (step) VALUES ('a')")
        for do in (db.execute, db.execute_fetchall, db.execute_insert):
            with pytest.raises(sqlite3.ProgrammingError, match="no transaction any more"):
                await do("INSERT INTO booked (step) VALUES ('b')")
        with pytest.raises(sqlite3.ProgrammingError, match="no transaction any more"):
            await db.executemany("INSERT INTO booked (step) VALUES (?)", [("b",)])

    books = SqliteBooks(tmp_path)
    async with books.store() as store:
        assert isinstance(await failure_of(with_connection(conflict), store), BadTransaction)
        assert books.rows() == []


async def test_a_statement_that_is_not_at_its_end(tmp_path: Path) -> None:
    """INSERT … RETURNING, of which not all rows were fetched, does not keep the transaction from its end."""
    kept: list[aiosqlite.Cursor] = []

    async def returning(db: aiosqlite.Connection) -> object:
        kept.append(await db.execute("INSERT INTO booked (step) VALUES ('b'), ('c') RETURNING step"))
        return await kept[-1].fetchone()

    async def failing(db: aiosqlite.Connection) -> None:
        kept.append(await db.execute("SELECT step FROM booked"))
        raise ValueError

    books = SqliteBooks(tmp_path)
    async with books.store(timeout=0.2) as store:
        await with_connection(returning).with_versioned_checkpoint(store).run({}, run_id="r")
        assert isinstance(await failure_of(with_connection(failing), store, "other"), ValueError)
        await with_connection(returning).with_versioned_checkpoint(store).run({}, run_id="third")
    assert books.rows() == ["a", "b", "c"] * 2


async def test_savepoints_and_tables(tmp_path: Path) -> None:
    """All else can be done: a part taken back, a table made."""

    async def part(db: aiosqlite.Connection) -> None:
        await db.execute("CREATE TABLE more (x)")
        await db.execute("SAVEPOINT part")
        await book(db, "taken back")
        await db.execute("ROLLBACK TO part")
        await db.execute("RELEASE part")
        db.row_factory = sqlite3.Row

    books = SqliteBooks(tmp_path)
    async with books.store() as store:
        await with_connection(part).with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == ["a"]


async def test_a_connection_that_outlives_its_step(tmp_path: Path) -> None:
    """It is closed: what a task does that was left behind reaches no later transaction."""
    kept: list[aiosqlite.Connection] = []

    async def keep(db: aiosqlite.Connection) -> None:
        kept.append(db)

    async def use(state: State, ctx: Ctx) -> None:
        async with ctx.transaction():
            with pytest.raises(ValueError, match="connection"):
                await book(kept[0], "late")

    books = SqliteBooks(tmp_path)
    async with books.store() as store:
        await with_connection(keep).then(use).with_versioned_checkpoint(store).run({}, run_id="r")
    assert books.rows() == ["a"]


# Turns ----------------------------------------------------------------------------------------------------------------


async def test_turns_come_in_their_order() -> None:
    """Who came first is first; who gives up is passed over, and one that was called as it gave up calls the next."""
    turns, came = Turns("here", 60), list[int]()

    async def wait(number: int) -> None:
        await turns.take()
        came.append(number)

    await turns.take()
    tasks = [asyncio.ensure_future(wait(number)) for number in range(5)]
    await anyio.wait_all_tasks_blocked()
    tasks[1].cancel()
    turns.leave()
    tasks[0].cancel()  # its turn has come, and it has not gone on yet
    for task in tasks[2:]:
        await task
        turns.leave()
    assert came == [2, 3, 4]
    await turns.take()
    turns.leave()


async def test_whoever_sees_nobody_leave_gives_up() -> None:
    """The limit is for one that does not leave, and not for many before one."""
    turns = Turns("here", 0.2)
    await turns.take()
    waiting = asyncio.ensure_future(turns.take())
    with pytest.raises(StoreBusy):
        await turns.take()
    with pytest.raises(StoreBusy):
        await waiting
    turns.leave()
    await turns.take()


async def test_a_step_that_keeps_its_transaction(books: SqliteBooks) -> None:
    """The others are told that the store is busy; its retries let a step try again."""
    opened, over = anyio.Event(), anyio.Event()

    async def slow(state: State, ctx: Ctx) -> None:
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)
            opened.set()
            await over.wait()

    async with books.store(timeout=0.1) as store, books.store(timeout=0.1) as other, anyio.create_task_group() as group:
        group.start_soon(lambda: Flow("slow").then(slow).with_versioned_checkpoint(store).run({}))
        await opened.wait()
        for each in (store, other):  # one in the process of the step, and one in another
            with pytest.raises(StoreBusy):
                await each.begin()
        over.set()
    assert books.rows() == ["slow"]


async def test_a_store_that_is_closed_meanwhile(books: SqliteBooks) -> None:
    """What is open is rolled back, and its thread ends with the store."""
    threads = threading.active_count()
    async with books.store() as store:
        transaction = await store.begin()
        await book(transaction.connection, "a")
    assert not await transaction.is_open()
    assert books.rows() == []
    with anyio.fail_after(4):
        while threading.active_count() > threads:
            await asyncio.sleep(0)


class Thrown(Exception):
    """A coroutine is given up where it waits."""


async def test_a_step_that_is_thrown_away(books: SqliteBooks) -> None:
    """A coroutine that is closed in its block can await nothing any more: the store ends the transaction."""
    is_open = False

    async def step(state: State, ctx: Ctx) -> None:
        nonlocal is_open
        async with ctx.transaction() as connection:
            await book(connection, ctx.step)
            is_open = True
            await anyio.sleep_forever()

    def throw(waited_for: object) -> None:
        if is_open:
            raise Thrown

    async with books.store() as store:
        running = Flow("flow").then(step).with_versioned_checkpoint(store).run({}, run_id="r")
        with pytest.raises(Thrown):
            await Stepped(running, range(10**6), throw).run()
        running.close()
    assert books.rows() == []


async def test_two_processes(books: SqliteBooks) -> None:
    """Steps of two stores on one file take turns at its lock."""
    flow = Flow("flow")
    for number in range(10):
        flow = flow.then(booking, name=f"a{number}")
    async with books.store() as one, SqliteStore(books.folder / "runs.db") as other, anyio.create_task_group() as group:
        group.start_soon(lambda: flow.with_versioned_checkpoint(one).run({}, run_id="one"))
        group.start_soon(lambda: flow.with_versioned_checkpoint(other).run({}, run_id="other"))
    assert sorted(books.rows()) == sorted(2 * [f"a{number}" for number in range(10)])
