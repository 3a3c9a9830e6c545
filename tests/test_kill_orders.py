"""Real processes, killed with SIGKILL while their run waits, and while it is undone."""

import os
import random
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Literal

import pytest

from flowneer_async import Undone
from flowneer_stores import SqliteStore
from tests.support.children import ENVIRONMENT
from tests.support.kill_order import SIGNALS, STEPS, Ledger, undoing, waiting

RUN = "killed"
Which = Literal["waiting", "undoing"]


def child(folder: Path, which: Which) -> "subprocess.Popen[str]":
    """A new process at work on the run."""
    command = [sys.executable, Path(__file__).parent / "support" / "kill_order.py", folder, RUN, which]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def kill(folder: Path, which: Which, kills: int) -> None:
    """Work on one run, killed that often at random moments, to its end."""
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"KILL_SEED={seed}")  # shown where the test fails
    moments = random.Random(seed)
    for _ in range(kills):
        with child(folder, which) as process:
            assert process.stdout is not None
            while process.stdout.readline().strip() not in ("opened", ""):
                pass
            end = perf_counter() + moments.uniform(0, 0.03)
            while perf_counter() < end and process.poll() is None:
                pass
            process.kill()
        if process.returncode == 0:
            return
    with child(folder, which) as process:
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.split()[-1]) == (0, "done")


def effects(folder: Path) -> list[str]:
    """Every effect that the world was told, in order; one that a crash fell into is told twice in a row."""
    return [line.split()[0] for line in (folder / "ledger").read_text().splitlines()]


async def check_waiting(folder: Path) -> None:
    async with SqliteStore(folder / "runs.db") as store:
        result = await waiting().with_versioned_checkpoint(store).run(run_id=RUN)
        assert result.status == "completed"
        assert result.state == {"taken": list(range(SIGNALS)), "answer": "yes"}
        assert [signal.number for signal in await store.signals(RUN)] == list(range(1, SIGNALS + 1))
        paths = [version.path for version in await store.versions(RUN)]
    assert paths.count("lanes[1]/ask/@answer") == 1
    assert set(effects(folder)) == {"lanes[1]/ask/asked", "lanes[1]/ask"}


async def check_undoing(folder: Path) -> None:
    steps = [f"step-{number}" for number in range(STEPS)]
    lanes = ["lanes[0]/a", "lanes[0]/a2", "lanes[1]/b", "lanes[1]/b2"]
    async with SqliteStore(folder / "runs.db") as store:
        flow, before = undoing().with_versioned_checkpoint(store), await store.versions(RUN)
        with pytest.raises(Undone):
            await flow.run(run_id=RUN, deps=Ledger(folder / "ledger"))
        assert await store.versions(RUN) == before
        assert (await store.resolve(before[-1].id)).state == {}
        assert (await store.read(RUN)).status == "failed"
    told = effects(folder)
    done = [each for each in told if not each.endswith("/@undo")]
    undone = [each.removesuffix("/@undo") for each in told[len(done) :]]
    assert [each for each in dict.fromkeys(done) if each in steps] == steps
    assert sorted(set(done)) == sorted([*steps, *lanes])
    assert list(dict.fromkeys(undone)) == [*reversed(lanes), *reversed(steps)]


CHECKS = {"waiting": check_waiting, "undoing": check_undoing}


@pytest.mark.parametrize("which", ["waiting", "undoing"])
async def test_a_run_that_waits_or_is_undone_is_killed_over_and_over(which: Which, tmp_path: Path) -> None:
    """No signal is lost or used twice, no answer is asked for again; all is undone, in order, each step once."""
    kill(tmp_path, which, kills=3)
    await CHECKS[which](tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("which", ["waiting", "undoing"])
async def test_many_runs_that_wait_or_are_undone_are_killed_over_and_over(which: Which, tmp_path: Path) -> None:
    """The same for five runs of up to twenty kills each."""
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        kill(folder, which, kills=20)
        await CHECKS[which](folder)
