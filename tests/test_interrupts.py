"""Ctrl-C, and Ctrl-C again before the first was dealt with."""

import subprocess
import sys
from pathlib import Path

CHILD = """
import asyncio, signal, sys, threading
from flowneer_async import FlowBuilder, FlowneerError
from flowneer_stores import SqliteStore

async def main(turns):
    loop = asyncio.get_running_loop()

    async def interrupt(state):
        signal.raise_signal(signal.SIGINT)
        later(turns * 10)
        await asyncio.Event().wait()

    def later(left):
        if left:
            loop.call_soon(later, left - 1)
        else:
            signal.raise_signal(signal.SIGINT)

    async with SqliteStore(sys.argv[1]) as store:
        await FlowBuilder("f").start_with(interrupt).with_versioned_checkpoint(store).run({}, run_id=f"run-{turns}")

for turns in range(40):
    try:
        asyncio.run(main(turns))
    except (KeyboardInterrupt, asyncio.CancelledError, FlowneerError):
        pass
print([thread.name for thread in threading.enumerate() if thread is not threading.main_thread()])
"""


def test_a_second_interrupt_leaves_no_thread_that_keeps_the_process(tmp_path: Path) -> None:
    """Whenever it comes while the first one ends the run and closes the store, the process ends by itself."""
    root = Path(__file__).parent.parent
    child = [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / "runs.db")]
    paths = {"PYTHONPATH": f"{root}:{root / 'stores'}"}
    done = subprocess.run(child, env=paths, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
