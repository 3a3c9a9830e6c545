"""Times as people give them, in Unix ms."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

from datetime import datetime, timedelta

from flowneer_async.errors import BadOption
from flowneer_async.policy import EPOCH

_LONGEST = 1e11  # seconds: some three thousand years


def after(option: str, span: timedelta | float, now: int) -> int:
    """The time so long after `now`; raises BadOption, which names the option."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST:
        raise BadOption(option, span, "it is a timedelta, or a number of seconds, of 0 or more")
    return now + round(seconds * 1000)


def wake_of(delay: timedelta | float | None, at: datetime | None, now: int) -> int | None:
    """When a run is to begin: None for at once; raises BadOption."""
    if delay is not None and at is not None:
        raise BadOption("at", at, "a run begins after a delay, or at a time: give one of the two")
    if delay is not None:
        return after("delay", delay, now)
    if at is None:
        return None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise BadOption("at", at, "it is a datetime with a time zone")
    return (at - EPOCH) // timedelta(milliseconds=1)
