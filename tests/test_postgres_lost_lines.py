"""Lines to the server that break: every write is done once, whether the question was lost or only its answer."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from flowneer_async import Fenced, FlowBuilder, Lease, StoreBusy, StoreFailed, StoreUnreachable, VersionConflict
from flowneer_async.store import RunFilter
from flowneer_async.testing.chains import Owned, counting, new_run, owned
from flowneer_stores import PostgresStore
from tests.support.cut_line import Cut, Lines, lines_to_the_server
from tests.support.places import lapse
from tests.support.postgres import schema_of, server

CUTS: Sequence[Cut] = ("question", "answer")


@pytest.fixture
async def lines() -> AsyncGenerator[Lines, None]:
    async with lines_to_the_server() as lines:
        yield lines


def store_over(lines: Lines, folder: Path, **options: Any) -> PostgresStore:
    return PostgresStore(lines.dsn, schema=schema_of(folder), writers=1, **options)


async def created(store: PostgresStore, run: Owned) -> None:
    assert await store.create(new_run("new")) == Lease("new", 1)


async def started(store: PostgresStore, run: Owned) -> None:
    assert await store.create(new_run("new"), counting("new", 3)) == Lease("new", 1)


async def appended(store: PostgresStore, run: Owned) -> None:
    await run.append(1, 2)


async def appended_many(store: PostgresStore, run: Owned) -> None:
    await run.append(1, 5)


async def claimed(store: PostgresStore, run: Owned) -> None:
    free = await store.read("free")
    assert await store.claim(free) == Lease("free", free.epoch + 1)


async def released(store: PostgresStore, run: Owned) -> None:
    await store.release(run.lease, "failed", "why")


async def sent(store: PostgresStore, run: Owned) -> None:
    assert (await store.send("run", "go", b"1")).number == 2


async def queued(store: PostgresStore, run: Owned) -> None:
    new = replace(new_run("new"), status="waiting", wake=1, priority=7, key="key")
    assert await store.create(new, counting("new", 3)) is not None


async def asked(store: PostgresStore, run: Owned) -> None:
    assert await store.ask_cancel("run") is True


async def dropped(store: PostgresStore, run: Owned) -> None:
    assert await store.drop("free", 1) == 2


async def purged(store: PostgresStore, run: Owned) -> None:
    await store.purge("free")


WRITES: Sequence[Callable[[PostgresStore, Owned], Awaitable[None]]] = (
    created,
    started,
    appended,
    appended_many,
    claimed,
    released,
    sent,
    queued,
    asked,
    dropped,
    purged,
)


async def begun(store: PostgresStore) -> Owned:
    """A run that is owned, with a signal, and a free one with keyframes."""
    free = Owned(store, await lease_of(store, "free"), counting("free", 3, keyframes=(0, 1, 2)))
    await free.append(0, 3)
    await store.release(free.lease, "failed")
    run = await owned(store)
    await store.send("run", "first", b"0")
    return run


async def lease_of(store: PostgresStore, run_id: str) -> Lease:
    lease = await store.create(new_run(run_id))
    assert lease is not None
    return lease


async def all_there_is(store: PostgresStore) -> list[object]:
    """Everything that is stored, but for times and owners."""
    page = await store.find(RunFilter(), 100)
    return [
        (
            replace(run, updated=0, owner=run.owner and "somebody", wake=None if run.wake is None else 1),
            list(await store.versions(run.run_id)),
            [replace(signal, sent=0) for signal in await store.signals(run.run_id)],
        )
        for run in page.runs
    ]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("write", WRITES)
async def test_a_write_whose_line_is_cut_is_done_once(
    lines: Lines, tmp_path: Path, write: Callable[[PostgresStore, Owned], Awaitable[None]], cut: Cut
) -> None:
    """Wherever the line is cut: the caller hears what it would have heard, and what is stored is the same."""
    (tmp_path / "uncut").mkdir()
    async with store_over(lines, tmp_path / "uncut") as store:
        await write(store, await begun(store))
        expected = await all_there_is(store)
    after, cuts = 0, 0
    while True:
        async with store_over(lines, tmp_path / str(after)) as store:
            run = await begun(store)
            lines.cut(cut, after)
            await write(store, run)
            if lines.cuts == cuts:
                break  # there was nothing left to cut
            assert await all_there_is(store) == expected
        after, cuts = after + 1, lines.cuts
    assert after >= 1


@pytest.mark.parametrize("cut", CUTS)
async def test_writes_that_share_a_transaction_are_each_known_again(lines: Lines, tmp_path: Path, cut: Cut) -> None:
    """Of many appends whose answer is lost, those that were stored are done, and those that were refused are told."""
    async with store_over(lines, tmp_path) as store:
        runs = [await owned(store, f"run-{number}", length=4) for number in range(12)]
        await asyncio.gather(*(run.append(1, 2) for run in runs))
        await store.release(runs[3].lease, "failed")
        begins = [1 if number == 5 else 2 for number in range(12)]
        lines.cut(cut)
        done = await asyncio.gather(
            store.send("run-0", "go", b"1"),
            *(run.append(begin, 4) for run, begin in zip(runs, begins, strict=True)),
            return_exceptions=True,
        )
        expected: list[type] = [type(None)] * 12
        expected[3], expected[5] = Fenced, VersionConflict
        assert [type(each) for each in done[1:]] == expected
        assert lines.cuts == 1
        heads = [(await store.read(f"run-{number}")).head for number in range(12)]
        assert heads == [1 if number in (3, 5) else 3 for number in range(12)]
        assert len(await store.signals("run-0")) == 1


async def test_a_version_that_was_stored_before_a_take_over_is_not_acknowledged(lines: Lines, tmp_path: Path) -> None:
    """Whoever lost the answer, and the run as well by the time it asks again, is fenced."""
    direct = PostgresStore(server().dsn, schema=schema_of(tmp_path))
    async with store_over(lines, tmp_path) as store, direct as other:
        run = await owned(store)
        await run.append(1, 2)
        lines.cut("answer")
        lines.closed = True
        appending = asyncio.create_task(run.append(2, 3))
        while not lines.cuts:
            await asyncio.sleep(0)
        await lapse((server().dsn, schema_of(tmp_path)))
        taken = await other.claim(await other.read("run"))
        lines.closed = False
        with pytest.raises(Fenced):
            await appending
        await other.append(taken, run.versions[3:4])
        assert list(await other.versions("run")) == run.versions[:4]


def count(state: dict[str, Any]) -> None:
    state["n"] += 1


async def test_flows_go_on_when_the_server_ends_their_connections(tmp_path: Path) -> None:
    """However often it does: each version is there once, and no run is the worse for it."""
    flow: FlowBuilder[dict[str, Any]] = FlowBuilder("counting")
    for number in range(40):
        flow = flow.then(count, name=f"step-{number}")
    async with PostgresStore(server().dsn, schema=schema_of(tmp_path)) as store:
        stored = flow.with_versioned_checkpoint(store)
        runs = asyncio.gather(*(stored.run({"n": 0}, run_id=f"run-{number}") for number in range(20)))
        other = await asyncpg.connect(server().dsn)
        ended = 0
        while not runs.done():
            # There is some progress between any two times.
            if await other.fetchval(f"SELECT count(*) FROM {schema_of(tmp_path)}.flowneer_versions") >= 100 * ended:
                await other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flowneer'"
                )
                ended += 1
            await asyncio.sleep(0)
        await other.close()
        assert [result.state for result in await runs] == [{"n": 40}] * 20
        for number in range(20):
            assert [version.seq for version in await store.versions(f"run-{number}")] == list(range(41))
    assert ended > 3


async def test_reading_goes_on_over_another_line(lines: Lines, tmp_path: Path) -> None:
    """Whoever reads never hears of a line that was lost."""
    async with store_over(lines, tmp_path, readers=2) as store:
        run = await owned(store)
        for _ in range(3):
            assert list(await store.versions("run")) == run.versions[:1]
            lines.drop_all()


async def test_a_line_in_an_unknown_state_is_not_used_again(lines: Lines, tmp_path: Path) -> None:
    """After an error that is not the server's, the caller is told, and the next one is given another line."""
    async with store_over(lines, tmp_path, readers=1) as store:
        run = await owned(store)
        assert store._opened is not None
        (line,) = store._opened.reading._all
        await store.read("run")
        broken = line._connection

        class Broken:
            fetch = staticmethod(lambda *_, **__: 1 / 0)
            is_closed = staticmethod(lambda: False)
            terminate = broken.terminate if broken is not None else None

        line._connection = Broken()  # type: ignore[assignment]
        with pytest.raises(StoreFailed, match="ZeroDivisionError"):
            await store.read("run")
        assert list(await store.versions("run")) == run.versions[:1]


