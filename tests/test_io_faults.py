"""Any one call to the system fails while a run is stored in SQLite: what comes of it is an error of ours, or nothing.

The calls are those that SQLite makes, failed by a preloaded library (`faulty_io.c`) in copies of a process
(`fault_child.py`). After each, the run is begun again with its id, in the same process and in a new one, and ends as if
nothing had been; what was acknowledged is stored.
"""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import pytest

import flowneer_async
from flowneer_async import StoreError
from tests.support import fault_child
from tests.support.fault_child import Case, Outcome
from tests.support.faulty_io import compiled, environment

ANY = "ORWSTLMU"
CHANGING = "OWSTU"
KILLED = -1
FOR_EVER = 10**9


class Played(NamedTuple):
    case: Case
    outcome: Outcome


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("library"))


def play(library: Path, scratch: Path, cases: Sequence[Case]) -> list[Played]:
    """Let a process play these cases."""
    (scratch / "files").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, fault_child.__file__, scratch],
        env=environment(library, scratch / "files"),
        input="".join(json.dumps(asdict(case)) + "\n" for case in cases),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    outcomes = [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]
    return [Played(*pair) for pair in zip(cases, outcomes, strict=True)]


def every_case(library: Path, scratch: Path) -> list[Case]:
    """Each call fails once, in a new run, in one that goes on and in several; so does each with all that follow, until
    somebody is told; and the process is killed in each, and in the middle of each write."""
    kinds = [
        Case(ANY, error=errno.EIO),
        Case(CHANGING, error=errno.ENOSPC),
        Case(CHANGING, error=KILLED),
        Case("W", error=errno.ENOSPC, half_write=True),
        Case("W", error=KILLED, half_write=True),
        Case(CHANGING, error=errno.EIO, calls=FOR_EVER),
    ]
    several = [replace(case, kinds=CHANGING, runs=("r", "s", "t")) for case in kinds[:2]]
    kinds += [*(replace(case, half=True) for case in kinds), *several]
    counted = play(library, scratch / "counting", [Case(case.kinds, half=case.half) for case in kinds])
    # Two threads are at work, so the number of calls is not always the same.
    most = [played.outcome.calls + 5 for played in counted]
    return [replace(case, call=call + 1) for case, calls in zip(kinds, most, strict=True) for call in range(calls)]


def check(played: Iterable[Played]) -> None:
    """Nothing that should not be; errors of the store alone, and no second one once nothing fails any more."""
    seen: set[str] = set()
    killed = 0
    for case, outcome in played:
        assert not outcome.wrong, case
        assert outcome.killed == 0 or (outcome.killed, case.error) == (9, KILLED), case
        assert len(outcome.errors) <= 1 + (case.calls > 1), (case, outcome)
        assert all(issubclass(getattr(flowneer_async, name), StoreError) for name in outcome.errors), outcome.errors
        seen.update(outcome.errors)
        killed += outcome.killed > 0
    assert {"StoreFailed", "StoreFull"} <= seen
    assert killed


def test_a_call_that_fails_is_an_error_of_ours_or_nothing(library: Path, tmp_path: Path) -> None:
    """Some thirty calls, of all that there are, fail or kill the process: the run ends as it should, and is whole."""
    cases = every_case(library, tmp_path)
    check(play(library, tmp_path / "played", cases[:: len(cases) // 30]))


@pytest.mark.torture
def test_every_call_that_fails_is_an_error_of_ours_or_nothing(library: Path, tmp_path: Path) -> None:
    """The same for each."""
    cases, parts = every_case(library, tmp_path), os.cpu_count() or 1
    with ThreadPoolExecutor(parts) as pool:
        work = [pool.submit(play, library, tmp_path / str(part), cases[part::parts]) for part in range(parts)]
        check([played for part in work for played in part.result()])
