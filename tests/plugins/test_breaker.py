"""Circuit breaker: a step that fails again and again is left alone, until one attempt has worked."""

from typing import Any

import anyio
import pytest

from flowneer_async import BadOption, CircuitOpen, FlowError
from flowneer_async.plugins import CircuitBreaker, circuit_breaker
from flowneer_async.testing import FakeWorld
from tests.support.plugged import State, context, each_backend, flow, in_backend, seconds_of, turns


class Service:
    """What the breaker is put around: fails while `broken`, waits while `hanging`."""

    def __init__(self) -> None:
        self.broken, self.calls, self.answer = False, 0, anyio.Event()
        self.error: type[Exception] = OSError

    async def call(self) -> None:
        self.calls += 1
        if self.broken:
            raise self.error

    async def hang(self) -> None:
        self.calls += 1
        await self.answer.wait()
        if self.broken:
            raise OSError


async def attempt(breaker: CircuitBreaker, service: Service, step: str = "send") -> str:
    """What became of one attempt."""
    try:
        await breaker.around(service.call, {}, context(step))
    except CircuitOpen:
        return "open"
    except Exception:
        return "failed"
    return "done"


async def opened(world: FakeWorld, **options: Any) -> tuple[CircuitBreaker, Service]:
    """A breaker whose circuit for `send` has just opened; it resets after 30 s."""
    breaker, service = CircuitBreaker(failures=2, reset=30, clock=seconds_of(world), **options), Service()
    service.broken = True
    assert [await attempt(breaker, service) for _ in range(3)] == ["failed", "failed", "open"]
    assert service.calls == 2
    return breaker, service


async def test_an_open_circuit_calls_nothing_until_its_time_has_come() -> None:
    """Then one attempt that works closes it."""
    world = FakeWorld()
    breaker, service = await opened(world)
    service.broken = False
    world.move(29.999)
    assert (breaker.state("send"), await attempt(breaker, service), service.calls) == ("open", "open", 2)
    world.move(0.001)
    assert breaker.state("send") == "half-open"
    assert [await attempt(breaker, service) for _ in range(3)] == ["done"] * 3
    assert breaker.state("send") == "closed"


async def test_a_failed_trial_opens_the_circuit_for_the_whole_time_again() -> None:
    """However many failures it takes to open a closed one."""
    world = FakeWorld()
    breaker, service = await opened(world)
    world.move(30)
    assert await attempt(breaker, service) == "failed"
    world.move(29)
    assert (await attempt(breaker, service), service.calls) == ("open", 3)


async def test_a_circuit_that_was_closed_again_counts_from_the_beginning() -> None:
    world = FakeWorld()
    breaker, service = await opened(world)
    world.move(30)
    service.broken = False
    await attempt(breaker, service)
    service.broken = True
    assert [await attempt(breaker, service) for _ in range(3)] == ["failed", "failed", "open"]


async def test_only_failures_in_a_row_count() -> None:
    """One that works in between makes it begin anew."""
    breaker, service = CircuitBreaker(failures=2), Service()
    for broken in [True, False, True, False, True]:
        service.broken = broken
        assert await attempt(breaker, service) != "open"
    assert breaker.state("send") == "closed"


@each_backend
def test_a_half_open_circuit_lets_one_attempt_through_at_a_time(backend: str) -> None:
    """A hundred that come when the time is up do not fall upon a service that has just come back."""

    async def main() -> None:
        world = FakeWorld()
        breaker, service = await opened(world)
        service.broken, service.calls = False, 0
        world.move(30)
        async with anyio.create_task_group() as group:
            group.start_soon(breaker.around, service.hang, {}, context())
            await turns()
            assert [await attempt(breaker, service) for _ in range(100)] == ["open"] * 100
            assert service.calls == 1
            service.answer.set()
        assert await attempt(breaker, service) == "done"

    in_backend(backend, main)


