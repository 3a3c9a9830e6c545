import sys
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async.engine.schedule import EPOCH, MOST, Cron, Every, Missed, Times, due
from flowneer_async.errors import BadOption, ExtraMissing
from tests.support.trees import QUICK

SECOND = timedelta(seconds=1)
START = datetime(2026, 3, 28, 22, 59, 30, tzinfo=UTC)
CRONS = ["0 3 * * *", "30 2 * * *", "*/10 * * * *", "15,45 1-3 * * *", "0 * * * SUN", "*/20 2 * * *", "7 0 * * * *"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]
SWITCHES = [datetime(2026, *at, tzinfo=UTC) for at in ((3, 29, 1), (10, 25, 1), (3, 8, 7), (11, 1, 6))]

crons = st.builds(Cron, st.sampled_from(CRONS), st.sampled_from(ZONES))
intervals = st.builds(Every, st.integers(1, 100_000).map(lambda seconds: timedelta(seconds=seconds)))
every_times: st.SearchStrategy[Times] = crons | intervals
spans = st.integers(0, 20_000_000).map(lambda ms: timedelta(milliseconds=ms))
moments = st.builds(lambda switch, span: switch - timedelta(hours=4) + span, st.sampled_from(SWITCHES), spans)
choices: st.SearchStrategy[Missed] = st.sampled_from(["skip", "last", "all"])


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def upcoming(times: Times, moment: str, count: int) -> list[str]:
    found, at = [], utc(moment)
    for _ in range(count):
        at = times.after(at)
        found.append(f"{at:%m-%dT%H:%M}")
    return found


def between(times: Times, begin: datetime, end: datetime) -> list[datetime]:
    found, time = [], times.after(begin)
    while time <= end:
        found.append(time)
        time = times.after(time)
    return found


def test_a_time_of_the_day_that_the_clocks_leave_out_comes_at_the_end_of_the_gap() -> None:
    berlin, new_york = Cron("30 2 * * *", "Europe/Berlin"), Cron("30 2 * * *", "America/New_York")
    assert upcoming(berlin, "2026-03-28T00:00", 3) == ["03-28T01:30", "03-29T01:00", "03-30T00:30"]
    assert upcoming(new_york, "2026-03-07T00:00", 3) == ["03-07T07:30", "03-08T07:00", "03-09T06:30"]


def test_several_times_of_the_day_in_one_gap_come_once() -> None:
    assert upcoming(Cron("0,15,30 2 * * *", "Europe/Berlin"), "2026-03-29T00:00", 2) == ["03-29T01:00", "03-30T00:00"]
    assert upcoming(Cron("0 2,3 * * *", "Europe/Berlin"), "2026-03-29T00:00", 2) == ["03-29T01:00", "03-30T00:00"]


def test_a_time_of_the_day_that_is_there_twice_comes_the_first_time_only() -> None:
    berlin, new_york = Cron("30 2 * * *", "Europe/Berlin"), Cron("30 1 * * *", "America/New_York")
    assert upcoming(berlin, "2026-10-24T12:00", 2) == ["10-25T00:30", "10-26T01:30"]
    assert upcoming(new_york, "2026-10-31T12:00", 2) == ["11-01T05:30", "11-02T06:30"]
    assert upcoming(berlin, "2026-10-25T01:10", 1) == ["10-26T01:30"]  # asked in the second of the two hours
    assert upcoming(new_york, "2026-11-01T06:10", 1) == ["11-02T06:30"]


def test_a_time_by_the_clock_on_the_wall_that_is_left_out_does_not_come() -> None:
    assert upcoming(Cron("*/30 2 * * *", "Europe/Berlin"), "2026-03-28T12:00", 2) == ["03-30T00:00", "03-30T00:30"]
    assert upcoming(Cron("*/30 2 * * *", "America/New_York"), "2026-03-07T12:00", 1) == ["03-09T06:00"]
    assert upcoming(Cron("0 30 2 * * *", "Europe/Berlin"), "2026-03-28T12:00", 1) == ["03-30T00:30"]  # with seconds


def test_a_time_by_the_clock_on_the_wall_that_is_there_twice_comes_twice() -> None:
    assert upcoming(Cron("*/30 2 * * *", "Europe/Berlin"), "2026-10-24T12:00", 4) == [
        "10-25T00:00", "10-25T00:30", "10-25T01:00", "10-25T01:30",
    ]  # fmt: skip
    assert upcoming(Cron("*/30 1 * * *", "America/New_York"), "2026-10-31T12:00", 4) == [
        "11-01T05:00", "11-01T05:30", "11-01T06:00", "11-01T06:30",
    ]  # fmt: skip
    assert upcoming(Cron("0 30 2 * * *", "Europe/Berlin"), "2026-10-24T12:00", 2) == ["10-25T00:30", "10-25T01:30"]


def test_an_hourly_time_comes_every_hour_whatever_the_clocks_do() -> None:
    for switch in SWITCHES:
        for zone in ("Europe/Berlin", "America/New_York"):
            found = between(Cron("0 * * * *", zone), switch - 5 * SECOND, switch + timedelta(hours=5))
            assert found == [switch + timedelta(hours=hour) for hour in range(6)]


