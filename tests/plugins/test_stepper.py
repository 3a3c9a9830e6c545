"""Manual stepping: a run that stops before each step until it is told to go on."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from flowneer_async import BadOption, FlowBuilder, FlowError
from flowneer_async.plugins import Paused, Stepper, manual_stepping
from flowneer_async.testing import FakeWorld
from flowneer_stores import MemoryStore
from tests.support.plugged import State, each_backend, flow, in_backend, turns


def doing(*names: str) -> FlowBuilder[State]:
    built = flow()
    for name in names:
        built = built.then(note(name), name=name)
    return built


def note(name: str) -> Callable[[State], None]:
    return lambda state: state.setdefault("done", []).append(name)


def lanes(*names: str) -> FlowBuilder[State]:
    return flow().parallel([flow().then(note(name), name=name) for name in names], reducer=last)


def last(before: Any, values: list[Any]) -> Any:
    return [name for names in values for name in names]


@each_backend
def test_each_step_waits_until_it_is_let_go(backend: str) -> None:
    """What comes next is shown before it is done, and one call does one step."""

    async def main() -> None:
        stepper, state = Stepper(), dict[str, Any]()
        async with stepper.over(doing("a", "b", "c").add_hooks(manual_stepping(stepper)).run(state, run_id="r")):
            assert await stepper.next() == Paused("r", "a", 1)
            await turns()
            assert state == {}
            assert await stepper.step() == Paused("r", "a", 1)
            assert state == {"done": ["a"]}
            assert await stepper.next() == Paused("r", "b", 1)
            assert stepper.paused == (Paused("r", "b", 1),)
            await stepper.step()
            await stepper.step()
            assert state == {"done": ["a", "b", "c"]}
            assert await stepper.next() is None
            assert await stepper.step() is None

    in_backend(backend, main)


@each_backend
def test_a_run_may_be_stepped_through_to_its_end(backend: str) -> None:
    """A loop over `step` ends with the run, and the result is there."""

    async def main() -> None:
        stepper, seen = Stepper(), list[str]()
        stepped = doing("a", "b").add_hooks(manual_stepping(stepper))
        for _ in range(2):
            async with stepper.over(stepped.run({})) as run:
                while paused := await stepper.step():
                    seen.append(paused.step)
            assert run.result is not None
            assert run.result.state == {"done": ["a", "b"]}
        assert seen == ["a", "b"] * 2

    in_backend(backend, main)


@each_backend
def test_lanes_wait_each_for_itself(backend: str) -> None:
    """Any of them may be let go, and the others stay."""

    async def main() -> None:
        stepper = Stepper()
        stepped = lanes("a", "b", "c").add_hooks(manual_stepping(stepper))
        async with stepper.over(stepped.run({}, run_id="r")) as run:
            await turns(50)
            assert [paused.step for paused in stepper.paused] == ["parallel[0]/a", "parallel[1]/b", "parallel[2]/c"]
            await stepper.step("parallel[1]/b")
            assert [paused.step for paused in stepper.paused] == ["parallel[0]/a", "parallel[2]/c"]
            async with anyio.create_task_group() as group:  # two at once take two
                group.start_soon(stepper.step)
                group.start_soon(stepper.step)
            assert stepper.paused == ()
        assert run.result is not None
        assert run.result.state == {"done": ["a", "b", "c"]}

    in_backend(backend, main)


async def test_only_the_steps_of_the_filter_wait() -> None:
    stepper = Stepper()
    async with stepper.over(doing("a", "b", "c").add_hooks(manual_stepping(stepper), ["b"]).run({})):
        assert [paused.step if (paused := await stepper.step()) else None for _ in range(2)] == ["b", None]


async def test_each_attempt_waits() -> None:
    """A retry is shown too."""

    def fail_once(state: State, ctx: Any) -> None:
        if ctx.attempt == 1:
            raise OSError

    stepper, attempts = Stepper(), list[int]()
    stepped = flow().then(fail_once, retries=1).add_hooks(manual_stepping(stepper))
    async with stepper.over(stepped.run({}, world=FakeWorld())):
        while paused := await stepper.step():
            attempts.append(paused.attempt)
    assert attempts == [1, 2]


async def test_continue_lets_all_go_on_and_stops_nothing_more() -> None:
    stepper = Stepper()
    async with stepper.over(doing("a", "b", "c").add_hooks(manual_stepping(stepper)).run({})) as run:
        await stepper.step()
        stepper.continue_()
        assert await stepper.next() is None
        assert run.result is not None
        assert run.result.state == {"done": ["a", "b", "c"]}


@each_backend
def test_leaving_lets_the_run_go_on_to_its_end(backend: str) -> None:
    async def main() -> None:
        stepper = Stepper()
        async with stepper.over(doing("a", "b").add_hooks(manual_stepping(stepper)).run({})) as run:
            await stepper.step()
        assert run.result is not None
        assert run.result.state == {"done": ["a", "b"]}

    in_backend(backend, main)


@each_backend
def test_leaving_may_cancel_the_run(backend: str) -> None:
    """What waits is not done any more, and the run is stored as cancelled: it can go on later."""

    async def main() -> None:
        stepper, store, state = Stepper(), MemoryStore(), dict[str, Any]()
        stored = doing("a", "b").with_versioned_checkpoint(store)
        stepped = stored.add_hooks(manual_stepping(stepper))
        async with stepper.over(stepped.run(state, run_id="r"), leave="cancel") as run:
            await stepper.step()
            await stepper.next()
        assert (state, run.result, stepper.paused) == ({"done": ["a"]}, None, ())
        assert (await store.read("r")).status == "cancelled"
        assert (await stored.run(run_id="r")).state == {"done": ["a", "b"]}

    in_backend(backend, main)


@each_backend
def test_an_error_in_the_block_cancels_the_run_and_comes_out_as_it_is(backend: str) -> None:
    """At whatever point; in no group."""

    async def main() -> None:
        state = dict[str, Any]()

        async def leave_after(steps: int) -> None:
            stepper = Stepper()
            async with stepper.over(doing("a", "b", "c").add_hooks(manual_stepping(stepper)).run(state)):
                for _ in range(steps):
                    await stepper.step()
                raise ZeroDivisionError

        for steps in range(3):
            with pytest.raises(ZeroDivisionError):
                await leave_after(steps)
        assert state == {"done": ["a", "a", "b"]}

    in_backend(backend, main)


@each_backend
def test_an_error_of_the_run_comes_out_when_the_block_is_left(backend: str) -> None:
    """Nobody waits for a run that has failed; and not in a group."""

    async def main() -> None:
        def fail(state: State) -> None:
            raise ValueError

        async def step_through() -> None:
            stepper = Stepper()
            async with stepper.over(flow().then(fail).add_hooks(manual_stepping(stepper)).run({})):
                assert await stepper.step() is not None
                assert await stepper.step() is None

        with pytest.raises(FlowError):
            await step_through()

    in_backend(backend, main)


async def test_a_run_that_never_begins_ends_the_block() -> None:
    """One that is refused when it is opened."""
    stepper = Stepper()
    with pytest.raises(Exception, match="no stored state"):
        async with stepper.over(doing("a").add_hooks(manual_stepping(stepper)).run()):
            assert await stepper.step() is None


@each_backend
def test_a_run_that_is_cancelled_from_outside_ends_the_block(backend: str) -> None:
    """The cancellation goes through."""

    async def main() -> None:
        stepper = Stepper()
        with anyio.CancelScope() as scope:
            async with stepper.over(doing("a").add_hooks(manual_stepping(stepper)).run({})):
                await stepper.next()
                scope.cancel()
                await stepper.step("never")
        assert scope.cancelled_caught
        assert stepper.paused == ()

    in_backend(backend, main)


async def test_runs_that_somebody_else_has_started_can_be_stepped_through() -> None:
    """Several at once; it is over when all of them are."""
    stepper, seen = Stepper(), set[tuple[str, str]]()
    stepped = doing("a", "b").add_hooks(manual_stepping(stepper))
    async with anyio.create_task_group() as group:
        for run_id in ["x", "y"]:
            group.start_soon(lambda run_id=run_id: stepped.run({}, run_id=run_id))
        while paused := await stepper.step():
            seen.add((paused.run_id, paused.step))
    assert seen == {("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")}


async def test_a_way_to_leave_that_is_none_is_refused() -> None:
    with pytest.raises(BadOption):
        async with Stepper().over(doing("a").run({}), leave="stay"):  # type: ignore[arg-type]
            pass
