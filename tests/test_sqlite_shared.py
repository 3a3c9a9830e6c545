"""One file, used by several stores at once, in one process and in others."""

from pathlib import Path

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
