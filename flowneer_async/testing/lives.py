"""One run in as many processes as it takes, until it has ended."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, cast

from flowneer_async.answers import NO_ANSWER
from flowneer_async.errors import FailedBefore, FlowError, RunError, StateError, StoreFailed, Undone
from flowneer_async.events import Failure, Waiting
from flowneer_async.flow import FlowBuilder
from flowneer_async.runner import Result
from flowneer_async.steps import S
from flowneer_async.store import VersionStore
from flowneer_async.testing.crashes import Crash, CrashingStore, How
from flowneer_async.testing.effects import Effects
from flowneer_async.testing.world import FakeWorld
from flowneer_async.versions import Status

Reply: TypeAlias = Callable[[Waiting], object]
"""What a run that waits is told: the payload of the signal, or the answer; NO_ANSWER to let the time pass instead."""

Point: TypeAlias = tuple[int, How]
"""The number of the commit at which a process dies, and how."""

_MOST = 1000  # times that a run is taken up again
_DOWNTIME = 0.25  # seconds from a crash to the next process: a time limit that begins anew is seen


def no_reply(wait: Waiting) -> object:
    """Let the time pass."""
    return NO_ANSWER


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended: the step that failed, and the items that were given up."""

    status: Status
    failure: Failure | None = None
    given_up: tuple[Failure, ...] = ()


@dataclass
class Trial(Generic[S]):
    """One run of a flow, its outside world, and those who start it, and give it what it waits for."""

    flow: FlowBuilder[S]
    store: VersionStore
    run_id: str
    state: S | None
    reply: Reply
    world: FakeWorld
    deps: Callable[[Effects], object]
    effects: Effects = field(default_factory=Effects)
    commits: int = field(default=0, init=False)
    """Those of the first process."""
    sent: Counter[str] = field(default_factory=Counter[str], init=False)
    """How many signals of each name it was sent."""
    _asked: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set), init=False)

    async def run(self, points: Sequence[Point] = ()) -> End:
        """Run to the end, in a process that dies at each of these points in turn, and then one that does not."""
        never: Point = (0, "before")
        for point in (*points, never):
            process = CrashingStore(self.store, *point)
            end = await self._life(process)
            self.commits = self.commits or process.commits
            if end is not None and not process.reached:
                return end
            await process.die()
            self.effects.life += 1
            self.world.move(_DOWNTIME)
        raise AssertionError("a process that does not die has ended without an end")

    async def _life(self, process: CrashingStore) -> End | None:
        """One process, to the end of the run or its own."""
        self.effects.process = process
        flow = self.flow._with(store=process)  # pyright: ignore[reportPrivateUsage]
        try:
            return await self._to_the_end(flow)
        except (RunError, StateError) as error:
            return End("failed", _failure(error))
        except Crash:
            return None
        except StoreFailed:
            if not process.reached:
                raise
            return None

    async def _to_the_end(self, flow: FlowBuilder[S]) -> End:
        """Run, and take the run up again as often as it waits."""
        told = self.deps(self.effects)
        result = await flow.run(deepcopy(self.state), run_id=self.run_id, deps=told, world=self.world)
        for _ in range(_MOST):
            if result.status != "waiting":
                return End(result.status, None, tuple(sorted(result.failures, key=lambda each: each.step)))
            result = await self._go_on(flow, result.waits, told)
        raise AssertionError(f"it waits at {result.waits[0].step!r} again and again")

    async def _go_on(self, flow: FlowBuilder[S], waits: Sequence[Waiting], deps: object) -> Result[S]:
        """Let the time pass, send the signal or give the answer that the run waits for."""
        wait, said = self._next(waits)
        answer, at = cast(object, NO_ANSWER), None
        if said is NO_ANSWER:
            assert wait.until is not None, f"nobody has an answer for {wait.step!r}: give reply=…"
            self.world.move(max(0, wait.until - self.world.now()) / 1000)
        elif wait.kind == "signal":
            await self._send(flow, waits, cast(str, wait.name), said)
        else:
            answer, at = said, wait.step
        return await flow.resume(self.run_id, answer=answer, at=at, deps=deps, world=self.world)

    def _next(self, waits: Sequence[Waiting]) -> tuple[Waiting, object]:
        """The first wait that has a reply, or else the one whose time comes first."""
        for wait in waits:
            if wait.kind != "sleep":
                said = self.effects.has(wait.step) if wait.kind == "doubt" else self.reply(wait)
                if said is not NO_ANSWER:
                    return wait, said
        return min(waits, key=lambda wait: (wait.until is None, wait.until or 0)), NO_ANSWER

    async def _send(self, flow: FlowBuilder[S], waits: Sequence[Waiting], name: str, payload: object) -> None:
        """Send a signal, one at most for each step that has waited for it."""
        self._asked[name].update(wait.step for wait in waits if wait.name == name)
        self.sent[name] += 1
        assert self.sent[name] <= len(self._asked[name]), f"signal {name!r} was sent, and is waited for again"
        await flow.signal(self.run_id, name, payload)


def _failure(error: RunError | StateError) -> Failure:
    """What failed, whether this process has seen it or an earlier one."""
    if isinstance(error, (Undone, FailedBefore)):
        return Failure(error.step, error.error)
    cause: BaseException = error.cause if isinstance(error, FlowError) else error
    kind = cause.error if isinstance(cause, FailedBefore) else type(cause).__qualname__
    return Failure(str(getattr(error, "step", "")), kind)
