"""Logging: one line for what happens, and no value of the state in it."""

import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from flowneer_async import Context, FlowError
from flowneer_async.plugins import log_lines
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.plugged import State, flow, nothing

SECRET = "hunter2"


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """All that is logged while the test goes on."""
    records, logger = list[logging.LogRecord](), logging.getLogger("flowneer_async")
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def written(lines: list[logging.LogRecord]) -> list[str]:
    return [f"{line.levelname} {line.getMessage()}" for line in lines]


async def test_a_run_that_completes_says_so_line_by_line(lines: list[logging.LogRecord]) -> None:
    await flow().then(nothing).add_hooks(log_lines()).run({}, run_id="r")
    assert written(lines) == ["INFO run r begins", "DEBUG run r: step nothing is done", "INFO run r is completed"]


async def test_a_retry_is_one_line_that_names_the_error_before_it(lines: list[logging.LogRecord]) -> None:
    """And not the attempt that fails: whether there is another one is not known then."""

    async def charge(state: State, ctx: Context) -> None:
        if ctx.attempt < 3:
            raise OSError(SECRET)

    await flow().then(charge, retries=2).add_hooks(log_lines()).run({}, run_id="r", world=FakeWorld())
    assert written(lines)[1:-1] == [
        "WARNING run r: step charge is tried again, attempt 2, after OSError",
        "WARNING run r: step charge is tried again, attempt 3, after OSError",
        "DEBUG run r: step charge is done",
    ]


async def test_a_failure_is_a_line_for_the_step_and_one_for_the_run(lines: list[logging.LogRecord]) -> None:
    async def charge(state: State) -> None:
        raise ValueError(state["password"])

    with pytest.raises(FlowError):
        await flow().then(charge).add_hooks(log_lines()).run({"password": SECRET}, run_id="r")
    assert written(lines)[1:] == ["ERROR run r: step charge failed with ValueError", "ERROR run r is failed"]


async def test_a_cancelled_run_is_a_warning(lines: list[logging.LogRecord]) -> None:
    with anyio.CancelScope() as scope:

        async def hang(state: State) -> None:
            scope.cancel()
            await anyio.sleep_forever()

        await flow().then(hang).add_hooks(log_lines()).run({}, run_id="r")
    assert written(lines) == ["INFO run r begins", "WARNING run r is cancelled"]


async def test_no_line_holds_a_value_of_the_state(lines: list[logging.LogRecord]) -> None:
    """Neither its text, nor anything that the record carries for whoever writes structured logs."""

    async def charge(state: State) -> None:
        raise ValueError(state["password"])

    with pytest.raises(FlowError):
        await flow().then(charge, retries=1).add_hooks(log_lines()).run({"password": SECRET}, world=FakeWorld())
    assert len(lines) == 4
    assert SECRET not in "".join(f"{line.getMessage()} {vars(line)}" for line in lines)


async def test_lines_have_their_facts_as_attributes(lines: list[logging.LogRecord]) -> None:
    async def charge(state: State, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise OSError

    await flow().then(charge, retries=1).add_hooks(log_lines()).run({}, run_id="r", world=FakeWorld())
    facts = [{name: value for name, value in vars(line).items() if name.startswith("flow_")} for line in lines]
    assert facts == [
        {"flow_run": "r"},
        {"flow_run": "r", "flow_step": "charge", "flow_attempt": 2, "flow_error": "OSError"},
        {"flow_run": "r", "flow_step": "charge"},
        {"flow_run": "r", "flow_status": "completed"},
    ]


async def test_an_application_whose_records_have_a_run_id_already_is_no_trouble() -> None:
    """Logging refuses an `extra` that the record has already: it must not make steps fail."""

    class Own(logging.Logger):
        def makeRecord(self, *args: Any, **more: Any) -> logging.LogRecord:
            before = logging.getLogRecordFactory()
            logging.setLogRecordFactory(self._factory)
            try:
                return super().makeRecord(*args, **more)
            finally:
                logging.setLogRecordFactory(before)

        @staticmethod
        def _factory(*args: Any, **more: Any) -> logging.LogRecord:
            record = logging.LogRecord(*args, **more)
            record.run_id = record.step = record.attempt = record.error = record.status = "theirs"
            return record

    await flow().then(nothing).add_hooks(log_lines(Own("own", logging.DEBUG))).run({})


async def test_a_run_whose_store_fails_is_put_down_and_not_over(lines: list[logging.LogRecord]) -> None:
    """It is for somebody else to go on with."""

    class Broken(MemoryStore):
        async def append(self, *args: Any, **more: Any) -> Any:
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        await flow().then(nothing).with_versioned_checkpoint(Broken()).add_hooks(log_lines()).run({}, run_id="r")
    assert written(lines)[-1] == "INFO run r is put down"
