"""The steps of drawn flows: what each does is a function of the state, and is told to the outside world."""

from typing import Any

from flowneer_async import Context, Goto, goto
from flowneer_async.testing import Effects
from tests.support.generated import Made

State = dict[str, Any]
Ctx = Context[Effects]


class Bad(Exception):
    """What failing steps raise."""


def count(state: State, key: str, ctx: Ctx | None = None) -> None:
    state[key] = state.get(key, 0) + 1
    if ctx is not None:
        state["trace"] = [*state.get("trace", []), ctx.step.removesuffix("/@verify")]


def length(state: State) -> int:
    return len(state.get("trace", ()))


class Steps:
    """A method for each kind: adds the step to a flow; `anchors` are those that it can jump to."""

    def __init__(self) -> None:
        self._names = 0
        self._hops = 3

    # Steps ------------------------------------------------------------------------------------------------------------

    def _task(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            count(state, name, ctx)

        return flow.then(step, name=name)

    def _sync(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        def step(state: State, ctx: Ctx) -> None:
            count(state, name, ctx)
            ctx.deps.do(ctx)

        return flow.then(step, name=name)

    def _stream(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> Any:
            ctx.deps.do(ctx, "one")
            yield 1
            count(state, name, ctx)
            ctx.deps.do(ctx, "two")
            yield 2

        return flow.then(step, name=name)

    def _plain(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State) -> None:
            count(state, name)

        return flow.then(step, name=name)

    def _quiet(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)

        return flow.then(step, name=name)

    def _drop(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        def put(state: State) -> None:
            state[f"{name} in vain"] = name

        def drop(state: State, ctx: Ctx) -> None:
            del state[f"{name} in vain"]

        return flow.then(put, name=f"{name}_put").then(drop, name=name)

    def _flaky(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            count(state, name, ctx)
            ctx.deps.do(ctx)
            if ctx.attempt <= made.size:
                raise Bad

        return flow.then(step, name=name, retries=2, delay=1)

    def _fallen(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            count(state, "in vain")
            raise Bad

        async def fallback(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            count(state, name, ctx)

        return flow.then(step, name=name, fallback=fallback, retries=made.size - 1)

    def _once(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            async def call(number: int) -> int:
                ctx.deps.do(ctx, f"call {number}")
                return length(state)

            for number in range(made.size):
                state[name] = state.get(name, 0) + await ctx.once(f"call {number}", call, number)
            count(state, name, ctx)

        return flow.then(step, name=name)

    def _careful(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            count(state, name, ctx)

        def verify(state: State, ctx: Ctx) -> bool:
            if ctx.deps.done(ctx):
                count(state, name, ctx)
            return ctx.deps.done(ctx)

        return flow.then(step, name=name, delivery="at_most_once", verify=verify)

    def _undoable(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            count(state, name, ctx)

        async def undo(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx, f"undone {ctx.item} {ctx.index}")
            count(state, name, ctx)

        return flow.then(step, name=name, compensate=undo)

    def _fail(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            count(state, "in vain")
            raise Bad

        return flow.then(step, name=name)

    # Jumps ------------------------------------------------------------------------------------------------------------

    def _anchor(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        return flow.anchor(name, 50 if made.size == 1 else None)

    def _hop(self, flow: Any, name: str, made: Made, anchors: tuple[str, ...]) -> Any:
        if not anchors or self._hops == 0:
            return self._task(flow, name, made, anchors)
        self._hops -= 1
        anchor = anchors[self._names % len(anchors)]

        async def step(state: State, ctx: Ctx) -> Goto | str | None:
            ctx.deps.do(ctx)
            count(state, name, ctx)
            if state[name] > made.size:
                return None
            return goto(anchor) if made.size == 1 else f"#{anchor}"

        return flow.then(step, name=name)

    # Waiting ----------------------------------------------------------------------------------------------------------

    def _sleep(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        return flow.sleep(made.size * 1000, name=name)

    def _signal(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        return flow.wait_for(name, into=f"{name} said", timeout=None if made.size == 1 else 5000)

    def _late(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def fallback(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            count(state, name, ctx)

        return flow.wait_for(name, timeout=made.size * 700, fallback=fallback)

    def _ask(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            count(state, name, ctx)
            state[f"{name} said"] = [await ctx.interrupt(number) for number in range(made.size)][-1:]
            ctx.deps.do(ctx)

        return flow.then(step, name=name)

    def _doubt(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)

        return flow.then(step, name=name, delivery="at_most_once")
