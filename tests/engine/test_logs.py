"""Lines of logs on what an engine does: one wording with the plugin, facts for machines, no value of the state."""

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from flowneer_async import Context, FlowBuilder, FlowError, Run
from flowneer_async.errors import Fenced
from flowneer_async.events import RunFailed, RunWaiting
from flowneer_async.observing import JsonFormatter, LogLines
from tests.support.observed import Hand, State, heard

SECRET = "hunter2"
RUN = Run("r", "report", "dict", (), recoveries=2)


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    with heard() as records:
        yield records


def report() -> FlowBuilder[State]:
    return FlowBuilder[State]("report")


async def nothing(state: State) -> None: ...


async def ask(state: State, ctx: Context[Any]) -> None:
    state["answer"] = await ctx.interrupt("?")


def written(lines: list[logging.LogRecord]) -> list[str]:
    return [f"{line.levelname} {line.getMessage()}" for line in lines]


def facts(line: logging.LogRecord) -> dict[str, Any]:
    return {name.removeprefix("flow_"): fact for name, fact in vars(line).items() if name.startswith("flow_")}


# Lines ----------------------------------------------------------------------------------------------------------------


async def test_the_life_of_a_run_is_written_line_by_line(lines: list[logging.LogRecord]) -> None:
    hand = Hand(LogLines(), report().then(ask))
    await hand.work({})
    await hand.work(answer=1)
    assert written(lines) == [
        "INFO run r is accepted",
        "INFO run r begins",
        "INFO run r is waiting",
        "INFO run r goes on",
        "DEBUG run r: step ask is done",
        "INFO run r is completed",
    ]


def test_a_run_goes_on_unless_it_was_made_just_now_or_had_not_begun(lines: list[logging.LogRecord]) -> None:
    made, queued, slept = replace(RUN, begun=1), replace(RUN, head=0), replace(RUN, begun=1, head=0)
    for run in (made, queued, slept):
        with LogLines().execution(run):
            pass
    assert written(lines)[::2] == ["INFO run r begins", "INFO run r begins", "INFO run r goes on"]


async def test_a_failure_is_a_line_for_the_step_and_one_for_the_run_which_names_the_error(
    lines: list[logging.LogRecord],
) -> None:
    async def charge(state: State, ctx: Context[Any]) -> None:
        raise OSError(SECRET)

    with pytest.raises(FlowError):
        await Hand(LogLines(), report().then(charge, retries=1)).work({})
    assert written(lines)[2:] == [
        "WARNING run r: step charge is tried again, attempt 2, after OSError",
        "ERROR run r: step charge failed with OSError",
        "ERROR run r is failed with OSError",
    ]


def test_a_run_that_is_recovered_or_given_up_is_a_line(lines: list[logging.LogRecord]) -> None:
    told = LogLines()
    told.recovered(RUN)
    told.parked(RUN)
    told.ended(RUN, "failed", 3.5)
    assert written(lines) == [
        "WARNING run r is recovered, for its process is gone",
        "ERROR run r is given up, for its process has died 2 times in a row",
        "ERROR run r is failed",
    ]


def test_how_a_run_was_put_down_is_a_line_unless_it_has_ended(lines: list[logging.LogRecord]) -> None:
    told = LogLines()
    with told.execution(RUN):
        pass
    with told.execution(RUN) as tell:
        tell(RunWaiting(()))
    with told.execution(RUN) as tell:
        tell(RunFailed("r", Fenced("r")))
    with told.execution(RUN):
        told.ended(RUN, "cancelled", 1.0)
    assert written(lines)[1::2] == [
        "INFO run r is put down",
        "INFO run r is waiting",
        "WARNING run r is put down after Fenced",
        "WARNING run r is cancelled",
    ]


async def test_lines_have_their_facts_as_attributes_and_the_name_of_the_flow(lines: list[logging.LogRecord]) -> None:
    async def charge(state: State, ctx: Context[Any]) -> None:
        if ctx.attempt == 1:
            raise OSError

    await Hand(LogLines(), report().then(charge, retries=1)).work({})
    ids = {"run": "r", "name": "report"}
    assert [facts(line) for line in lines] == [
        ids,
        ids,
        {**ids, "step": "charge", "attempt": 2, "error": "OSError"},
        {**ids, "step": "charge"},
        {**ids, "status": "completed", "seconds": 2.0},
    ]


async def test_lines_go_to_the_logger_that_was_given() -> None:
    with heard() as ours, heard("mine") as theirs:
        await Hand(LogLines(logging.getLogger("mine")), report().then(nothing)).work({})
    assert (len(ours), len(theirs)) == (0, 4)


async def test_no_line_holds_a_value_of_the_state(lines: list[logging.LogRecord]) -> None:
    async def charge(state: State, ctx: Context[Any]) -> None:
        await ctx.emit(SECRET)
        if ctx.attempt == 1:
            raise OSError(state["password"])
        state[SECRET] = await ctx.interrupt(SECRET)
        raise ValueError(state["password"])

    told = LogLines()
    hand = Hand(told, report().then(charge, retries=2))
    hand.run = Run("r", "report", "dict", (), error=SECRET, key=SECRET, tags={"tenant": SECRET})
    await hand.work({"password": SECRET})
    with pytest.raises(FlowError):
        await hand.work(answer=SECRET)
    told.recovered(hand.run)
    told.parked(hand.run)
    with pytest.raises(OSError, match=SECRET), told.execution(hand.run):
        raise OSError(SECRET)
    assert len(lines) > 10
    assert SECRET not in "".join(f"{line.getMessage()} {vars(line)} {JsonFormatter().format(line)}" for line in lines)


# JSON -----------------------------------------------------------------------------------------------------------------


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("app", logging.WARNING, "app.py", 1, message, args, None)
    made.created = 1_700_000_000.1234
    vars(made).update(extra)
    return made


def read(made: logging.LogRecord) -> dict[str, Any]:
    """The record as a line of JSON, read again."""
    line = JsonFormatter().format(made)
    assert len(line.splitlines()) == 1
    return json.loads(line)


def test_a_record_is_one_line_of_json_with_the_facts_of_its_run() -> None:
    assert read(record("run %s\nis %s", "r", "lost", flow_run="r", flow_seconds=1.5, other="theirs")) == {
        "time": "2023-11-14T22:13:20.123+00:00",
        "level": "WARNING",
        "logger": "app",
        "message": "run r\nis lost",
        "flow_run": "r",
        "flow_seconds": 1.5,
    }


async def test_each_line_of_an_engine_can_be_written_as_json(lines: list[logging.LogRecord]) -> None:
    await Hand(LogLines(), report().then(nothing)).work({})
    assert [read(line) for line in lines][-1] | {"time": ""} == {
        "time": "",
        "level": "INFO",
        "logger": "flowneer_async",
        "message": "run r is completed",
        "flow_run": "r",
        "flow_name": "report",
        "flow_status": "completed",
        "flow_seconds": 2.0,
    }


def test_what_json_cannot_hold_does_not_lose_the_line() -> None:
    line = read(record("lone \ud800", flow_run="\udfff", flow_theirs=object(), flow_big=2**70))
    assert line["message"] == "lone \\ud800"
    assert (line["flow_run"], line["flow_theirs"], line["flow_big"]) == ("\\udfff", "object", "int")


def test_an_exception_of_the_application_is_within_the_line() -> None:
    made = record("broken")
    try:
        raise ValueError("theirs")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: theirs" in read(made)["exception"]
