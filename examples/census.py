"""A census of a Python source tree: a long job that may be killed at any point, and goes on where it was.

    python examples/census.py                 the standard library of this Python, without its tests
    python examples/census.py DIR             another tree
    python examples/census.py --demo          starts a census, kills it, starts it again, checks the result

The files are counted in eight lanes: while one is counted, others are being stored. So Ctrl-C, `kill -9` or a power cut
costs the eight files that are under way at most, and no other is counted twice.

Its tables need `rich` (pip install rich).
"""

import argparse
import asyncio
import sys
import sysconfig
from collections.abc import Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path

from census_count import Census, LongFunction, OnFile, count_file, find_files, longest_of, new_census, printable, rank
from census_report import console_for, files, number, progress, report, say
from rich.console import Console

from flowneer_async import Context, FlowBuilder, FlowneerError, UnknownRun, reducers
from flowneer_stores import SqliteStore


async def count(census: Census, ctx: Context[OnFile]) -> None:
    """Count one file. The census is a draft of this lane's own: nobody else sees it before it is done."""
    count_file(census, str(ctx.item))
    ctx.deps()


def longest(_: object, lanes: Sequence[list[LongFunction]]) -> list[LongFunction]:
    """A reducer of our own. Any function will do that makes one value of those that the lanes have."""
    return longest_of(chain(*lanes))


# What becomes of a key that several lanes have changed.
NUMBERS = [key for key, value in new_census("").items() if value == 0]
REDUCERS = {
    **dict.fromkeys(NUMBERS, reducers.sum),
    "imported": reducers.append,
    "failures": reducers.append,
    "longest": longest,
}

# The whole job. What `find_files` finds is stored when the batch begins: whatever happens to the tree later, these are
# the files that are counted. When the last one is done, the reducers make one census of all the drafts.
FLOW = (
    FlowBuilder("census", Census)
    .batch(find_files, count, name="files", concurrency=8, reducer=REDUCERS)
    .then(rank)
)  # fmt: skip


async def census(root: str, db: str, console: Console) -> None:
    """Count, or go on counting, and show the result."""
    async with SqliteStore(db) as store:
        left = await files_left(store, root)
        say(console, opening(root, left))
        say(console, f"Stored in {db}, run {run_id(root)}.", "dim")
        with progress(console, len(find_files(new_census(root))) if left is None else left) as on_file:
            flow = FLOW.with_versioned_checkpoint(store)
            result = await flow.run(new_census(root), run_id=run_id(root), deps=on_file)
    console.print(report(result.state))
    now = result.state["files"] if left is None else left
    say(console, f"{files(now)} counted now, {number(result.state['files'] - now)} before.")


async def files_left(store: SqliteStore, root: str) -> int | None:
    """How many files a run over this tree would still count; None where there is no such run."""
    try:
        plan = await FLOW.with_versioned_checkpoint(store).plan_resume(run_id(root))
    except UnknownRun:
        return None
    return sum(path.endswith("/count") for path in plan.again)


def run_id(root: str) -> str:
    """One run for each tree: started again, it goes on."""
    return f"census-{sha256(root.encode()).hexdigest()[:12]}"


def opening(root: str, left: int | None) -> str:
    """What is about to happen."""
    match left:
        case None:
            return f"{root}: counting. Stop it at any point: started again, it goes on where it was."
        case 0:
            return f"{root} is counted already, this is the stored result. To count again, remove it."
        case _:
            return f"{root}: going on, {files(left)} left."


def tree(directory: str) -> str:
    """The folder to count, in full; raises ValueError."""
    root = printable(str(Path(directory).resolve()))
    if not Path(root).is_dir():
        raise ValueError(f"{directory}: no such directory")
    if not find_files(new_census(root)):
        raise ValueError(f"{directory}: no Python file in it")
    return root


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    about, _, more = (__doc__ or "").partition("\n\n")
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog=more, formatter_class=style, allow_abbrev=False)
    add, library = parser.add_argument, sysconfig.get_path("stdlib")
    add("directory", nargs="?", default=library, metavar="DIR", help="the tree to count (default: %(default)s)")
    add("--db", default="census.db", metavar="FILE", help="where the runs are stored (default: %(default)s)")
    add("--demo", action="store_true", help="show a crash; the database is a temporary one")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    options, console, errors = arguments(argv), console_for(sys.stdout), console_for(sys.stderr)
    try:
        root = tree(options.directory)
        if options.demo:
            from census_demo import demo  # here, for it needs SIGKILL, which not every system has

            return asyncio.run(demo(root, run_id(root), __file__, console))
        asyncio.run(census(root, options.db, console))
    except (ValueError, FlowneerError) as error:
        say(errors, f"census: {error}", "red")
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        say(errors, "Stopped. " + ("" if options.demo else "The same command goes on where it was."))
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
