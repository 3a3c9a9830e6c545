from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async.engine.schedule import EPOCH, MOST, Cron, Every, Missed
from flowneer_async.engine.scheduling import Schedule, Scheduler
from flowneer_async.errors import BadName, BadOption, StoreBusy
from flowneer_async.testing import FakeWorld
from tests.support.trees import QUICK

BEGAN = datetime(2026, 11, 23, 12, 0, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def world_at(moment: datetime) -> FakeWorld:
    return FakeWorld(ms(moment), held=True)


def schedule(name: str = "s", every: timedelta = HOUR, missed: Missed = "skip", state: Any = None) -> Schedule:
    return Schedule(name, "flow", {} if state is None else state, Every(every), missed)


def hours(*numbers: int) -> list[datetime]:
    return [datetime(2026, 11, 23, tzinfo=UTC) + number * HOUR for number in numbers]


@coroutine
def pause() -> Generator[None, None, None]:
    yield


@dataclass
class Store:
    """Runs by id: a create is compare-and-set. Each call is in two halves, between which others may have their turn."""

    runs: dict[str, tuple[str, datetime]] = field(default_factory=dict[str, tuple[str, datetime]])
    created: list[datetime] = field(default_factory=list[datetime])
    questions: int = 0
    busy: int = 0
    """So many of the next calls fail."""
    pauses: bool = False

    async def last(self, schedule: Schedule) -> datetime | None:
        self.questions += 1
        await self._call()
        return max((time for name, time in self.runs.values() if name == schedule.name), default=None)

    async def start(self, schedule: Schedule, time: datetime) -> None:
        await self._call()
        if schedule.run_id(time) not in self.runs:
            self.runs[schedule.run_id(time)] = schedule.name, time
            self.created.append(time)
        if self.pauses:
            await pause()

    async def _call(self) -> None:
        if self.pauses:
            await pause()
        if self.busy:
            self.busy -= 1
            raise StoreBusy("store", 1.0)

    def scheduler(self, *schedules: Schedule, began: datetime = BEGAN) -> Scheduler:
        return Scheduler(schedules, last=self.last, start=self.start, began=ms(began))


async def start_one(store: Store, schedule: Schedule, time: datetime) -> None:
    await store.start(schedule, time)
    store.created.clear()


async def test_a_schedule_without_a_run_begins_when_the_engine_began() -> None:
    store = Store()
    scheduler = store.scheduler(schedule(missed="all"))
    assert await scheduler.look(ms(BEGAN)) == ms(hours(13)[0])
    assert store.created == []


async def test_a_time_is_started_when_it_has_come_and_once_only() -> None:
    store, world = Store(), world_at(BEGAN)
    scheduler = store.scheduler(schedule())
    for _ in range(2 * 60 * 60):
        await scheduler.look(world.now())
        world.move(1)
    assert store.created == hours(13, 14)


async def test_a_look_tells_when_the_next_one_is_to_be_made() -> None:
    store = Store()
    scheduler = store.scheduler(schedule("a"), schedule("b", timedelta(minutes=25)))
    assert await scheduler.look(ms(BEGAN)) == ms(BEGAN.replace(minute=5, second=0))
    assert await store.scheduler().look(ms(BEGAN)) is None


async def test_a_look_asks_the_store_nothing_where_nothing_is_due() -> None:
    store, world = Store(), world_at(BEGAN)
    scheduler = store.scheduler(schedule("a"), schedule("b"))
    for _ in range(3 * 60):
        await scheduler.look(world.now())
        world.move(60)
    assert store.questions == 2
    assert store.created == hours(13, 13, 14, 14)


async def test_a_look_reckons_no_times_where_nothing_is_due() -> None:
    asked = list[datetime]()

    class Counted(Every):
        def after(self, moment: datetime) -> datetime:
            asked.append(moment)
            return Every.after(self, moment)

    scheduler = Store().scheduler(Schedule("s", "flow", {}, Counted(HOUR), "last"))
    for second in range(60):
        await scheduler.look(ms(BEGAN) + 1000 * second)
    assert asked == [BEGAN]


@pytest.mark.parametrize(("missed", "started"), [("skip", []), ("last", [12]), ("all", [9, 10, 11, 12])])
async def test_times_that_were_missed_while_no_engine_was_there_are_caught_up_with_as_chosen(
    missed: Missed, started: list[int]
) -> None:
    store, late = Store(), BEGAN + timedelta(minutes=5)
    chosen = schedule(missed=missed)
    await start_one(store, chosen, *hours(8))
    scheduler = store.scheduler(chosen, began=late)
    assert await scheduler.look(ms(late)) == ms(*hours(13))
    assert store.created == hours(*started)


async def test_a_time_that_came_within_the_minute_before_the_engine_began_is_not_missed() -> None:
    store, chosen = Store(), schedule()
    await start_one(store, chosen, *hours(8))
    await store.scheduler(chosen).look(ms(BEGAN))
    assert store.created == hours(12)


@pytest.mark.parametrize(("missed", "started"), [("skip", [17]), ("last", [16, 17]), ("all", [13, 14, 15, 16, 17])])
async def test_times_that_came_while_the_machine_slept_are_missed(missed: Missed, started: list[int]) -> None:
    store, world = Store(), world_at(BEGAN)
    scheduler = store.scheduler(schedule(missed=missed))
    await scheduler.look(world.now())
    world.move(5 * 60 * 60)
    await scheduler.look(world.now())
    assert store.created == hours(*started)


@pytest.mark.parametrize("missed", ["skip", "last", "all"])
async def test_no_time_is_lost_while_the_store_is_busy_however_long(missed: Missed) -> None:
    store, world = Store(), world_at(BEGAN)
    scheduler = store.scheduler(schedule(missed=missed))
    await scheduler.look(world.now())
    store.busy = 4 * 60 * 60
    for _ in range(5 * 60 * 60):
        try:
            await scheduler.look(world.now())
        except StoreBusy:
            assert store.created == []
        world.move(1)
    assert store.created == hours(13, 14, 15, 16, 17)


async def test_no_time_is_lost_while_the_store_cannot_tell_which_was_the_last() -> None:
    store, world, chosen = Store(), world_at(BEGAN), schedule()
    await start_one(store, chosen, *hours(12))
    scheduler = store.scheduler(chosen)
    store.busy = 3 * 60 * 60
    for _ in range(4 * 60 * 60):
        try:
            await scheduler.look(world.now())
        except StoreBusy:
            assert store.created == []
        world.move(1)
    assert store.created == hours(13, 14, 15, 16)


async def test_a_time_that_could_not_be_started_before_the_machine_slept_is_missed() -> None:
    store, world = Store(), world_at(BEGAN)
    scheduler = store.scheduler(schedule())
    await scheduler.look(world.now())
    world.move(60 * 60)
    store.busy = 1
    with pytest.raises(StoreBusy):
        await scheduler.look(world.now())
    world.move(4 * 60 * 60)
    await scheduler.look(world.now())
    assert store.created == hours(17)


async def test_a_schedule_that_cannot_be_started_keeps_no_other_from_it() -> None:
    store = Store()
    scheduler = store.scheduler(schedule("a"), schedule("b"))
    await scheduler.look(ms(BEGAN))
    store.busy = 1
    with pytest.raises(StoreBusy):
        await scheduler.look(ms(*hours(13)))
    assert list(store.runs) == ["b:20261123T130000Z"]
    assert await scheduler.look(ms(*hours(13))) == ms(*hours(14))
    assert list(store.runs) == ["b:20261123T130000Z", "a:20261123T130000Z"]


async def test_what_was_started_before_the_store_was_busy_is_not_started_again() -> None:
    store, asked = Store(), list[datetime]()
    chosen = schedule(missed="all")
    await start_one(store, chosen, *hours(8))

    async def start(chosen: Schedule, time: datetime) -> None:
        asked.append(time)
        store.busy = int(len(asked) == 3)
        await store.start(chosen, time)

    scheduler = Scheduler([chosen], last=store.last, start=start, began=ms(BEGAN))
    with pytest.raises(StoreBusy):
        await scheduler.look(ms(BEGAN))
    await scheduler.look(ms(BEGAN))
    assert asked == hours(9, 10, 11, 11, 12)


async def test_a_million_missed_times_are_worked_through_a_thousand_a_look() -> None:
    store, second = Store(), timedelta(seconds=1)
    chosen = schedule(every=second, missed="all")
    await start_one(store, chosen, BEGAN - 1_000_000 * second)
    scheduler, first = store.scheduler(chosen), BEGAN - 999_999 * second
    assert await scheduler.look(ms(BEGAN)) == ms(BEGAN)
    assert store.created == [first + number * second for number in range(MOST)]
    assert await scheduler.look(ms(BEGAN)) == ms(BEGAN)
    assert len(store.created) == 2 * MOST


async def test_a_clock_that_is_set_back_starts_nothing_again() -> None:
    store = Store()
    scheduler = store.scheduler(schedule(missed="all"))
    await scheduler.look(ms(BEGAN))
    await scheduler.look(ms(*hours(13)))
    assert await scheduler.look(ms(BEGAN)) == ms(*hours(14))
    assert store.created == hours(13)


async def test_a_last_time_in_the_future_is_waited_for() -> None:
    store, chosen = Store(), schedule(missed="all")
    await start_one(store, chosen, *hours(15))
    assert await store.scheduler(chosen).look(ms(BEGAN)) == ms(*hours(16))
    assert store.created == []


looks = st.lists(
    st.tuples(
        st.integers(0, 1),  # whose turn it is
        st.sampled_from([0, 0, 0, 0, 1, 5, 40, 90, 600]),  # the seconds that pass before it
        st.sampled_from(["on", "on", "on", "on", "on", "busy", "killed", "cancelled"]),
    ),
    max_size=80,
)


class Process:
    """An engine that looks again and again; its turn ends wherever the store is asked something."""

    def __init__(self, store: Store, chosen: Schedule, now: int) -> None:
        self._store, self._chosen = store, chosen
        self.begin(now)

    def begin(self, now: int) -> None:
        self._scheduler = Scheduler([self._chosen], last=self._store.last, start=self._store.start, began=now)
        self._look: Any = None

    def cancel(self) -> None:
        if self._look is not None:
            self._look.close()
        self._look = None

    def turn(self, now: int) -> bool:
        """Go on with the look, or begin one; tells whether it is over, and nothing more is due."""
        self._look = self._look or self._scheduler.look(now)
        try:
            self._look.send(None)
        except StopIteration as over:
            self._look = None
            return over.value > now
        except StoreBusy:
            self._look = None
        return False


@QUICK
@given(looks, st.sampled_from([1, 7, 60, 3600]))
def test_over_two_processes_each_time_is_started_once_whatever_the_order_of_their_turns(
    turns: list[tuple[int, int, str]], seconds: int
) -> None:
    store, world = Store(pauses=True), world_at(BEGAN)
    chosen = schedule(every=timedelta(seconds=seconds), missed="all")
    store.runs["before"] = chosen.name, BEGAN  # a time was started already, so that none may be left out from here on
    processes = [Process(store, chosen, world.now()) for _ in range(2)]
    for who, passed, fate in turns:
        world.move(passed)
        process = processes[who]
        if fate in ("killed", "cancelled"):
            process.cancel()
        if fate == "killed":
            process.begin(world.now())
        store.busy = int(fate == "busy")
        process.turn(world.now())
        store.busy = 0
        assert ms(max(store.created, default=BEGAN)) <= world.now()
    finish(processes, world.now())
    assert sorted(store.created) == every_time(chosen, world.now())


@QUICK
@given(looks, st.sampled_from(["skip", "last"]))
def test_over_two_processes_no_time_is_started_twice_or_is_none_of_the_schedule(
    turns: list[tuple[int, int, str]], missed: Missed
) -> None:
    store, world = Store(pauses=True), world_at(BEGAN)
    chosen = schedule(every=timedelta(seconds=7), missed=missed)
    processes = [Process(store, chosen, world.now()) for _ in range(2)]
    for who, passed, fate in turns:
        world.move(passed)
        if fate == "killed":
            processes[who].cancel()
            processes[who].begin(world.now())
        processes[who].turn(world.now())
    finish(processes, world.now())
    assert len(set(store.created)) == len(store.created)
    assert set(store.created) <= set(every_time(chosen, world.now()))


def finish(processes: list[Process], now: int) -> None:
    """Each ends the look that it is at, and makes more until nothing is due."""
    for process in processes:
        while not process.turn(now):
            pass


def every_time(chosen: Schedule, now: int) -> list[datetime]:
    found, time = [], chosen.times.after(BEGAN)
    while ms(time) <= now:
        found.append(time)
        time = chosen.times.after(time)
    return found


def test_the_id_of_a_run_is_that_of_its_time_in_utc() -> None:
    nightly = Schedule("nightly", "report", {}, Cron("30 2 * * *", "Europe/Berlin"))
    time = nightly.times.after(BEGAN)
    assert nightly.run_id(time) == nightly.run_id(time.astimezone(nightly.times.tz)) == "nightly:20261124T013000Z"


def test_the_state_of_a_run_is_its_own() -> None:
    state = {"items": [1]}
    chosen = schedule(state=state)
    given = chosen.state_at(BEGAN)
    assert given == state
    state["items"].append(2)
    assert given == {"items": [1]}


def test_a_function_of_the_state_is_given_the_time_in_the_zone_of_the_schedule() -> None:
    nightly = Schedule("n", "report", lambda time: {"day": f"{time:%F %H:%M}"}, Cron("30 0 * * *", "Europe/Berlin"))
    assert nightly.state_at(nightly.times.after(BEGAN)) == {"day": "2026-11-24 00:30"}
    assert schedule(state=lambda time: {"at": time.isoformat()}).state_at(BEGAN) == {"at": BEGAN.isoformat()}


@pytest.mark.parametrize("name", ["", "a b", "-a", "@a", "a" * 112, "a\n", None, 3], ids=repr)
def test_a_name_that_makes_no_run_id_is_refused(name: Any) -> None:
    with pytest.raises(BadName) as caught:
        schedule(name)
    assert (caught.value.kind, caught.value.name) == ("schedule", name)
    assert schedule("a" * 111).name == "a" * 111


def test_a_flow_is_named_as_flows_are() -> None:
    with pytest.raises(BadName) as caught:
        Schedule("s", "@flow", {}, Every(HOUR))
    assert (caught.value.kind, caught.value.name) == ("flow", "@flow")


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(BadOption) as caught:
        schedule(missed="some")  # type: ignore[arg-type]
    assert caught.value.option == "missed"


def test_two_schedules_of_one_name_are_refused() -> None:
    with pytest.raises(BadOption) as caught:
        Store().scheduler(schedule(), schedule(missed="all"))
    assert (caught.value.option, caught.value.value) == ("name", "s")