async def test_a_server_that_stays_away_is_named(lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time it is given the caller is told, but nothing of the DSN's user; the store works on afterwards."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        if seconds > 1:
            await asyncio.Event().wait()  # the heartbeat
        now += seconds
        await asyncio.sleep(0)

    monkeypatch.setattr("flowneer_stores.postgres.lines.time", SimpleNamespace(monotonic=lambda: now))
    async with store_over(lines, tmp_path, sleep=sleep) as store:
        run = await owned(store)
        lines.closed = True
        for use in (run.append(1, 2), store.read("run")):
            lines.drop_all()
            before = now
            with pytest.raises(StoreUnreachable) as caught:
                await use
            assert isinstance(caught.value, StoreBusy)
            assert "postgres@" not in str(caught.value)
            assert 29 < now - before < 31
        lines.closed = False
        await run.append(1, 2)
        assert list(await store.versions("run")) == run.versions[:2]


async def test_a_line_on_which_nothing_comes_any_more_is_given_up(lines: Lines, tmp_path: Path) -> None:
    """A server that neither answers nor is gone is waited for as long as any other one."""
    async with store_over(lines, tmp_path, timeout=1.0) as store:
        run = await owned(store)
        lines.silent = True
        with pytest.raises(StoreUnreachable):
            await run.append(1, 2)
        lines.silent = False
        await run.append(1, 2)
        assert list(await store.versions("run")) == run.versions[:2]
