"""Processes that are told to end: the engine hears it at once, whoever else hears it too."""

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from flowneer_async.engine import Engine
from flowneer_async.engine.hearing import hearing
from flowneer_stores import MemoryStore, SqliteStore
from tests.engine import engine_child
from tests.engine.engine_child import hanging
from tests.support.children import ENVIRONMENT
from tests.support.engine_life import owned

SIGNALS = (signal.SIGTERM, signal.SIGINT)
every_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


def application() -> Any:
    """As much of one as a lifespan needs."""
    return SimpleNamespace(state=SimpleNamespace())


def told_to_end(mode: str, folder: Path, number: signal.Signals) -> tuple[int, list[str]]:
    """The exit code of a process that was told so when its run had begun, and what it said then."""
    program = [sys.executable, Path(engine_child.__file__), mode, str(folder), str(folder / "runs.db")]
    with subprocess.Popen(program, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    return process.returncode, said.splitlines()


@every_signal
async def test_a_process_that_serves_puts_its_runs_down_and_ends(number: signal.Signals, tmp_path: Path) -> None:
    assert told_to_end("serve", tmp_path, number) == (0, ["left"])
    async with SqliteStore(tmp_path / "runs.db") as store:
        assert await owned(store) == 0
        run = await store.read("h")
        assert (run.status, run.head) == ("waiting", 0)
        assert run.wake is not None


@every_signal
async def test_a_lifespan_stops_its_engine_tells_the_handler_before_it_and_gives_its_place_back(
    number: signal.Signals, tmp_path: Path
) -> None:
    assert told_to_end("lifespan", tmp_path, number) == (0, [f"mine {number.name}", "stopping True", "restored True"])
    async with SqliteStore(tmp_path / "runs.db") as store:
        assert await owned(store) == 0
        assert (await store.read("h")).status == "waiting"


async def test_a_lifespan_opens_and_closes_the_store_and_works_in_another_one(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    engine, app = Engine(store, [hanging()]), application()
    async with engine.lifespan(app):
        assert app.state.engine is engine
        assert not engine.is_stopping
        assert (await engine.health()).is_ok
    assert engine.is_stopping
    assert store._opened is None


def test_outside_of_the_main_thread_a_lifespan_works_and_hears_nothing() -> None:
    before, seen = [signal.getsignal(number) for number in SIGNALS], list[object]()

    async def live() -> None:
        async with Engine(MemoryStore()).lifespan(application()):
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    thread.join()
    assert seen == before


def test_of_two_who_hear_both_are_told_and_each_gives_its_place_back() -> None:
    told = list[str]()

    def first(number: int, frame: FrameType | None) -> None:
        told.append("first")

    before = signal.signal(signal.SIGTERM, first)
    try:
        with hearing(lambda: told.append("outer")), hearing(lambda: told.append("inner")):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert told == ["inner", "outer", "first", "first"]
        assert signal.getsignal(signal.SIGTERM) is first
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_was_set_meanwhile_stays() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with hearing(lambda: None):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is before[1]
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_without_another_handler_the_interrupt_of_the_keyboard_is_raised_as_ever() -> None:
    before, told = signal.signal(signal.SIGINT, signal.default_int_handler), list[str]()
    try:
        with pytest.raises(KeyboardInterrupt), hearing(lambda: told.append("told")):
            signal.raise_signal(signal.SIGINT)
        assert told == ["told"]
    finally:
        signal.signal(signal.SIGINT, before)
