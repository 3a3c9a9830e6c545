"""A flow as a Mermaid flowchart.

Steps are numbered as `outline.located` gives them: step 3 is the box or the subgraph `s3`. What belongs to it has its
number too: the fork `f3` and join `j3` of a batch or a parallel, the lanes `l3_0`, `l3_1`, the head `h3` of a loop, the
undoing `u3` and the fallback `b3` of a step. A body with an `on_error` stands in a subgraph `t1`, the other in `e1`.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from flowneer_async.cursor import ERROR
from flowneer_async.outline import Inner, beneath, inners
from flowneer_async.picture.describe import jumps_of
from flowneer_async.picture.labels import label
from flowneer_async.picture.progress import Progress
from flowneer_async.steps import Anchor, Batch, Body, Branch, Call, Loop, Node, Parallel, Sleep, Sub, Task, Wait

_STYLES = {
    "done": "fill:#d8f3dc,stroke:#2d6a4f,color:#1b4332",
    "current": "fill:#dbeafe,stroke:#1d4ed8,color:#1e3a8a,stroke-width:3px",
    "waiting": "fill:#fef3c7,stroke:#b45309,color:#78350f,stroke-width:3px",
    "failed": "fill:#fee2e2,stroke:#b91c1c,color:#7f1d1d,stroke-width:3px",
    "aside": "stroke-dasharray:5 4",
}


def to_mermaid(name: str, body: Body[Any], progress: Progress | None = None) -> str:
    """The flow `name` as the text of a Mermaid flowchart; with `progress`, its steps are coloured.

    Mermaid itself draws no more than 500 arrows and 50,000 characters, unless its `maxEdges` and `maxTextSize` say so.
    """
    drawing = _Drawing(progress)
    drawing.box("start", "([", name, "])")
    last = drawing.body(Inner("", body), (_Exit("start"),))
    drawing.box("finish", "([", "end", "])")
    drawing.arrows(last, "finish")
    return drawing.text()


@dataclass(frozen=True, slots=True)
class _Exit:
    """Where an arrow begins, and what stands on it."""

    box: str
    label: str | None = None
    dotted: bool = False


_Exits: TypeAlias = tuple[_Exit, ...]
_Scopes: TypeAlias = tuple[dict[str, str], ...]
"""The boxes of the anchors by their names, of each body around a step, the innermost last."""


class _Drawing:
    """Draws one body after the other. What draws is given the arrows that lead there, and returns those that go on."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._lines: list[str] = []
        # Arrows come after all boxes: in a subgraph, they would draw the boxes at both ends into it.
        self._arrows: list[str] = []
        self._jumps: list[tuple[str, str, _Scopes]] = []
        self._classes: dict[str, list[str]] = {}
        self._scopes: _Scopes = ()
        self._depth = self._steps = self._rescues = 0

    def text(self) -> str:
        """The whole diagram."""
        for box, anchor, scopes in self._jumps:
            self._jump(box, anchor, scopes)
        used = [name for name in _STYLES if name in self._classes]
        styles = [f"classDef {name} {_STYLES[name]}" for name in used]
        members = [f"class {','.join(self._classes[name])} {name}" for name in used]
        rest = [f"    {line}" for line in (*self._arrows, *styles, *members)]
        return "\n".join(("flowchart TD", *self._lines, *rest)) + "\n"

    def box(self, id: str, left: str, text: str, right: str) -> None:
        self._line(f"{id}{left}{label(text)}{right}")

    def arrows(self, exits: _Exits, box: str) -> None:
        for each in exits:
            line = "-.->" if each.dotted else "-->"
            text = "" if each.label is None else f"|{label(each.label)}|"
            self._arrows.append(f"{each.box} {line}{text} {box}")

    def body(self, inner: Inner, into: _Exits) -> _Exits:
        """The steps of a body, and what it does on an error."""
        outer, self._scopes = self._scopes, (*self._scopes, {})
        try:
            return self._rescued(inner, inner.body.on_error, into)
        finally:
            self._scopes = outer

    def _rescued(self, inner: Inner, on_error: Body[Any] | None, into: _Exits) -> _Exits:
        if on_error is None:
            return self._all(inner, into)
        self._rescues += 1
        tried, rescue = f"t{self._rescues}", f"e{self._rescues}"
        with self._group(tried, "try"):
            exits = self._all(inner, into)
        self._class(rescue, "aside")
        with self._group(rescue, "on error"):
            failed = _Exit(tried, "error", dotted=True)
            return exits + self.body(Inner(beneath(inner.path, ERROR), on_error), (failed,))

    def _all(self, inner: Inner, into: _Exits) -> _Exits:
        for node in inner.body.order:
            self._steps += 1
            into = self._step(self._steps, beneath(inner.path, node.quoted), node, into)
        return into

    def _step(self, number: int, path: str, node: Node[Any], into: _Exits) -> _Exits:
        mark = "ahead" if self._progress is None else self._progress.mark(path)
        if mark != "ahead":
            self._class(f"s{number}", mark)
        match node:
            case Branch():
                return self._branch(number, path, node, into)
            case Loop():
                return self._loop(number, path, node, into)
            case Batch() | Parallel():
                return self._lanes(number, path, node, into)
            case Sub():
                with self._group(f"s{number}", node.name):
                    return self.body(Inner(path, node.body), into)
            case _:
                return self._plain(number, node, into)

    def _plain(self, number: int, node: Task[Any] | Anchor | Sleep[Any] | Wait[Any], into: _Exits) -> _Exits:
        box = f"s{number}"
        match node:
            case Anchor():
                self.box(box, "((", node.name, "))")
                self._scopes[-1][node.name] = box
            case Sleep():
                self.box(box, "{{", node.name, "}}")
            case Wait():
                self.box(box, "([", node.name, "])")
            case Task():
                self.box(box, "[", node.name, "]")
                self._jumping(box, node.call)
        self.arrows(into, box)
        return (_Exit(box), *self._asides(number, node))

    def _asides(self, number: int, node: Node[Any]) -> _Exits:
        """What undoes a step, and what takes its place: from that the flow goes on."""
        if isinstance(node, Task) and node.compensate is not None:
            self._aside(f"u{number}", f"s{number}", node.compensate, "undo")
        if isinstance(node, (Task, Wait)) and node.fallback is not None:
            self._aside(f"b{number}", f"s{number}", node.fallback, "fallback")
            self._jumping(f"b{number}", node.fallback.fn)
            return (_Exit(f"b{number}"),)
        return ()

    def _aside(self, id: str, box: str, call: Call, text: str) -> None:
        self.box(id, "[", _named(call), "]")
        self.arrows((_Exit(box, text, dotted=True),), id)
        self._class(id, "aside")

    def _branch(self, number: int, path: str, node: Branch[Any], into: _Exits) -> _Exits:
        self.box(f"s{number}", "{", node.name, "}")
        self.arrows(into, f"s{number}")
        cases = [self.body(each, (_Exit(f"s{number}", each.case),)) for each in inners(path, node)]
        return tuple(exit for case in cases for exit in case)

    def _loop(self, number: int, path: str, node: Loop[Any], into: _Exits) -> _Exits:
        head, condition = f"h{number}", _named(node.condition)
        with self._group(f"s{number}", node.name):
            self.box(head, "{", f"while {condition}", "}")
            self.arrows(into, head)
            for each in self.body(Inner(path, node.body), (_Exit(head, "yes"),)):
                self.arrows((_Exit(each.box, each.label or condition, each.dotted),), head)
        return (_Exit(head, "no"),)

    def _lanes(self, number: int, path: str, node: Batch[Any] | Parallel[Any], into: _Exits) -> _Exits:
        fork, join = f"f{number}", f"j{number}"
        with self._group(f"s{number}", node.name):
            self.box(fork, "[/", _of_fork(node), "\\]")
            self.arrows(into, fork)
            for each in inners(path, node):
                self.arrows(self._lane(number, node, each, (_Exit(fork),)), join)
            self.box(join, "[\\", "join", "/]")
        return (_Exit(join),)

    def _lane(self, number: int, node: Batch[Any] | Parallel[Any], inner: Inner, into: _Exits) -> _Exits:
        if isinstance(node, Batch) and not node.in_lanes:
            return self.body(inner, into)
        outer, self._scopes = self._scopes, ()  # no jump leads out of a lane
        try:
            if isinstance(node, Batch) or inner.lane is None:
                return self.body(inner, into)
            with self._group(f"l{number}_{inner.lane}", node.labels[inner.lane]):
                return self.body(inner, into)
        finally:
            self._scopes = outer

    def _jumping(self, box: str, fn: object) -> None:
        """Drawn in the end: where they lead may come later."""
        self._jumps += ((box, anchor, self._scopes) for anchor in jumps_of(fn))

    def _jump(self, box: str, anchor: str, scopes: _Scopes) -> None:
        for scope in reversed(scopes):
            if anchor in scope:
                self.arrows((_Exit(box, f"#{anchor}", dotted=True),), scope[anchor])
                return

    @contextmanager
    def _group(self, id: str, title: str) -> Generator[None]:
        self._line(f"subgraph {id}[{label(title)}]")
        self._depth += 1
        yield
        self._depth -= 1
        self._line("end")

    def _line(self, text: str) -> None:
        self._lines.append("    " * (self._depth + 1) + text)

    def _class(self, id: str, name: str) -> None:
        self._classes.setdefault(name, []).append(id)


def _of_fork(node: Batch[Any] | Parallel[Any]) -> str:
    if isinstance(node, Parallel):
        return "fork"
    at_once = f", {node.concurrency} at once" if node.concurrency > 1 else ""
    return f"each of {_named(node.items)}{at_once}"


def _named(call: Call) -> str:
    """What people call a function."""
    name = getattr(call.fn, "__name__", "")
    return name if isinstance(name, str) and name.isidentifier() else "function"
