"""What the steps of a run do outside of it."""

from dataclasses import dataclass
from typing import Any, Protocol

from flowneer_async.context import Context
from flowneer_async.testing.crashes import Crash


class _Process(Protocol):
    @property
    def crashed(self) -> bool: ...


class _Immortal:
    crashed = False


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that the step at `step` has done outside, in life number `life` of its run."""

    step: str
    what: str
    life: int


class Effects:
    """The outside world of one run: where its steps report what they do there, to be given to them as `deps`.

        async def charge(state, ctx):
            ctx.deps.do(ctx, "charged")

    It lives on when a process dies; what a dead process would do does not happen.
    """

    def __init__(self) -> None:
        self.all: list[Effect] = []
        """All that has happened, in its order."""
        self.life = 0
        """The number of the process that is at work: how many have died."""
        self.process: _Process = _Immortal()

    def do(self, ctx: Context[Any], what: str = "") -> None:
        """It happens, on behalf of the step whose context this is."""
        if self.process.crashed:
            raise Crash
        self.all.append(Effect(_step(ctx), what, self.life))

    def done(self, ctx: Context[Any], what: str = "") -> bool:
        """Has it happened before? For `verify`."""
        return any((effect.step, effect.what) == (_step(ctx), what) for effect in self.all)

    def has(self, step: str) -> bool:
        """Has the step at this path done anything?"""
        return any(effect.step == step for effect in self.all)


def _step(ctx: Context[Any]) -> str:
    """The part of the key that is the same in every run of a flow."""
    return ctx.idempotency_key.removeprefix(f"{ctx.run_id}/").removesuffix("/@verify")
