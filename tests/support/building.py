"""From drawn flows to flows: the steps with bodies in them, and what a run of such a flow is told when it waits."""

from collections.abc import Callable
from typing import Any

from flowneer_async import FlowBuilder, Waiting, fragment, reducers
from flowneer_async.answers import NO_ANSWER
from tests.support.generated import Bodies, Made
from tests.support.generated_steps import Bad, Ctx, State, Steps, count, length


def built(made: Bodies) -> FlowBuilder[State]:
    """The flow that was drawn."""
    return _Building().body(FlowBuilder[State]("generated"), made, ())


def reply(wait: Waiting) -> object:
    """What a built flow is told when it waits."""
    if wait.kind == "signal":
        return NO_ANSWER if wait.name is None or wait.name.startswith("late") else {"to": wait.name}
    return [wait.question]


def merge(before: Any, values: list[Any]) -> Any:
    """What lanes made of one key, whichever of them was the first."""
    if isinstance(values[0], list):
        return reducers.append(before, values)
    return reducers.sum(before, values) if isinstance(values[0], int) else values[-1]


class _Building(Steps):
    def body(self, flow: FlowBuilder[State], made: Bodies, anchors: tuple[str, ...]) -> FlowBuilder[State]:
        """Add the members of a body; `anchors` are those that it can jump to."""
        names = [self._name(each.kind) for each in made]
        anchors += tuple(name for name, each in zip(names, made, strict=True) if each.kind == "anchor")
        for name, each in zip(names, made, strict=True):
            flow = getattr(self, f"_{each.kind.replace(' ', '_')}")(flow, name, each, anchors)
        return flow

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind.replace(' ', '_')}{self._names}"

    def _inside(self, made: Bodies, anchors: tuple[str, ...] = ()) -> FlowBuilder[State]:
        return self.body(fragment(), made, anchors)

    # Nests ------------------------------------------------------------------------------------------------------------

    def _sub(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        return flow.then(self._inside(made.bodies[0], anchors), name=name)

    def _again(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        """A body that jumps back to its beginning."""
        tried = self.body(fragment().anchor(f"{name}_top"), made.bodies[0], (*anchors, f"{name}_top"))
        return flow.then(self._hop(tried, f"{name}_hop", made, (f"{name}_top",)), name=name)

    def _rescued(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        body, rescue = made.bodies

        async def why(state: State, ctx: Ctx) -> None:
            assert ctx.failure is not None
            ctx.deps.do(ctx, ctx.failure.error)
            count(state, name, ctx)

        tried, told = fragment().anchor(f"{name}_again"), fragment().then(why, name=f"{name}_why")
        inside = self.body(tried, body, anchors)
        return flow.then(inside.on_error(self.body(told, rescue, (*anchors, f"{name}_again"))), name=name)

    def _branch(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        *cases, last = [self._inside(body, anchors) for body in made.bodies]
        return flow.branch(
            lambda state: f"case {length(state) % len(made.bodies)}",
            {f"case {number}": case for number, case in enumerate(cases)} or {"never": last},
            default=last,
            name=name,
        )

    def _loop(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        """By its index."""
        return flow.loop(lambda _, ctx: ctx.index < made.size, self._inside(made.bodies[0], anchors), name=name)

    def _rounds(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        """By what the state says."""
        tick, body = f"{name} ticks", self._inside(made.bodies[0], anchors)
        body = body.then(lambda state: count(state, tick), name=f"{name}_tick")
        flow = flow.then(lambda state: state.update({tick: 0}), name=f"{name}_reset")
        return flow.loop(lambda state: state[tick] < made.size, body, name=name)

    def _batch(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        return flow.batch(_items(made.size), self._inside(made.bodies[0], anchors), name=name)

    def _lanes(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        body = self._inside(made.bodies[0])
        return flow.batch(_items(made.size), body, name=name, concurrency=2, reducer=merge)

    def _lossy(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        return flow.batch(_items(made.size), self._failing(name, made), name=name, max_failures=made.size)

    def _lossy_lanes(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        body = self._failing(name, made)
        return flow.batch(_items(made.size), body, name=name, max_failures=made.size, concurrency=2, reducer=merge)

    def _failing(self, name: str, made: Made) -> FlowBuilder[State]:
        """A body that fails for every second item."""

        async def perhaps(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx, str(ctx.item))
            count(state, name, ctx)
            if ctx.index is not None and ctx.index % 2:
                raise Bad

        return self._inside(made.bodies[0]).then(perhaps, name=f"{name}_perhaps")

    def _parallel(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        lanes = [self._inside(body) for body in made.bodies]
        return flow.parallel(lanes, name=name, on_error="wait", reducer=merge)


def _items(size: int) -> Callable[[State], list[object]]:
    # Other ones each time that they are asked for.
    return lambda state: [{"item": number, "of": length(state)} for number in range(size)]
