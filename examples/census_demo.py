"""The demo: a census is killed in the middle and started again, and its result compared with one counted in one go.

The census is the program that you would run yourself, in a process of its own, and the kill is `kill -9` from outside.
What was done at the crash is read from the store.
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

from census_count import Census, count_tree
from census_report import crash_table, number, progress, say
from census_store import Stored, stored_census
from rich.console import Console

from flowneer_async import UnknownRun
from flowneer_stores import SqliteStore

KILL_AFTER = (0.5, 0.2, 0.05)  # of its steps; the later ones for a machine that was through before the kill came
LOOK_EVERY = 0.01  # seconds


async def demo(root: str, run_id: str, script: str, console: Console) -> int:
    """Show it all; the exit code says whether there was a crash, and the two results were equal."""
    for part in KILL_AFTER:
        with TemporaryDirectory(prefix="census-") as folder:
            db = str(Path(folder, "census.db"))
            command = (sys.executable, script, root, "--db", db)
            async with SqliteStore(db) as store:
                code = await crash(command, store, run_id, part, console)
                before = await stored_census(store, run_id)
                if code == -SIGKILL and not before.finished:
                    return await go_on(command, store, before, console)
        if code not in (0, -SIGKILL):
            return failed(code, console)
        say(console, "It was through before the kill came. Once more, with an earlier kill.", "yellow")
    say(console, "No crash, so nothing is shown: this tree is too small. Try a larger one.", "red")
    return 1


async def crash(command: Sequence[str], store: SqliteStore, run_id: str, part: float, console: Console) -> int:
    """Start the census, and kill it as soon as this part of its steps is stored; how it ended."""
    heading(console, "1. Start it")
    async with started(command, console) as process:
        await watch(process, store, run_id, part)
        if process.returncode is None:
            process.send_signal(SIGKILL)
        return await process.wait()


async def watch(process: Process, store: SqliteStore, run_id: str, part: float) -> None:
    """Look into the store until this part of the steps is there, or the process has ended."""
    while process.returncode is None and not await passed(store, run_id, part):  # noqa: ASYNC110 - it has no event of ours
        await asyncio.sleep(LOOK_EVERY)


async def passed(store: SqliteStore, run_id: str, part: float) -> bool:
    """Has the run stored this part of its steps?"""
    try:
        run = await store.read(run_id)
    except UnknownRun:
        return False
    return run.head >= len(run.steps) * part


async def go_on(command: Sequence[str], store: SqliteStore, before: Stored, console: Console) -> int:
    """After the crash: say what is in the store, start again, compare with a census in one go."""
    heading(console, "2. Killed with SIGKILL. What the store has of it:")
    say(console, survived(before))
    heading(console, "3. Start it again, with the same command")
    async with started(command, console) as process:
        if code := await process.wait():
            return failed(code, console)
    after = await stored_census(store, before.run_id)
    heading(console, "4. Count the same tree in one go, without a store, and compare")
    return compare(before.census, after.census, console)


def failed(code: int, console: Console) -> int:
    say(console, f"The census ended with exit code {code}.", "red")
    return 1


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


def survived(stored: Stored) -> str:
    done, total = stored.progress
    return (
        f"{stored.steps_done} of {stored.steps} steps: {number(done)} of {number(total)} files, "
        f"{number(stored.census['lines'])} lines, {number(stored.census['functions'])} functions.\n"
        "The step that was under way left nothing behind: it will be done again as a whole."
    )


def compare(before: Census, after: Census, console: Console) -> int:
    """Count in one go and compare, every field of the two results; the exit code."""
    with progress(console, 0, after["done"]) as on_file:
        whole = count_tree(after["root"], on_file)
    console.print(crash_table(before, after, whole))
    different = [key for key, value in whole.items() if value != after.get(key)]
    if different:
        say(console, f"NOT EQUAL: {', '.join(different)}", "bold red")
        return 1
    say(console, f"{mark(console)} Equal, in all {len(whole)} fields: the crash has left no trace.", "bold green")
    return 0


def mark(console: Console) -> str:
    return "✓" if console.encoding.startswith("utf") else "OK:"
