"""One file, used by several stores at once, in one process and in others."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

from flowneer_async import Run, Signal
from flowneer_stores import SqliteStore
from tests.support.counting import counts
from tests.support.talking import talking

READ = """
import asyncio, sys
from flowneer_stores import SqliteStore

async def main(path, *run_ids):
    async with SqliteStore(path) as store:
        for run_id in run_ids:
            print((await store.resolve(f"{run_id}@3")).state)

asyncio.run(main(*sys.argv[1:]))
"""


# Sends as many signals as it is told, one after the other, once it is told to go on.
SEND = """
import asyncio, sys
from flowneer_stores import SqliteStore

async def main(path, run_id, name, number):
    async with SqliteStore(path) as store:
        print(len(await store.signals(run_id)), flush=True)
        sys.stdin.readline()
        for _ in range(int(number)):
            await store.send(run_id, name, name.encode())
        print("sent", flush=True)
        sys.stdin.readline()
        print(len(await store.signals(run_id)), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def found_elsewhere(path: Path, *run_ids: str) -> bool:
    """Does another process, that opens and closes the file, find these runs finished?"""
    with talking(READ, path, *run_ids) as process:
        return [process.hear() for _ in run_ids] == ["{'n': 3}"] * len(run_ids) and process.end() == 0


async def test_a_second_store_of_a_process_costs_the_first_nothing(tmp_path: Path) -> None:
    """A file that one process has opened twice keeps its locks: another that closes it takes nothing away."""
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as first:
        await counts(first, "before")
        async with SqliteStore(path) as second:
            assert found_elsewhere(path, "before")
            await counts(first, "first")
            await counts(second, "second")
            assert found_elsewhere(path, "first", "second")
        await counts(first, "last")
        assert found_elsewhere(path, "first", "second", "last")


async def test_two_stores_on_one_file_see_each_others_runs(tmp_path: Path) -> None:
    """What one store has finished, another in the same process finds finished."""
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as first, SqliteStore(path) as second:
        await counts(first, "r")
        await counts(second, "r")
        assert len(await second.versions("r")) == 4


async def test_two_stores_on_one_file_see_each_others_signals(tmp_path: Path) -> None:
    """Whichever of them owns the run, a signal is there for both as soon as it is sent."""
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as first, SqliteStore(path) as second:
        await first.create(Run("r", "counting", "dict", ()))
        sent: list[Signal] = []
        for store in (first, second, second, first):
            sent.append(await store.send("r", "go", b"1"))
            assert list(await first.signals("r")) == list(await second.signals("r")) == sent
        both = await asyncio.gather(*(store.send("r", "go", b"2") for store in (first, second) * 10))
        assert sorted(signal.number for signal in both) == list(range(5, 25))
        assert list(await second.signals("r"))[4:] == sorted(both, key=lambda signal: signal.number)


async def test_processes_that_send_at_once_lose_nothing(tmp_path: Path) -> None:
    """Signals of several processes to one run, whose owner is another, are all kept, and all see them."""
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as owner:
        await owner.create(Run("r", "counting", "dict", ()))
        await owner.send("r", "first", b"1")
        with ExitStack() as stack:
            senders = [stack.enter_context(talking(SEND, path, "r", name, 20)) for name in "ab"]
            assert [sender.hear() for sender in senders] == ["1"] * 2
            for sender in senders:
                sender.tell()
            assert [sender.hear() for sender in senders] == ["sent"] * 2
            for sender in senders:
                sender.tell()
            assert [sender.hear() for sender in senders] == ["41"] * 2
            assert [sender.end() for sender in senders] == [0] * 2
        kept = await owner.signals("r")
        assert [signal.number for signal in kept] == list(range(1, 42))
        assert sorted(signal.name for signal in kept) == ["a"] * 20 + ["b"] * 20 + ["first"]
