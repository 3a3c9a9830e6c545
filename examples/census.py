"""A census of a Python source tree: a long job that may be killed at any point, and goes on where it was.

    python examples/census.py                 the standard library of this Python
    python examples/census.py DIR             another tree
    python examples/census.py --demo          starts a census, kills it, starts it again, checks the result

The job is a flow: one step finds the files, a hundred steps count a hundredth of them each, a last step ranks. After
every step the state is stored, so Ctrl-C, `kill -9` or a power cut costs at most the one step that was under way.

Its tables need `rich` (pip install rich).
"""

import argparse
import asyncio
import re
import shlex
import sys
import sysconfig
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from census_count import Census, OnFile, count_file, find_files, new_census, printable, python_files, rank
from census_report import console_for, files, number, progress, report, say
from census_store import Stored, stored_census
from rich.console import Console

from flowneer_async import Context, FlowBuilder, FlowneerError
from flowneer_stores import SqliteStore

SHARES = 100  # so a flow's steps do not depend on the tree, which may change between a crash and the next start
DATABASE = "census.db"


class Unusable(Exception):
    """There is nothing to count; the message says why."""


def census_flow() -> FlowBuilder[Census]:
    """The whole job. Every builder method returns a new flow."""
    flow = FlowBuilder("census", Census).start_with(find_files)
    for share in range(SHARES):
        flow = flow.then(count_share(share), name=f"share-{share:02}")
    return flow.then(rank)


def count_share(share: int) -> Callable[[Census, Context[OnFile]], Awaitable[None]]:
    """The step that counts one share of the files, in the order in which the first step has fixed them."""

    async def count(state: Census, ctx: Context[OnFile]) -> None:
        total = len(state["files"])
        for name in state["files"][share * total // SHARES : (share + 1) * total // SHARES]:
            count_file(state, name)
            ctx.deps(state["done"], total)
            await asyncio.sleep(0)  # here Ctrl-C gets its turn

    return count


async def census(root: str, db: str, fresh: bool, console: Console) -> None:
    """Count, or go on counting, and show the result."""
    async with SqliteStore(db) as store:
        run_id = await choose_run(store, root, fresh)
        stored = await stored_census(store, run_id)
        say(console, opening(root, stored))
        say(console, f"Stored in {db}, run {run_id}.", "dim")
        with progress(console, *stored.progress) as on_file:
            flow = census_flow().with_versioned_checkpoint(store)
            result = await flow.run(new_census(root), run_id=run_id, deps=on_file)
        console.print(report(result.state))
        say(console, closing(stored, result.state))


async def choose_run(store: SqliteStore, root: str, fresh: bool) -> str:
    """The newest run over this tree that the store has; with `fresh` the next one. Older ones are kept."""
    name, last = run_name(root), 0
    while (await stored_census(store, f"{name}-{last + 1}")).run:
        last += 1
    return f"{name}-{last + 1 if fresh or not last else last}"


def run_name(root: str) -> str:
    """One name per tree, interpreter and number of shares: of all these a run must see only one."""
    what = f"{root}\n{sys.version_info[:2]}\n{SHARES}"
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(root).name)[:40]
    return f"census-{readable}-{sha256(what.encode()).hexdigest()[:8]}"


def opening(root: str, stored: Stored) -> str:
    """What is about to happen."""
    done, total = stored.progress
    if stored.finished:
        return f"{root} is counted already, this is the stored result; --fresh counts it again."
    if total:
        return f"{root}: going on after file {number(done)} of {number(total)}."
    return f"{root}: counting. Stop it at any point: started again, it goes on where it was."


def closing(stored: Stored, census: Census) -> str:
    """What was done now, and what earlier."""
    done = stored.progress[0]
    if stored.finished or not done:
        return f"{files(census['done'])} counted."
    return f"{files(census['done'] - done)} counted now, {number(done)} before."


def arguments() -> argparse.ArgumentParser:
    about, _, more = (__doc__ or "").partition("\n\n")
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog=more, formatter_class=style, allow_abbrev=False)
    add, library = parser.add_argument, sysconfig.get_path("stdlib")
    add("directory", nargs="?", default=library, metavar="DIR", help="the tree to count (default: %(default)s)")
    add("--db", default=DATABASE, metavar="FILE", help="where the runs are stored (default: %(default)s)")
    add("--fresh", action="store_true", help="count again from the start; the older run is kept")
    add("--demo", action="store_true", help="show a crash; the database is a temporary one")
    return parser


def tree(directory: str) -> str:
    """The folder to count, in full; raises Unusable."""
    root = printable(str(Path(directory).resolve()))
    if not Path(root).is_dir():
        raise Unusable(f"{directory}: no such directory")
    if not any(python_files(root)):
        raise Unusable(f"{directory}: no Python file in it")
    return root


def run(options: argparse.Namespace) -> int:
    """Do what the command line says; the exit code."""
    root, console = tree(options.directory), console_for(sys.stdout)
    if options.demo:
        from census_demo import demo  # here, for it needs SIGKILL, which not every system has

        return asyncio.run(demo(root, f"{run_name(root)}-1", __file__, console))
    asyncio.run(census(root, options.db, options.fresh, console))
    return 0


def stopped(argv: list[str], demo: bool) -> str:
    """What to say after Ctrl-C: how to go on."""
    command = shlex.join(["python", sys.argv[0], *(word for word in argv if word != "--fresh")])
    return "Stopped." if demo else f"Stopped. This goes on where it was: {command}"


def main(argv: list[str]) -> int:
    options, errors = arguments().parse_args(argv), console_for(sys.stderr)
    try:
        return run(options)
    except Unusable as error:
        say(errors, f"census: {error}", "red")
        return 2
    except FlowneerError as error:
        say(errors, f"census: {error}", "red")
        return 1
    except KeyboardInterrupt:
        say(errors, stopped(argv, options.demo))
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
