"""The demo: a census is killed in the middle and started again, and its result compared with one counted in one go.

The census is the program that you would run yourself, in a process of its own, and the kill is `kill -9` from outside.
"""

import asyncio
import shlex
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryDirectory
from typing import cast

from census_count import Census, count_tree, find_files, new_census
from census_report import compared, number, progress, say
from rich.console import Console

from flowneer_async import UnknownRun
from flowneer_stores import SqliteStore

LOOK_EVERY = 0.01  # seconds


async def demo(root: str, run_id: str, script: str, console: Console) -> int:
    """Show it all; the exit code says whether there was a crash, and the two results were equal."""
    total = len(find_files(new_census(root)))
    with TemporaryDirectory(prefix="census-") as folder:
        db = str(Path(folder, "census.db"))
        command = (sys.executable, script, root, "--db", db)
        async with SqliteStore(db) as store:
            heading(console, "1. Start it")
            async with started(command, console) as process:
                await kill_half_way(process, store, run_id, total)
            if process.returncode != -SIGKILL:
                say(console, f"It ended with exit code {process.returncode}, before the kill came.", "red")
                return 1
            heading(console, "2. Killed with SIGKILL")
            say(console, f"{number(await versions(store, run_id))} versions are stored: about one for each file done.")
            heading(console, "3. Start it again, with the same command")
            async with started(command, console) as process:
                if code := await process.wait():
                    say(console, f"It ended with exit code {code}.", "red")
                    return 1
            last = await store.resolve(f"{run_id}@{await versions(store, run_id) - 1}")
    heading(console, "4. Count the same tree in one go, without a store, and compare")
    return compare(cast(Census, last.state), console)


async def kill_half_way(process: Process, store: SqliteStore, run_id: str, total: int) -> None:
    """Look into the store until half of the files are there, each a version, and kill the process."""
    while process.returncode is None and await versions(store, run_id) < total / 2:  # noqa: ASYNC110 - it has no event of ours
        await asyncio.sleep(LOOK_EVERY)
    if process.returncode is None:
        process.send_signal(SIGKILL)
    await process.wait()


async def versions(store: SqliteStore, run_id: str) -> int:
    """How many versions the run has."""
    try:
        return (await store.read(run_id)).head + 1
    except UnknownRun:
        return 0


@asynccontextmanager
async def started(command: Sequence[str], console: Console) -> AsyncGenerator[Process, None]:
    """The census in a process of its own, on this terminal; it does not outlive the block."""
    say(console, f"$ {shlex.join(('python', *command[1:]))}", "bold")
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True)  # Ctrl-C is for us
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if process.returncode and console.is_terminal:
            console.print()  # a progress bar that is killed leaves its line unfinished, and the cursor hidden
            console.show_cursor()


def heading(console: Console, text: str) -> None:
    console.print()
    say(console, text, "bold cyan")


def compare(after: Census, console: Console) -> int:
    """Count in one go and compare, every field of the two results; the exit code."""
    with progress(console, after["files"]) as on_file:
        whole = count_tree(after["root"], on_file)
    console.print(compared(after, whole))
    different = [key for key, value in whole.items() if value != after.get(key)]
    if different:
        say(console, f"NOT EQUAL: {', '.join(different)}", "bold red")
        return 1
    mark = "✓" if console.encoding.startswith("utf") else "OK:"
    say(console, f"{mark} Equal, in all {len(whole)} fields: the crash has left no trace.", "bold green")
    return 0
