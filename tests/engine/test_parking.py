"""A run that kills its process again and again is parked; progress counts, and so does whoever resumes it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowneer_async.engine import Engine
from flowneer_async.errors import NotCompleted
from tests.engine import engine_child
from tests.engine.engine_child import RECOVERIES, poisoned
from tests.support.children import ENVIRONMENT
from tests.support.places import KINDS, place_of, store_at

every_kind = pytest.mark.parametrize("kind", KINDS)


def run_child(folder: Path, place: tuple[str, ...]) -> int:
    """The exit code of a process that works on the run until one of the two is over."""
    program = [sys.executable, Path(engine_child.__file__), "poison", str(folder), *place]
    return subprocess.run(program, env=ENVIRONMENT, stdout=subprocess.DEVNULL, timeout=60).returncode


@every_kind
async def test_a_run_that_kills_every_process_is_parked_with_its_reason_and_resumed_when_it_is_repaired(
    kind: str, tmp_path: Path
) -> None:
    place = place_of(kind, tmp_path)
    (tmp_path / "poison").touch()
    for _ in range(RECOVERIES + 1):
        assert run_child(tmp_path, place) == -signal.SIGKILL
    async with store_at(*place) as store:
        flows = [poisoned()]
        async with Engine(store, flows, deps=tmp_path, max_recoveries=RECOVERIES) as engine:
            handle = await engine.handle("p")
            with pytest.raises(NotCompleted, match="is parked") as parked:
                await handle.result()
            assert f"died {RECOVERIES + 1} times" in (parked.value.reason or "")
            assert (tmp_path / "ledger").read_text().count("poison") == RECOVERIES + 1
            (tmp_path / "poison").unlink()
            await handle.resume()
            assert (await handle.result()).status == "completed"
            assert (await handle.run()).recoveries == 0


@every_kind
async def test_a_run_that_gets_on_in_every_process_is_not_parked_however_many_die(kind: str, tmp_path: Path) -> None:
    place = place_of(kind, tmp_path)
    (tmp_path / "frail").touch()
    deaths = 2 * RECOVERIES + 1
    assert [run_child(tmp_path, place) for _ in range(deaths + 1)] == [3] * deaths + [0]
    async with store_at(*place) as store:
        assert (await store.read("p")).status == "completed"