@QUICK
@given(every_times, moments, st.integers(0, 100))
def test_the_next_time_is_a_whole_second_later_than_the_moment_and_the_same_until_it_comes(
    times: Times, moment: datetime, percent: int
) -> None:
    time = times.after(moment)
    assert time > moment
    assert time.utcoffset() == timedelta(0)
    assert time.microsecond == 0
    meanwhile = moment + (time - moment) * percent / 100
    assert meanwhile == time or times.after(meanwhile) == time


@QUICK
@given(every_times, moments, st.integers(-14, 14))
def test_the_zone_of_a_moment_does_not_matter(times: Times, moment: datetime, hours: int) -> None:
    assert times.after(moment.astimezone(timezone(timedelta(hours=hours)))) == times.after(moment)
    assert times.after(moment.astimezone(times.tz)) == times.after(moment)


@QUICK
@given(intervals, moments)
def test_intervals_are_counted_from_the_unix_epoch(times: Every, moment: datetime) -> None:
    time = times.after(moment)
    assert (time - EPOCH) % times.interval == timedelta(0)
    assert time - moment <= times.interval


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "61 * * * *", "* * * * * * *", "0 0 31 2 *", "@daily", "x", "1-", "9" * 5000 + " * * * *", None, 3],
    ids=lambda expression: repr(expression)[:20],
)
def test_an_expression_that_is_none_is_refused(expression: Any) -> None:
    with pytest.raises(BadOption) as caught:
        Cron(expression)
    assert (caught.value.option, caught.value.value) == ("cron", expression)


def test_a_day_that_never_comes_is_refused() -> None:
    with pytest.raises(BadOption, match="no such day"):
        Cron("0 0 */3 2 MON#5")  # a fifth Monday of February is the 29th


@QUICK
@given(st.lists(st.text("*/,-#L0123456789MONSUN ", max_size=8), min_size=1, max_size=7).map(" ".join))
def test_whatever_is_accepted_has_a_next_time(expression: str) -> None:
    try:
        times = Cron(expression)
    except BadOption:
        return
    assert times.after(START) > START


@pytest.mark.parametrize("zone", ["Berlin", "", "Europe", "../Berlin", "/etc/passwd", None, 3, []], ids=repr)
def test_a_zone_that_is_none_is_refused(zone: Any) -> None:
    with pytest.raises(BadOption) as caught:
        Cron("0 3 * * *", zone)
    assert (caught.value.option, caught.value.value) == ("zone", zone)


@pytest.mark.parametrize(
    "interval", [timedelta(0), -SECOND, 0.5 * SECOND, 1.5 * SECOND, timedelta.max, 60, None], ids=str
)
def test_an_interval_that_is_no_whole_number_of_seconds_is_refused(interval: Any) -> None:
    with pytest.raises(BadOption) as caught:
        Every(interval)
    assert (caught.value.option, caught.value.value) == ("every", interval)


def test_only_cron_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    assert Every(SECOND).after(EPOCH) == EPOCH + SECOND
    with pytest.raises(ExtraMissing, match=r"Cron needs the extra 'schedule'"):
        Cron("0 3 * * *")


@QUICK
@given(every_times, moments, st.lists(spans, max_size=8))
def test_under_all_every_time_is_in_exactly_one_of_the_looks(
    times: Times, began: datetime, gaps: list[timedelta]
) -> None:
    last, now, started = began, began, list[datetime]()
    for gap in gaps:
        now += gap
        while (found := due(times, last, now, "all", now)).times:
            assert len(found.times) <= MOST
            started += found.times
            last = started[-1]
        assert found.next > now
    assert started == between(times, began, now)


@QUICK
@given(every_times, moments, spans, spans, choices)
def test_what_is_due_is_in_order_and_never_in_the_future_nor_started_before(
    times: Times, last: datetime, gap: timedelta, late: timedelta, missed: Missed
) -> None:
    now = last + gap
    found = due(times, last, now, missed, now - late)
    assert all(last < time <= now for time in found.times)
    assert all(one < other for one, other in pairwise([*found.times, found.next]))
    assert found.next > now or len(found.times) == MOST


@QUICK
@given(every_times, moments, spans, spans)
def test_of_the_missed_times_all_one_or_none_is_due_and_of_the_others_all(
    times: Times, last: datetime, gap: timedelta, late: timedelta
) -> None:
    now = last + gap
    since = now - late
    whole = between(times, last, now)
    lost, others = [time for time in whole if time <= since], [time for time in whole if time > since]
    assert due(times, last, now, "all", since).times == whole[:MOST]
    assert due(times, last, now, "last", since).times == (lost[-1:] + others)[:MOST]
    assert due(times, last, now, "skip", since).times == others[:MOST]


def test_among_millions_of_missed_times_only_the_first_thousand_are_worked_through() -> None:
    each, now = Every(SECOND), START + timedelta(days=365)
    found = due(each, START, now, "all", now)
    assert found.times == [START + number * SECOND for number in range(1, 1001)]
    assert found.next == START + 1001 * SECOND <= now
    assert due(each, START, now, "last", now) == ([now], now + SECOND)
    assert due(each, START, now, "skip", now) == ([], now + SECOND)


def test_the_last_missed_time_is_found_by_few_questions() -> None:
    asked = 0

    class Counted(Every):
        def after(self, moment: datetime) -> datetime:
            nonlocal asked
            asked += 1
            return Every.after(self, moment)

    now = START + timedelta(days=3650)
    assert due(Counted(timedelta(seconds=1)), START, now, "last", now).times == [now]
    assert asked < 50
