"""Whose a run is, between processes: by lease, epoch and the time of the database."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flowneer_async import Fenced, FlowBuilder, Lease, Run, RunBusy
from flowneer_stores.methods import Methods
from flowneer_stores.wrapper import Wrapper
from tests.support.chains import stored_versions
from tests.support.counting import State, count, counts
from tests.support.places import KINDS, ask, lapse, lease_until, place_of, store_at
from tests.support.talking import Talking, talking

# Works on run r, and in its second step waits until it is told to go on. HOST is "-" for the machine on which it is;
# its clock is wrong by so many seconds.
OWNER = """
import asyncio, sys, time

host, wrong, lease, *place = sys.argv[1:]
now = time.time_ns
time.time_ns = lambda: now() + int(wrong) * 10**9
time.time = lambda: time.time_ns() / 1e9

from flowneer_async import FlowBuilder, FlowneerError
from flowneer_stores import owner
from tests.support.counting import count
from tests.support.places import store_at

async def wait(state):
    state["n"] += 1
    print("working", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

async def main():
    if host != "-":
        owner._host = lambda: host
    flow = FlowBuilder("counting").start_with(count, name="1").then(wait, name="2").then(count, name="3")
    async with store_at(*place, lease=float(lease)) as store:
        try:
            print((await flow.with_versioned_checkpoint(store).run({"n": 0}, run_id="r")).version)
        except FlowneerError as error:
            print(type(error).__name__)

asyncio.run(main())
"""

# The same, but that it is frozen as a whole in the middle of what stores its second step: after the version was
# appended in the step's transaction, and before that is committed.
IN_TRANSACTION = """
import asyncio, sys
from flowneer_async import FlowBuilder, FlowneerError
from flowneer_stores.postgres.transaction import PostgresTransaction
from tests.support.counting import count
from tests.support.places import store_at

commit = PostgresTransaction.commit

async def late(transaction):
    print("working", flush=True)
    sys.stdin.readline()
    await commit(transaction)

async def transacted(state, ctx):
    async with ctx.transaction():
        state["n"] += 1

async def main(lease, *place):
    PostgresTransaction.commit = late
    flow = FlowBuilder("counting").start_with(count, name="1").then(transacted, name="2").then(count, name="3")
    async with store_at(*place, lease=float(lease)) as store:
        try:
            print((await flow.with_versioned_checkpoint(store).run({"n": 0}, run_id="r")).version)
        except FlowneerError as error:
            print(type(error).__name__)

asyncio.run(main(*sys.argv[1:]))
"""


class Database(NamedTuple):
    """Where the runs of a test are, and a store on them in this process."""

    place: tuple[str, ...]
    store: Methods

    def owner(self, host: str = "-", wrong: int = 0, lease: float = 30.0) -> Any:
        """Another process that works on run r."""
        return talking(OWNER, host, wrong, lease, *self.place)


@pytest.fixture(params=KINDS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    place = place_of(request.param, tmp_path)
    async with store_at(*place, lease=30.0) as store:
        yield Database(place, store)


def frozen(owner: Talking) -> None:
    """Freeze a process, and wait until it is."""
    owner.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, owner.process.pid, os.WSTOPPED)


def killed(owner: Talking) -> None:
    owner.process.kill()
    owner.process.wait()


def wakes(owner: Talking) -> str:
    """Let a frozen process go on; what it says in the end."""
    owner.process.send_signal(signal.SIGCONT)
    owner.tell()
    return owner.hear()


async def until_free(store: Methods) -> None:
    """Wait until the run is nobody's, for all that can be known."""
    async with asyncio.timeout(60):
        while not (await store.runs(owned=False)).runs:
            pass


async def held(store: Methods) -> object:
    """All that there is of the run, which is whole."""
    return await store.read("r"), await stored_versions(store, "r")


# The heartbeat --------------------------------------------------------------------------------------------------------


async def test_a_step_may_take_longer_than_a_lease(database: Database) -> None:
    """The heartbeat goes on while a step runs: the run is still its owner's when the first lease would be over."""
    with database.owner(lease=0.6) as owner:
        assert owner.hear() == "working"
        first = await lease_until(database.place)
        async with asyncio.timeout(60):
            while await lease_until(database.place) < first + 600:
                pass
        with pytest.raises(RunBusy):
            await counts(database.store, "r")
        owner.tell()
        assert owner.hear() == "r@3"


# Taking over ----------------------------------------------------------------------------------------------------------


async def test_a_frozen_process_loses_its_run_when_its_lease_lapses(database: Database) -> None:
    """Nobody has to help: its lease is over by itself, another ends the run, and it writes nothing when it wakes up."""
    with database.owner(lease=0.3) as owner:
        assert owner.hear() == "working"
        frozen(owner)
        await until_free(database.store)
        await counts(database.store, "r")
        before = await held(database.store)
        assert wakes(owner) == "Fenced"
    assert await held(database.store) == before


async def test_a_dead_process_of_this_host_is_taken_over_at_once(database: Database) -> None:
    """Its lease does not have to lapse."""
    with database.owner() as owner:
        assert owner.hear() == "working"
        killed(owner)
    await counts(database.store, "r")


@pytest.mark.parametrize("end", [frozen, killed])
async def test_a_process_of_which_nothing_is_known_keeps_its_run_until_the_lease_lapses(
    database: Database, end: Any
) -> None:
    """Be it frozen here, or dead on another host: before, it is busy; then whoever comes next takes it over."""
    with database.owner(host="elsewhere") as owner:
        assert owner.hear() == "working"
        end(owner)
        with pytest.raises(RunBusy):
            await counts(database.store, "r")
        assert [run.run_id for run in (await database.store.runs(owned=True)).runs] == ["r"]
        await lapse(database.place)
        assert [run.run_id for run in (await database.store.runs(owned=False)).runs] == ["r"]
        await counts(database.store, "r")


# Waking up ------------------------------------------------------------------------------------------------------------


async def test_a_process_that_wakes_up_does_not_disturb_the_next_owner(database: Database) -> None:
    """It is fenced while the other is still at work, who keeps the lease and ends the run."""
    with database.owner(host="elsewhere") as first:
        assert first.hear() == "working"
        frozen(first)
        await lapse(database.place)
        with database.owner() as second:
            assert second.hear() == "working"
            before = await held(database.store), await lease_until(database.place)
            assert wakes(first) == "Fenced"
            assert (await held(database.store), await lease_until(database.place)) == before
            second.tell()
            assert second.hear() == "r@3"
    await held(database.store)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_process_that_freezes_in_a_transaction_does_not_lock_its_run(database: Database) -> None:
    """The server ends the transaction when the lease is over: nothing of it is stored, and another ends the run."""
    with talking(IN_TRANSACTION, 0.3, *database.place) as owner:
        assert owner.hear() == "working"
        await until_free(database.store)
        await counts(database.store, "r")
        before = await held(database.store)
        owner.tell()
        assert owner.hear() == "Fenced"
    assert await held(database.store) == before


async def test_a_lease_that_lapsed_fences_nobody(database: Database) -> None:
    """It says who may try; as long as nobody has, the owner that wakes up goes on."""
    with database.owner() as owner:
        assert owner.hear() == "working"
        frozen(owner)
        await lapse(database.place)
        assert wakes(owner) == "r@3"


class Late(Wrapper):
    """A store whose `claim` comes after `first` was done."""

    def __init__(self, store: Methods, first: Callable[[], Awaitable[None]]) -> None:
        super().__init__(store)
        self._first = first

    async def claim(self, run: Run) -> Lease:
        await self._first()
        return await super().claim(run)


async def test_an_owner_that_wakes_up_while_it_is_taken_over_leaves_a_whole_run(database: Database) -> None:
    """What it stored between the moment the next owner looked and that in which it took the run is not done again."""
    entered, leave = [asyncio.Event(), asyncio.Event()], [asyncio.Event(), asyncio.Event()]

    async def wait(state: State) -> None:
        number = state["n"]
        entered[number].set()
        await leave[number].wait()
        await count(state)

    async def wake() -> None:
        if not leave[0].is_set():
            leave[0].set()
            await entered[1].wait()

    slow = FlowBuilder[State]("counting").start_with(wait, name="1").then(wait, name="2").then(count, name="3")
    late = Late(database.store, wake)
    async with store_at(*database.place) as other:
        task = asyncio.create_task(slow.with_versioned_checkpoint(other).run({"n": 0}, run_id="r"))
        await entered[0].wait()
        await lapse(database.place)
        await counts(late, "r")
        before = await held(database.store)
        leave[1].set()
        with pytest.raises(Fenced):
            await task
    assert await held(database.store) == before


# The time of the database ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-3600, 3600])
@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_wrong_clock_gives_no_lease_and_takes_none(database: Database, wrong: int) -> None:
    """A lease begins and lapses by the clock of the database, whatever that of a process says."""
    with database.owner("elsewhere", wrong) as owner:
        assert owner.hear() == "working"
        now = await ask(database.place, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        assert 0 < await lease_until(database.place) - now <= 30_000
        with pytest.raises(RunBusy):
            await counts(database.store, "r")
        killed(owner)
    await lapse(database.place)
    lease = await database.store.claim(await database.store.read("r"))
    with database.owner("elsewhere", wrong) as owner:
        assert owner.hear() == "RunBusy"
    await database.store.release(lease, "running")
