"""When a schedule comes: the times, and which of them are to be started now. All pure."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from flowneer_async.errors import BadOption, ExtraMissing
from flowneer_async.policy import EPOCH

Missed: TypeAlias = Literal["skip", "last", "all"]
"""What becomes of the times that were missed: none is started, only the last of them, or all of them in order."""

MOST = 1_000
"""So many times are started in one look; the others in the next ones."""

_SECOND = timedelta(seconds=1)
_LONGEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Cron:
    """The times of a cron expression: minute, hour, day of the month, month, day of the week.

    A sixth field in front counts seconds. Where either field of days begins with a star both must match, else one of
    them. `zone` is a name of the IANA database. Needs the extra `schedule`. Raises BadOption, ExtraMissing.

    Where the clocks change, five fields of which neither minute nor hour begins with a star are a time of the day, as
    in Debian's cron: one that is left out comes at the end of the gap, once for all that were in it, and one that is
    there twice comes the first time only. All other expressions go by the clock on the wall: what is left out does not
    come, and what is there twice comes twice. (Where clocks change at midnight or by half an hour, as in Beirut and on
    Lord Howe Island, cronsim may leave out some of the latter in the first hours after a change.)
    """

    expression: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        _zone_of(self.zone)
        if not isinstance(self.expression, str):
            raise BadOption("cron", self.expression, "it is a text of five fields, like '0 3 * * *'")
        try:
            comes = next(_cron_times(self.expression, EPOCH), None)
        except ValueError as error:
            raise BadOption("cron", self.expression, f"{error}: it is five fields, like '0 3 * * *'") from error
        if comes is None:
            raise BadOption("cron", self.expression, "there is no such day")

    @property
    def tz(self) -> ZoneInfo:
        """The zone whose clocks it goes by."""
        return _zone_of(self.zone)

    def after(self, moment: datetime) -> datetime:
        """The first time later than `moment`; both aware, the time in UTC."""
        # Of an hour that is there twice, cronsim takes the first one for the second.
        return next(time for time in _cron_times(self.expression, moment.astimezone(self.tz)) if time > moment)


@dataclass(frozen=True, slots=True)
class Every:
    """The multiples of `interval` counted from 1970-01-01 00:00 UTC, so that all processes agree on the times.

    It is a whole number of seconds, from one second to ten years. Raises BadOption.
    """

    interval: timedelta

    def __post_init__(self) -> None:
        span = self.interval
        if not (isinstance(span, timedelta) and _SECOND <= span <= _LONGEST and not span % _SECOND):
            raise BadOption("every", span, "it is a timedelta of whole seconds, from one second to ten years")

    @property
    def tz(self) -> ZoneInfo:
        """UTC, by which it goes."""
        return ZoneInfo("UTC")

    def after(self, moment: datetime) -> datetime:
        """The first time later than `moment`; both aware, the time in UTC."""
        return EPOCH + ((moment - EPOCH) // self.interval + 1) * self.interval


Times: TypeAlias = Cron | Every
"""Whole seconds, all of them: a run id has a time to the second."""


class Due(NamedTuple):
    """The times to be started now, in order, and the next time after them (it may be due as well, beyond `MOST`)."""

    times: list[datetime]
    next: datetime


def due(times: Times, last: datetime, now: datetime, missed: Missed, since: datetime) -> Due:
    """What is to be started at `now`, of the times later than `last`: the last one that was started.

    Those up to `since` were missed, and `missed` says what becomes of them; the later ones are all to be started. No
    more than MOST at once.
    """
    begin = _begin(times, last, missed, since)
    found = list(islice(_between(times, begin, now), MOST))
    return Due(found, times.after(found[-1] if found else begin))


def _begin(times: Times, last: datetime, missed: Missed, since: datetime) -> datetime:
    """The moment after which times are to be started."""
    if missed == "all" or since <= last:
        return last
    return since if missed == "skip" else _before_latest(times, last, since)


def _before_latest(times: Times, last: datetime, since: datetime) -> datetime:
    """A moment with only one time between it and `since`, the last one; or `last`, where there is none.

    Found by halving, for there may be millions of times in between.
    """
    seconds = range((since - last) // _SECOND + 1)
    first = bisect_left(seconds, True, key=lambda second: times.after(last + second * _SECOND) > since)
    return last + max(first - 1, 0) * _SECOND


def _between(times: Times, begin: datetime, end: datetime) -> Iterator[datetime]:
    time = times.after(begin)
    while time <= end:
        yield time
        time = times.after(time)


def _cron_times(expression: str, moment: datetime) -> Iterator[datetime]:
    """What cronsim gives for a moment and its zone, in UTC; raises ValueError where the expression is none."""
    try:
        from cronsim import CronSim, CronSimError
    except ModuleNotFoundError:
        raise ExtraMissing("Cron", "schedule") from None
    try:
        times = CronSim(expression, moment)
    except CronSimError as error:
        raise ValueError(str(error)) from error
    # Two times of one zone are compared by their clocks, which show some hours twice.
    return (time.astimezone(UTC) for time in times)


def _zone_of(zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(zone)
    except (KeyError, ValueError, TypeError, OSError) as error:
        rule = "it is a name of the IANA time zone database, like 'Europe/Berlin'"
        raise BadOption("zone", zone, rule) from error