@each_backend
def test_a_cancelled_trial_gives_its_place_to_the_next(backend: str) -> None:
    """Else the circuit would be half-open for ever. It says nothing of the service."""

    async def main() -> None:
        world = FakeWorld()
        breaker, service = await opened(world)
        service.broken = False
        world.move(30)
        async with anyio.create_task_group() as group:
            group.start_soon(breaker.around, service.hang, {}, context())
            await turns()
            group.cancel_scope.cancel()
        assert breaker.state("send") == "half-open"
        assert await attempt(breaker, service) == "done"

    in_backend(backend, main)


@pytest.mark.parametrize("broken", [True, False])
async def test_what_began_before_the_circuit_opened_says_nothing_of_it(broken: bool) -> None:
    """A late success does not close it, a late failure does not keep it open for longer."""
    world = FakeWorld()
    breaker, late, service = CircuitBreaker(failures=1, reset=30, clock=seconds_of(world)), Service(), Service()
    service.broken = True
    async with anyio.create_task_group() as group:
        group.start_soon(_expecting, OSError if broken else None, breaker, late)
        await turns()
        assert await attempt(breaker, service) == "failed"
        world.move(20)
        late.broken = broken
        late.answer.set()
    assert await attempt(breaker, service) == "open"
    world.move(10)
    assert await attempt(breaker, service) == "failed"


async def _expecting(error: type[Exception] | None, breaker: CircuitBreaker, service: Service) -> None:
    if error is None:
        await breaker.around(service.hang, {}, context())
    else:
        with pytest.raises(error):
            await breaker.around(service.hang, {}, context())


async def test_errors_that_are_answers_do_not_count() -> None:
    """A service that refuses an order is at work."""
    breaker, service = CircuitBreaker(failures=1, ignore=[ValueError]), Service()
    service.broken, service.error = True, ValueError
    assert [await attempt(breaker, service) for _ in range(5)] == ["failed"] * 5


async def test_each_step_has_a_circuit_of_its_own_and_items_share_it() -> None:
    """The items of a batch are the same step, others are not."""
    breaker, service = CircuitBreaker(failures=2), Service()
    service.broken = True
    assert await attempt(breaker, service, "emails[1]/send") == "failed"
    assert await attempt(breaker, service, "emails[2]/send~1") == "failed"
    assert await attempt(breaker, service, "emails[3]/send") == "open"
    assert await attempt(breaker, service, "send") == "failed"
    assert breaker.state("emails/send") == "open"


async def test_runs_share_the_circuit_and_the_step_is_not_called() -> None:
    """The next run finds it open, and fails with CircuitOpen, which says when to come again and nothing else."""
    calls, world = list[str](), FakeWorld()
    breaker = CircuitBreaker(failures=2, reset=30, clock=seconds_of(world))

    async def send(state: State) -> None:
        calls.append("send")
        raise OSError

    guarded = flow().then(send).add_hooks(circuit_breaker(breaker), ["send"])
    causes = list[BaseException]()
    for run_id in ["r1", "r2", "r3"]:
        with pytest.raises(FlowError) as caught:
            await guarded.run({}, run_id=run_id, world=world)
        causes.append(caught.value.cause)
    assert [type(cause) for cause in causes] == [OSError, OSError, CircuitOpen]
    assert len(calls) == 2
    assert str(causes[-1]) == (
        "step 'send' of run 'r3' was not called, for it has failed too often in a row: try again in 30 s"
    )


async def test_a_step_that_runs_into_its_timeout_has_failed() -> None:
    """A service that hangs opens the circuit, as one that raises does."""
    breaker = CircuitBreaker(failures=1)

    async def send(state: State) -> None:
        await anyio.sleep_forever()

    with pytest.raises(FlowError):
        await flow().then(send, timeout=0.001).add_hooks(circuit_breaker(breaker)).run({})
    assert breaker.state("send") == "open"


@pytest.mark.parametrize("options", [{"failures": 0}, {"failures": 1.5}, {"reset": 0}, {"reset": float("nan")}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        CircuitBreaker(**options)
