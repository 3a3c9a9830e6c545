"""Flows of every kind of step, nested in one another: drawn as data, and built."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from flowneer_async import Context, FlowBuilder, Goto, Waiting, fragment, goto, reducers
from flowneer_async.answers import NO_ANSWER
from flowneer_async.testing import Effects

State = dict[str, Any]
Ctx = Context[Effects]

LEAVES = (
    *("task", "sync", "stream", "plain", "quiet", "drop", "flaky", "fallen", "once", "careful", "undoable"),
    *("anchor", "hop"),
)
WAITS = ("sleep", "signal", "late", "ask", "doubt")
NESTS = ("sub", "rescued", "branch", "loop", "rounds", "batch", "lanes", "lossy", "lossy lanes", "parallel")
DEPTH = 5


@dataclass(frozen=True)
class Made:
    """A member of a body: its kind, how often or how long, and the bodies in it."""

    kind: str
    size: int = 1
    bodies: "tuple[tuple[Made, ...], ...]" = ()

    def __repr__(self) -> str:
        inside = "".join(f", {list(body)}" for body in self.bodies)
        return f"({self.kind} {self.size}{inside})"


Bodies = tuple[Made, ...]


@st.composite
def bodies(draw: st.DrawFn, depth: int, fails: bool = False, waits: bool = True) -> Bodies:
    """A body with one nest in it, which is `depth` levels deep; with `fails`, a step in it fails for good."""
    before = draw(st.lists(leaves(waits), max_size=2))
    after = draw(st.lists(leaves(waits), max_size=1))
    middle = [draw(nests(depth, fails, waits))] if depth else [Made("fail")] if fails else [draw(leaves(waits))]
    return (*before, *middle, *after)


@st.composite
def leaves(draw: st.DrawFn, waits: bool) -> Made:
    """One step, but for its place."""
    return Made(draw(st.sampled_from(LEAVES + WAITS if waits else LEAVES)), draw(st.integers(1, 2)))


@st.composite
def nests(draw: st.DrawFn, depth: int, fails: bool, waits: bool) -> Made:
    """A step with bodies in it, one of which goes on `depth - 1` levels."""
    # Of two lanes that fail, either may be the first; so no lane of a batch does.
    kinds = [kind for kind in NESTS if not (fails and "l" in (kind[0], kind[-5:-4]) and kind != "loop")]
    kind, size = draw(st.sampled_from(kinds)), draw(st.sampled_from((1, 2, 2, 2, 3, 0)))
    fails = fails and kind not in ("rescued", "lossy", "lossy lanes")
    if fails:
        size = max(size, 1)
    others = draw(st.integers(0, 2)) if kind in ("branch", "parallel") else int(kind == "rescued")
    # A lane that waits would not be done when another has failed.
    calm = waits and not (fails and kind == "parallel")
    inside = [draw(bodies(depth - 1, fails or kind == "rescued", waits))]
    inside += [draw(bodies(draw(st.integers(0, 1)) if depth > 1 else 0, False, calm)) for _ in range(others)]
    if kind == "branch" and fails:
        inside = inside[:1]
    if kind == "parallel":
        inside = draw(st.permutations(inside))
    return Made(kind, size, tuple(inside))


def flows(depth: int = DEPTH) -> st.SearchStrategy[Bodies]:
    """Flows, of which every third fails in the end."""
    return st.sampled_from((False, False, True)).flatmap(lambda fails: bodies(depth, fails))


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


def built(made: Bodies) -> FlowBuilder[State]:
    """The flow that was drawn."""
    return _Building().body(FlowBuilder[State]("generated"), made, ())


class Bad(Exception):
    """What failing steps raise."""


def _count(state: State, key: str, ctx: Ctx | None = None) -> None:
    state[key] = state.get(key, 0) + 1
    if ctx is not None:
        state["trace"] = [*state.get("trace", []), ctx.step.removesuffix("/@verify")]


def _length(state: State) -> int:
    return len(state.get("trace", ()))


class _Building:
    def __init__(self) -> None:
        self._names = 0
        self._hops = 3

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

    # Steps ------------------------------------------------------------------------------------------------------------

    def _task(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            _count(state, name, ctx)

        return flow.then(step, name=name)

    def _sync(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        def step(state: State, ctx: Ctx) -> None:
            _count(state, name, ctx)
            ctx.deps.do(ctx)

        return flow.then(step, name=name)

    def _stream(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> Any:
            ctx.deps.do(ctx, "one")
            yield 1
            _count(state, name, ctx)
            ctx.deps.do(ctx, "two")
            yield 2

        return flow.then(step, name=name)

    def _plain(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State) -> None:
            _count(state, name)

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
            _count(state, name, ctx)
            ctx.deps.do(ctx)
            if ctx.attempt <= made.size:
                raise Bad

        return flow.then(step, name=name, retries=2, delay=1)

    def _fallen(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            _count(state, "in vain")
            raise Bad

        async def fallback(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            _count(state, name, ctx)

        return flow.then(step, name=name, fallback=fallback, retries=made.size - 1)

    def _once(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            async def call(number: int) -> int:
                ctx.deps.do(ctx, f"call {number}")
                return _length(state)

            for number in range(made.size):
                state[name] = state.get(name, 0) + await ctx.once(f"call {number}", call, number)
            _count(state, name, ctx)

        return flow.then(step, name=name)

    def _careful(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            _count(state, name, ctx)

        def verify(state: State, ctx: Ctx) -> bool:
            if ctx.deps.done(ctx):
                _count(state, name, ctx)
            return ctx.deps.done(ctx)

        return flow.then(step, name=name, delivery="at_most_once", verify=verify)

    def _undoable(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            _count(state, name, ctx)

        async def undo(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx, f"undone {ctx.item} {ctx.index}")
            _count(state, name, ctx)

        return flow.then(step, name=name, compensate=undo)

    def _fail(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)
            _count(state, "in vain")
            raise Bad

        return flow.then(step, name=name)

    # Jumps ------------------------------------------------------------------------------------------------------------

    def _anchor(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        return flow.anchor(name, 50 if made.size == 1 else None)

    def _hop(self, flow: Any, name: str, made: Made, anchors: tuple[str, ...]) -> Any:
        self._hops -= 1
        if not anchors or self._hops < 0:
            return self._task(flow, name, made, anchors)
        anchor = anchors[self._names % len(anchors)]

        async def step(state: State, ctx: Ctx) -> Goto | str | None:
            ctx.deps.do(ctx)
            _count(state, name, ctx)
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
            _count(state, name, ctx)

        return flow.wait_for(name, timeout=made.size * 700, fallback=fallback)

    def _ask(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            _count(state, name, ctx)
            state[f"{name} said"] = [await ctx.interrupt(number) for number in range(made.size)][-1:]
            ctx.deps.do(ctx)

        return flow.then(step, name=name)

    def _doubt(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        async def step(state: State, ctx: Ctx) -> None:
            ctx.deps.do(ctx)

        return flow.then(step, name=name, delivery="at_most_once")

    # Nests ------------------------------------------------------------------------------------------------------------

    def _sub(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        return flow.then(self._inside(made.bodies[0], anchors), name=name)

    def _rescued(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        body, rescue = made.bodies

        async def why(state: State, ctx: Ctx) -> None:
            assert ctx.failure is not None
            ctx.deps.do(ctx, ctx.failure.error)
            _count(state, name, ctx)

        told = fragment().then(why, name=f"{name}_why")
        inside = self._inside(body, anchors).on_error(self.body(told, rescue, anchors))
        return flow.then(inside, name=name)

    def _branch(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        *cases, last = [self._inside(body, anchors) for body in made.bodies]
        return flow.branch(
            lambda state: f"case {_length(state) % len(made.bodies)}",
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
        body = body.then(lambda state: _count(state, tick), name=f"{name}_tick")
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
            _count(state, name, ctx)
            if ctx.index is not None and ctx.index % 2:
                raise Bad

        return self._inside(made.bodies[0]).then(perhaps, name=f"{name}_perhaps")

    def _parallel(self, flow: Any, name: str, made: Made, anchors: Any) -> Any:
        lanes = [self._inside(body) for body in made.bodies]
        return flow.parallel(lanes, name=name, on_error="wait", reducer=merge)


def _items(size: int) -> Callable[[State], list[object]]:
    # Other ones each time that they are asked for.
    return lambda state: [{"item": number, "of": _length(state)} for number in range(size)]
