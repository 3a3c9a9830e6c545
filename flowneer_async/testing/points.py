"""Whether a flow ends the same wherever its process dies."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, product
from random import Random
from typing import Any, Generic, Protocol

from flowneer_async.errors import FlowneerError, StoreNeeded
from flowneer_async.flow import FlowBuilder
from flowneer_async.plan import Durability, Plan
from flowneer_async.policy import unix_ms
from flowneer_async.steps import S
from flowneer_async.testing.compared import Traces, compare, compare_effects, compare_ends, traces
from flowneer_async.testing.crashes import How
from flowneer_async.testing.effects import Effects
from flowneer_async.testing.lives import Point, Reply, Trial, no_reply
from flowneer_async.testing.world import FakeWorld

_HOWS: tuple[How, ...] = ("before", "after", "unheard")
_numbers = count(1)


def _as_they_are(effects: Effects) -> object:
    return effects


def _world() -> FakeWorld:
    """One that begins now, for the times of signals are those of the store."""
    return FakeWorld(unix_ms())


class CrashPoints(Protocol):
    """What the fixture `crash_points` gives: the function, for one durability."""

    async def __call__(
        self,
        flow: FlowBuilder[S],
        state: S,
        *,
        reply: Reply = no_reply,
        deps: Callable[[Effects], object] = _as_they_are,
        world: Callable[[], FakeWorld] = _world,
        again: int = 10,
        most: int | None = None,
        forks: bool = False,
        seed: int = 0,
    ) -> int:
        """See `crash_points`."""
        ...


async def crash_points(
    flow: FlowBuilder[S],
    state: S,
    *,
    durability: Durability | None = None,
    reply: Reply = no_reply,
    deps: Callable[[Effects], object] = _as_they_are,
    world: Callable[[], FakeWorld] = _world,
    again: int = 10,
    most: int | None = None,
    forks: bool = False,
    seed: int = 0,
) -> int:
    """Let runs of `flow` die, one at each commit, and see that they go on to the same end. Gives how many died.

        await crash_points(report.with_versioned_checkpoint(MemoryStore()), {"url": "https://example.org"})

    One run is left alone. For each commit that it makes, others die before it, after it, or never hear of it; `again`
    more die several times. Each is resumed until it has ended. Then its state, status and failures, the steps that made
    versions, and its effects have to be those of the first run, and each of its versions has to be whole. With `forks`
    a run is also forked from each version of the first one.

    `flow` has a full store; `durability` is tried in place of its own. Each run begins with a copy of `state`. Steps
    report what they do outside through `ctx.deps.do(ctx, "charged")`: see `Effects`. `deps` makes other deps of these.
    `reply(wait)` gives the payload or the answer that a run waits for, or NO_ANSWER to let the time pass; it is never
    asked about a sleep, and whether a step in doubt was done is known from the effects. `world` makes the world of each
    run. At most `most` runs die, drawn by `seed`.

    Raises AssertionError where a run ended otherwise, which names the commit and no value; StoreNeeded.
    """
    plan = _plan_of(flow)
    if plan.store is None:
        raise StoreNeeded("crash_points", "of any id")
    flow = flow if durability is None else flow._with(durability=durability)  # pyright: ignore[reportPrivateUsage]
    pattern = Trial(flow, plan.store, "", state, reply, world(), deps)
    return await _Trials(pattern, world, Random(seed)).all(again, most, forks)


@dataclass(frozen=True, slots=True)
class _Trials(Generic[S]):
    """Runs of one flow, in their store."""

    pattern: Trial[S]
    world: Callable[[], FakeWorld]
    random: Random

    async def all(self, again: int, most: int | None, forks: bool) -> int:
        whole = self._trial("whole")
        expected = await traces(whole, await whole.run())
        commits = whole.commits
        tried: list[tuple[Point, ...]] = [((at, how),) for at, how in product(range(1, commits + 1), _HOWS)]
        tried += [self._several(commits) for _ in range(again)]
        if most is not None and len(tried) > most:
            tried = self.random.sample(tried, most)
        for points in tried:
            await self._die(points, whole, expected)
        if forks:
            await self._fork(whole, expected)
        return len(tried)

    async def _die(self, points: Sequence[Point], whole: Trial[S], expected: Traces) -> None:
        """A run that dies at these points."""
        trial = self._trial("crash")
        with _about(f"after a crash {_told(points)}"):
            found = await traces(trial, await trial.run(points))
            compare(_plan_of(trial.flow), found, expected)
            compare_effects(_plan_of(trial.flow), trial.effects, whole.effects)

    async def _fork(self, whole: Trial[S], expected: Traces) -> None:
        """A fork of each version of a run."""
        for version in await whole.store.versions(whole.run_id):
            trial = self._trial("fork")
            trial.flow, trial.state = whole.flow.resume_from(version.id, whole.store), None
            with _about(f"as a fork of the version after {version.path or 'nothing'}"):
                compare_ends(await traces(trial, await trial.run()), expected)

    def _several(self, commits: int) -> tuple[Point, ...]:
        """Some commit, and then some of the first after each resume."""
        random = self.random
        first = random.randint(1, commits), random.choice(_HOWS)
        return first, *((random.randint(1, 4), random.choice(_HOWS)) for _ in range(random.randint(1, 3)))

    def _trial(self, kind: str) -> Trial[S]:
        return replace(self.pattern, run_id=f"{kind}-{next(_numbers)}", world=self.world(), effects=Effects())


@contextmanager
def _about(what: str) -> Generator[None]:
    """Say of which run it is that something is said."""
    try:
        yield
    except Exception as error:
        # Of what others raise, the message may hold a value of the state.
        is_ours = isinstance(error, (AssertionError, FlowneerError))
        raise AssertionError(f"{what}: {error if is_ours else f'{type(error).__qualname__} was raised'}") from error


def _told(points: Iterable[Point]) -> str:
    """Where a run has died, in words."""
    return ", then ".join(
        f"at commit {at} (unheard)" if how == "unheard" else f"{how} commit {at}" for at, how in points
    )


def _plan_of(flow: FlowBuilder[S]) -> Plan[Any]:
    return flow._plan  # pyright: ignore[reportPrivateUsage]
