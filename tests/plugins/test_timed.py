"""Timing: the seconds of steps and of attempts."""

import anyio
import pytest

from flowneer_async import FlowError
from flowneer_async.plugins import Timed, timing
from flowneer_async.testing import FakeWorld
from tests.support.plugged import State, each_backend, flow, in_backend, nothing, seconds_of


@each_backend
def test_each_attempt_and_the_step_as_a_whole_are_timed(backend: str) -> None:
    """An attempt has its own seconds; the step has those of all its attempts, and of the waits between them."""

    async def main() -> None:
        world, times = FakeWorld(), list[Timed]()

        async def charge(state: State, ctx) -> None:  # type: ignore[no-untyped-def]
            world.move(2)
            if ctx.attempt == 1:
                raise OSError

        timed = flow().then(charge, retries=1, delay=5).add_hooks(timing(times.append, clock=seconds_of(world)))
        await timed.run({}, run_id="r", world=world)
        assert times == [
            Timed("r", "charge", 1, 2, False),
            Timed("r", "charge", 2, 2, True),
            Timed("r", "charge", None, 9, True),
        ]

    in_backend(backend, main)


async def test_a_step_that_fails_is_timed_as_not_ok() -> None:
    """Its attempt and the step as a whole."""
    times = list[Timed]()

    def fail(state: State) -> None:
        raise ValueError

    with pytest.raises(FlowError):
        await flow().then(fail).add_hooks(timing(times.append)).run({})
    assert [(time.attempt, time.ok) for time in times] == [(1, False), (None, False)]


@each_backend
def test_a_step_that_is_cancelled_has_the_time_of_its_attempt(backend: str) -> None:
    """It is not ok, and of the step as a whole nothing is told."""

    async def main() -> None:
        times = list[Timed]()
        with anyio.CancelScope() as scope:

            async def hang(state: State) -> None:
                scope.cancel()
                await anyio.sleep_forever()

            await flow().then(hang).add_hooks(timing(times.append)).run({})
        assert [(time.attempt, time.ok) for time in times] == [(1, False)]

    in_backend(backend, main)


async def test_each_item_and_lane_is_timed_by_its_own_path() -> None:
    """Items at the same time, of runs at the same time, are told apart."""
    times = list[Timed]()
    batch = flow().batch(lambda state: "ab", flow().then(nothing), name="each", concurrency=2)
    timed = batch.add_hooks(timing(times.append), ["nothing"])

    async with anyio.create_task_group() as group:
        for run_id in "xy":
            group.start_soon(lambda run_id=run_id: timed.run({}, run_id=run_id))
    assert sorted((time.run_id, time.step) for time in times if time.attempt is None) == [
        (run_id, f"each[{item}]/nothing") for run_id in "xy" for item in range(2)
    ]


async def test_only_the_steps_of_the_filter_are_timed() -> None:
    times = list[Timed]()
    timed = flow().then(nothing, name="a").then(nothing, name="b").add_hooks(timing(times.append), ["b"])
    await timed.run({})
    assert {time.step for time in times} == {"b"}
