"""Flows of every kind of step, nested in one another, drawn as data."""

from dataclasses import dataclass

from hypothesis import strategies as st

LEAVES = (
    *("task", "sync", "stream", "plain", "quiet", "drop", "flaky", "fallen", "once", "careful", "undoable"),
    *("anchor", "hop", "hop"),
)
WAITS = ("sleep", "signal", "late", "ask", "doubt")
NESTS = ("sub", "again", "rescued", "branch", "loop", "rounds", "batch", "lanes", "lossy", "lossy lanes", "parallel")
# Of two lanes that fail, either may be the first; so no lane of a batch fails for good.
FAILING = tuple(kind for kind in NESTS if kind not in ("lanes", "lossy", "lossy lanes"))
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
    kind, size = draw(st.sampled_from(FAILING if fails else NESTS)), draw(st.sampled_from((1, 2, 2, 2, 3, 0)))
    fails = fails and kind != "rescued"
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
