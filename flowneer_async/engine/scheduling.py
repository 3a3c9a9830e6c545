"""Starts the runs of schedules, each time once, over however many processes."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Awaitable, Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from flowneer_async.defining import check_choice, check_name
from flowneer_async.engine.schedule import Missed, Times, due
from flowneer_async.errors import BadName, BadOption
from flowneer_async.policy import EPOCH
from flowneer_async.versions import check_run_id

TOLERANCE = timedelta(seconds=60)
"""A time is missed that nobody has looked for until so long after it: an engine is up to some seconds late."""

_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Flow `flow` is to be started at each of `times`.

    `state` is what each run begins with, or a function of the time that gives it; all have the `tags`.
    Raises BadName, BadOption.
    """

    name: str
    flow: str
    state: object
    times: Times
    missed: Missed = "skip"
    tags: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)

    def __post_init__(self) -> None:
        check_name("flow", self.flow)
        check_choice("missed", self.missed, Missed)
        try:
            check_run_id(isinstance(self.name, str) and self.run_id(EPOCH))
        except BadName:
            rule = "it is 1 to 111 letters, digits, '_', '.', ':' and '-', and begins with a letter or a digit"
            raise BadName("schedule", self.name, rule) from None

    def run_id(self, time: datetime) -> str:
        """The id of the run that is started for a time: in every process the same."""
        return f"{self.name}:{time.astimezone(UTC):%Y%m%dT%H%M%SZ}"

    def state_at(self, time: datetime) -> object:
        """What the run of a time begins with; a function is given the time in the zone of the schedule."""
        if callable(self.state):
            return self.state(time.astimezone(self.times.tz))
        # The steps of a run change the very object that they are given.
        return deepcopy(self.state)


@dataclass(slots=True)
class _Line:
    """How far a schedule has come."""

    schedule: Schedule
    done: datetime | None = None
    """The last time that was started; None before the first look."""
    next: datetime = EPOCH
    """The first time after it that is to be started, as far as is known."""


class Scheduler:
    """Looks which times have come, and has them started.

    `last` gives the time of the newest run of a schedule, None where there is none; it is asked once a schedule, and
    the rest is kept in memory. `start` accepts the run of a time; where the run is there already, it leaves it alone:
    so each time is started once, in whichever process. `began` is when this engine began, in Unix ms: a schedule
    without a run begins there. Raises BadOption where two schedules have one name.

    A time that came while looks were made is started however long that takes; the times before, and those that came
    while nobody looked (the machine slept), are missed, but for the last 60 s.
    """

    def __init__(
        self,
        schedules: Iterable[Schedule],
        *,
        last: Callable[[Schedule], Awaitable[datetime | None]],
        start: Callable[[Schedule, datetime], Awaitable[object]],
        began: int,
    ) -> None:
        self._lines = [_Line(schedule) for schedule in _checked(schedules)]
        self._last, self._start, self._began = last, start, _moment(began)
        self._since = self._began - TOLERANCE
        """The times up to it were missed."""
        self._next: int | None = began
        """When the next look is to be made, in Unix ms."""

    async def look(self, now: int) -> int | None:
        """Start what has come until `now`; gives when to look next, both in Unix ms (None: there are no schedules).

        It may be `now`, where there is more to start. Raises the first error that `last` or `start` raised, after the
        other schedules had their turn: the time is tried again in the next look. One look at a time.
        """
        self._note_gap(now)
        errors = [error for line in self._lines if (error := await self._turn(line, _moment(now)))]
        self._next = now if errors else min((max(now, _ms(line.next)) for line in self._lines), default=None)
        if errors:
            raise errors[0]
        return self._next

    def _note_gap(self, now: int) -> None:
        if self._next is not None and now - self._next > TOLERANCE // _MS:
            self._since = _moment(now) - TOLERANCE

    async def _turn(self, line: _Line, now: datetime) -> Exception | None:
        try:
            await self._go_on(line, now)
        except Exception as error:
            return error
        return None

    async def _go_on(self, line: _Line, now: datetime) -> None:
        schedule = line.schedule
        if line.done is None:
            line.done = await self._last(schedule) or self._began
            line.next = schedule.times.after(line.done)
        if line.next > now:
            return
        found = due(schedule.times, line.done, now, schedule.missed, self._since)
        for time in found.times:
            await self._start(schedule, time)
            line.done = time
        line.next = found.next


def _checked(schedules: Iterable[Schedule]) -> Iterable[Schedule]:
    by_name: dict[str, Schedule] = {}
    for schedule in schedules:
        if by_name.setdefault(schedule.name, schedule) is not schedule:
            raise BadOption("name", schedule.name, "another schedule has that name")
    return by_name.values()


def _moment(ms: int) -> datetime:
    return EPOCH + ms * _MS


def _ms(moment: datetime) -> int:
    return (moment - EPOCH) // _MS
