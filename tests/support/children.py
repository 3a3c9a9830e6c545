"""Starting `kill_child.py`, and reading what it left."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from flowneer_stores import MemoryStore
from tests.support.chains import stored_states
from tests.support.kill_child import Nothing, fifty_steps, start

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "stores")))}


class Effect(NamedTuple):
    step: int
    key: str
    pid: int


def child(folder: Path, run_id: str, *more: str) -> "subprocess.Popen[str]":
    """A new process at work on the run."""
    command = [sys.executable, Path(__file__).with_name("kill_child.py"), folder, run_id, *more]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def run_child(folder: Path, run_id: str, *more: str) -> tuple[int, str]:
    """The exit code and the output of a process that nobody disturbs."""
    with child(folder, run_id, *more) as process:
        output, _ = process.communicate(timeout=60)
    return process.returncode, output


def effects(folder: Path) -> list[Effect]:
    """Every effect that the world was told, in order."""
    path = folder / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return [Effect(int(step), key, int(pid)) for step, key, pid in map(str.split, lines)]


async def undisturbed_states() -> list[dict[str, object]]:
    """The state at every version of a run that nobody disturbs."""
    store = MemoryStore()
    await fifty_steps().with_versioned_checkpoint(store).run(start(), run_id="r", deps=Nothing())
    return await stored_states(store, "r")
