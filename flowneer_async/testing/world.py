"""A world in which no time passes by itself and nothing is left to chance."""

from collections.abc import Sequence
from itertools import count, cycle

import anyio
import anyio.lowlevel

from flowneer_async.policy import World


class FakeWorld(World):
    """A World whose clock moves only when someone sleeps, or the test moves it.

        world = FakeWorld()
        await flow.run(state, world=world)      # its retries wait no time at all
        assert world.slept == [0.1, 0.2]

    Whoever sleeps moves the clock and goes on at once. With `held=True` it waits instead until the test has moved the
    clock far enough, `await world.asleep()` and then `world.move(10)`: that is for what sleeps for ever, as a heartbeat
    does. Run ids are run-1, run-2, …; `draws` are the numbers between 0 and 1 that are drawn, over and over. `start` is
    Unix time in ms.
    """

    _clock: "_Clock"
    slept: list[float]
    """The seconds of every sleep, in the order they began."""

    def __init__(self, start: int = 1_700_000_000_000, *, draws: Sequence[float] = (0.5,), held: bool = False) -> None:
        clock = _Clock(start, held)
        ids, numbers = count(1), cycle(draws)
        super().__init__(clock.now, clock.sleep, lambda: next(numbers), lambda: f"run-{next(ids)}")
        # A World is frozen, so that a run cannot change it.
        object.__setattr__(self, "_clock", clock)
        object.__setattr__(self, "slept", clock.slept)

    def move(self, seconds: float) -> None:
        """Move the clock, and wake those who have slept long enough."""
        self._clock.move(seconds)

    async def asleep(self, sleepers: int = 1) -> None:
        """Wait until so many sleep at the same time."""
        await self._clock.asleep(sleepers)


class _Clock:
    def __init__(self, start: int, held: bool) -> None:
        self._ms, self._held = start, held
        self._sleepers: list[tuple[int, anyio.Event]] = []
        self._watchers: list[anyio.Event] = []
        self.slept: list[float] = []

    def now(self) -> int:
        return self._ms

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self._held and seconds > 0:
            await self._wait(self._ms + round(seconds * 1000))
        else:
            self.move(seconds)
            await anyio.lowlevel.checkpoint()

    def move(self, seconds: float) -> None:
        self._ms += round(seconds * 1000)
        for until, woken in self._sleepers:
            if until <= self._ms:
                woken.set()
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].is_set()]

    async def asleep(self, sleepers: int) -> None:
        while len(self._sleepers) < sleepers:
            watcher = anyio.Event()
            self._watchers.append(watcher)
            await watcher.wait()

    async def _wait(self, until: int) -> None:
        sleeper = until, anyio.Event()
        self._sleepers.append(sleeper)
        for watcher in self._watchers:
            watcher.set()
        self._watchers.clear()
        try:
            await sleeper[1].wait()
        finally:
            if sleeper in self._sleepers:  # cancelled
                self._sleepers.remove(sleeper)
