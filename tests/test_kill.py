"""Real processes, killed with SIGKILL at random moments, over and over."""

import os
import random
import subprocess
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from time import perf_counter

import pytest

from flowneer_stores import SqliteStore
from tests.support.chains import stored_states
from tests.support.children import Effect, child, effects, run_child, undisturbed_states
from tests.support.kill_child import STEPS

RUN = "killed"


async def test_a_run_killed_over_and_over_loses_nothing(tmp_path: Path) -> None:
    """Killed some fifteen times, at its start, in its steps and while it recovers, a run ends as if undisturbed."""
    await kill_many(tmp_path, kills=15)


@pytest.mark.torture
async def test_runs_killed_two_hundred_times_lose_nothing(tmp_path: Path) -> None:
    """The same for two hundred kills, over as many runs as these last for."""
    await kill_many(tmp_path, kills=200)


async def kill_many(place: Path, kills: int) -> None:
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"KILL_SEED={seed}")  # shown where the test fails
    moments, number = random.Random(seed), 0
    while kills > 0:
        folder = place / str(number)
        folder.mkdir()
        kills -= kill_run(folder, moments, kills)
        check_ledger(effects(folder))
        await check_chain(folder)
        number += 1


def kill_run(folder: Path, moments: random.Random, most: int) -> int:
    """Work on one run, killed at most that often, to its end; how often it was."""
    for killed in range(most):
        with child(folder, RUN) as process:
            wait_for_moment(process, folder, moments)
            process.kill()
        if process.returncode == 0:
            return killed
    code, output = run_child(folder, RUN)
    assert (code, output.split()[-1]) == (0, f"{RUN}@{STEPS}")
    return most


def wait_for_moment(process: "subprocess.Popen[str]", folder: Path, moments: random.Random) -> None:
    """Until a random moment of the start, the opening, the recovery, or of the steps."""
    assert process.stdout is not None
    kind = moments.choice(("start", "imported", "opened", "steps", "steps", "steps"))
    if kind == "steps":
        wait_for_effects(process, folder, moments.randint(1, 9))
        spin(moments.uniform(0, 0.002))
        return
    while kind != "start" and process.stdout.readline().strip() not in (kind, ""):
        pass
    spin(moments.uniform(0, {"start": 0.3, "imported": 0.05, "opened": 0.005}[kind]))


def wait_for_effects(process: "subprocess.Popen[str]", folder: Path, more: int) -> None:
    expected = len(effects(folder)) + more
    while len(effects(folder)) < expected and process.poll() is None:
        pass


def spin(seconds: float) -> None:
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def check_ledger(told: Iterable[Effect]) -> None:
    """Each process went on where the one before it was, or at the step after; every key belongs to one step.

    A step begins when the version of the step before it was acknowledged: had one been lost, a later process would
    begin before the last step of an earlier one.
    """
    last = -1
    for _, group in groupby(told, key=lambda effect: effect.pid):
        done = list(group)
        assert done[0].step in (max(last, 0), last + 1)
        assert [effect.step for effect in done] == list(range(done[0].step, done[-1].step + 1))
        assert [effect.key for effect in done] == [f"{RUN}/step-{effect.step}" for effect in done]
        last = done[-1].step
    assert last == STEPS - 1


async def check_chain(folder: Path) -> None:
    async with SqliteStore(folder / "runs.db") as store:
        assert await stored_states(store, RUN) == await undisturbed_states()
        assert (await store.read(RUN)).status == "completed"
