"""Circuit breaker: a step that fails again and again is left alone for a while."""

import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from flowneer_async.context import Context
from flowneer_async.defining import check_count, is_number
from flowneer_async.errors import BadOption, CircuitOpen
from flowneer_async.hooks import Filter, Hooks, Proceed
from flowneer_async.plugins.builder import F
from flowneer_async.plugins.place import static_path

CircuitState: TypeAlias = Literal["closed", "open", "half-open"]
"""Calls go through; none does; one may, to see whether it works again."""


class CircuitBreaker:
    """One circuit for each step, shared by all runs and all items of a batch.

    After `failures` attempts in a row that raised, the circuit opens: the step is not called any more, and CircuitOpen
    raised in its place. After `reset` seconds one attempt, and only one at a time, is let through; if it comes to its
    end the circuit closes, if it raises it is open for another `reset` seconds. Errors of the types `ignore` are
    answers: they do not count as failures. A cancelled attempt says nothing, and neither does one that began before the
    circuit opened. `clock` gives seconds.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        reset: float = 30.0,
        ignore: Sequence[type[Exception]] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_count("failures", failures, 1)
        if not (is_number(reset) and reset > 0):
            raise BadOption("reset", reset, "it is a number of seconds above 0")
        self._failures, self._reset, self._ignore, self._clock = failures, reset, tuple(ignore), clock
        self._circuits: dict[str, _Circuit] = {}

    def state(self, step: str) -> CircuitState:
        """That of the circuit of a step, by its path without numbers: `emails/send`."""
        circuit = self._circuits.get(step)
        if circuit is None or circuit.opened is None:
            return "closed"
        return "half-open" if self._wait(circuit.opened) <= 0 else "open"

    async def around(self, proceed: Proceed, state: object, ctx: Context) -> None:
        """The middleware: call the step, or raise CircuitOpen."""
        circuit = self._circuits.setdefault(static_path(ctx.step), _Circuit())
        era, worked = self._enter(circuit, ctx), None
        try:
            await proceed()
            worked = True
        except Exception as error:
            worked = isinstance(error, self._ignore)
            raise
        finally:
            if era == circuit.era:
                self._leave(circuit, worked)

    def _enter(self, circuit: "_Circuit", ctx: Context) -> int:
        if circuit.opened is not None:
            wait = self._wait(circuit.opened)
            if wait > 0 or circuit.trying:
                raise CircuitOpen(ctx.step, ctx.run_id, max(wait, 0.0))
            circuit.trying = True
        return circuit.era

    def _leave(self, circuit: "_Circuit", worked: bool | None) -> None:
        tried, circuit.trying = circuit.trying, False
        if worked:
            circuit.failures = 0
            if tried:
                circuit.turn(None)
        elif worked is not None:
            circuit.failures += 1
            if circuit.failures >= self._failures:  # as they are too after a trial that has failed
                circuit.turn(self._clock())

    def _wait(self, opened: float) -> float:
        return opened + self._reset - self._clock()


class _Circuit:
    """`era` changes whenever the circuit opens or closes: what began in another one is told nothing of it."""

    __slots__ = ("era", "failures", "opened", "trying")

    def __init__(self) -> None:
        self.era, self.failures, self.trying = 0, 0, False
        self.opened: float | None = None

    def turn(self, opened: float | None) -> None:
        self.era, self.opened = self.era + 1, opened


def circuit_breaker(breaker: CircuitBreaker) -> Hooks[object]:
    """Hooks that put `breaker` around every attempt of a step."""
    return Hooks(wrap_step=breaker.around)


class CircuitBreaking:
    """`flow.with_circuit_breaker(breaker)`, for `FlowBuilder.extend([CircuitBreaking])`."""

    def with_circuit_breaker(self: F, breaker: CircuitBreaker, filter: Filter | None = None) -> F:
        """The steps that `filter` names are not called while they fail again and again."""
        return self.add_hooks(circuit_breaker(breaker), filter)
