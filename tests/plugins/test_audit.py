"""Audit log: a line before and after whatever is done, none of them lost, none with a value of the state."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowneer_async import Context, FlowError
from flowneer_async.plugins import Audited, JsonLines, audit_log
from flowneer_async.testing import FakeWorld
from tests.support.interrupt import MOMENTS, WAYS, Cancel, Moment, at_once, cancelled_as_scope
from tests.support.plugged import State, flow, in_backend, nothing
from tests.support.talking import talking

SECRET = "hunter2"


def events(lines: list[Audited]) -> list[str]:
    return [f"{line.step} {line.attempt} {line.event}".strip() for line in lines]


async def test_all_that_is_done_has_a_line_before_it_and_one_after_it() -> None:
    """Who, what, when, and what came of it; every attempt."""
    lines, world = list[Audited](), FakeWorld(start=5_000)

    def charge(state: State, ctx: Context) -> None:
        world.move(1)
        if ctx.attempt == 1:
            raise OSError

    audited = flow().then(charge, retries=1)
    hooks = audit_log(lines.append, actor=lambda ctx: str(ctx.deps), now=world.now)
    await audited.add_hooks(hooks).run({}, run_id="r", deps="alice", world=world)
    assert lines == [
        Audited(5_000, "alice", "r", "", None, "begun"),
        Audited(5_000, "alice", "r", "charge", 1, "begun"),
        Audited(6_000, "alice", "r", "charge", 1, "failed", "OSError"),
        Audited(6_000, "alice", "r", "charge", 2, "begun"),
        Audited(7_000, "alice", "r", "charge", 2, "done"),
        Audited(7_000, "alice", "r", "", None, "completed"),
    ]


async def test_no_line_holds_a_value_of_the_state(tmp_path: Path) -> None:
    """An error is there with its type alone."""

    def charge(state: State) -> None:
        raise ValueError(state["password"])

    with JsonLines(tmp_path / "audit.jsonl") as log, pytest.raises(FlowError):
        await flow().then(charge).add_hooks(audit_log(log, actor="me")).run({"password": SECRET}, run_id="r")
    text = (tmp_path / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["event"], line["error"]) for line in lines] == [
        ("begun", None),
        ("begun", None),
        ("failed", "ValueError"),
        ("failed", None),
    ]
    assert SECRET not in text


class Slow:
    """A sink that waits in the middle of each line."""

    def __init__(self) -> None:
        self.begun, self.written = list[Audited](), list[Audited]()

    async def __call__(self, line: Audited) -> None:
        self.begun.append(line)
        for _ in range(2):
            await anyio.lowlevel.checkpoint()
        self.written.append(line)


async def hang_a_little(state: State) -> None:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


async def cancelled_at(point: int, cancel: Cancel, moment: Moment) -> bool:
    """A run that is cancelled there loses no line that was begun, and ends what it has begun."""
    sink = Slow()
    work = flow().then(hang_a_little).add_hooks(audit_log(sink)).run({})
    going_on = await cancel(work, range(point, point + 1), moment)
    assert sink.written == sink.begun
    told = events(sink.written)
    ended = {"hang_a_little 1 done", "hang_a_little 1 cancelled"}
    assert ("hang_a_little 1 begun" in told) == bool(ended & set(told))
    assert ("None begun" in told) == (told[-1:] in (["None cancelled"], ["None completed"]))
    return going_on


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
@pytest.mark.parametrize("cancel", WAYS, ids=lambda cancel: cancel.__name__)
async def test_a_cancelled_run_loses_no_line(cancel: Cancel, moment: Moment) -> None:
    """Wherever it is cancelled, in the middle of a line too, and however."""
    point = 0
    while await cancelled_at(point, cancel, moment):
        point += 1
    assert point > 3


def test_a_cancelled_run_loses_no_line_under_trio() -> None:
    async def main() -> None:
        point = 0
        while await cancelled_at(point, cancelled_as_scope, at_once):
            point += 1
        assert point > 3

    in_backend("trio", main)


async def test_a_step_that_cannot_be_written_down_is_not_called() -> None:
    """First the line, then the deed."""

    def full(line: Audited) -> None:
        if line.step:
            raise OSError("disk full")

    def charge(state: State) -> None:
        raise AssertionError("called")

    with pytest.raises(FlowError) as caught:
        await flow().then(charge).add_hooks(audit_log(full)).run({})
    assert isinstance(caught.value.cause, OSError)


async def test_a_line_that_cannot_be_written_hides_no_error() -> None:
    """What the step failed with comes out, and has a note of it."""

    def full(line: Audited) -> None:
        if line.event == "failed":
            raise OSError

    def charge(state: State) -> None:
        raise ValueError

    with pytest.raises(FlowError) as caught:
        await flow().then(charge).add_hooks(audit_log(full), ["charge"]).run({})
    assert isinstance(caught.value.cause, ValueError)
    assert caught.value.cause.__notes__ == ["the audit log has no line of this: its sink raised OSError"]


@pytest.mark.parametrize("fsync", [False, True])
async def test_a_file_is_appended_to(tmp_path: Path, fsync: bool) -> None:
    """What stands there stays, and nobody else may read it; a torn last line does not spoil the next one."""
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        with JsonLines(path, fsync=fsync) as log:
            await flow().then(nothing).add_hooks(audit_log(log)).run({}, run_id="r")
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 8
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text()[:-5])
    with JsonLines(path) as log:
        log(Audited(1, None, "r", "send", 1, "begun"))
    lines = path.read_text().splitlines()
    assert len(lines) == 9
    assert json.loads(lines[-1])["step"] == "send"


KILLED = """
import asyncio, sys
from flowneer_async import FlowBuilder
from flowneer_async.plugins import JsonLines, audit_log

async def charge(state):
    print("charging", flush=True)
    sys.stdin.readline()

with JsonLines(sys.argv[1]) as log:
    asyncio.run(FlowBuilder("flow").then(charge).add_hooks(audit_log(log)).run({}, run_id="r"))
"""


def test_a_killed_process_has_left_a_line_of_what_it_was_doing(tmp_path: Path) -> None:
    """That something was begun is known, even where nothing more ever is."""
    path = tmp_path / "audit.jsonl"
    with talking(KILLED, path) as process:
        assert process.hear() == "charging"
        process.process.kill()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["event"]) for line in lines] == [("", "begun"), ("charge", "begun")]


def test_a_line_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that processes may share the file."""
    import os

    writes = list[bytes]()
    write: Callable[..., Any] = os.write
    monkeypatch.setattr(os, "write", lambda file, text: writes.append(text) or write(file, text))
    with JsonLines(tmp_path / "audit.jsonl") as log:
        log(Audited(1, None, "r", "send" * 50_000, 1, "begun"))
    assert len(writes) == 1
