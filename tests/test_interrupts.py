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
        loop.call_later(turns / 20_000, signal.raise_signal, signal.SIGINT)
        await asyncio.Event().wait()

    async with SqliteStore(sys.argv[1]) as store:
        await FlowBuilder("f").start_with(interrupt).with_versioned_checkpoint(store).run({}, run_id=f"run-{turns}")

for turns in range(100):
    try:
        asyncio.run(main(turns))
    except (KeyboardInterrupt, asyncio.CancelledError, FlowneerError):
        pass
others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
for thread in others:
    thread.join(5)
print([thread.name for thread in others if thread.is_alive()])
"""


def test_a_second_interrupt_leaves_no_thread_that_keeps_the_process(tmp_path: Path) -> None:
    """Whenever it comes while the first one ends the run and closes the store, the process ends by itself."""
    root = Path(__file__).parent.parent
    child = [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / "runs.db")]
    paths = {"PYTHONPATH": f"{root}:{root / 'stores'}"}
    done = subprocess.run(child, env=paths, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
