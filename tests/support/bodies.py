"""Bodies of flows to draw and to describe: of all kinds of steps, nested, with names that mean something elsewhere."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, cast

from hypothesis import strategies as st

from flowneer_async.cursor import quoted
from flowneer_async.defining import check_name, new_call, new_task
from flowneer_async.errors import BadName
from flowneer_async.picture import Progress
from flowneer_async.steps import Anchor, Batch, Body, Branch, Call, Loop, Node, Parallel, Sleep, Sub, Task, Wait

AnyBody: TypeAlias = Body[Any]
AnyNode: TypeAlias = Node[Any]

NASTY = [
    *(
        "end",
        "End",
        "subgraph",
        "graph",
        "class",
        "classDef x",
        "style",
        "click",
        "default",
        "direction TB",
        "my direction  LR",
        "o",
        "x",
    ),
    *('"', "'", "`", "`a`", '"]', "]", "[[", ")", "((", "{", "}}", "|", "||", "<", ">", "&", "&amp;", "#", ";", "\\"),
    *("#35;", "#quot;", "&#35;", "ﬂ°°35¶ß", "ﬂ°quot¶ß", "ﬂ", "style a:b#c;", "classDef a:b#c;", ":::done", "a@{x: y}"),
    *("%%", "%% a", "%%{init: {}}%%", "---", "--- a", "-->", "-.->", "==>", "--x", "a --> b", "~~~", "...", "$$x$$"),
    *("<script>alert(1)</script>", "<b>a</b>", "<br/>", "<img src=x onerror=alert(1)>", "javascript:alert(1)"),
    *("**a**", "_a_", "__a__", "a_b", "_", "*", "- a", "-", "+ a", "1. a", "1) a", "# a", "> a", "~~a~~", "[a](b)"),
    *(
        "https://a.b/c?d=e",
        "www.a.b",
        "a@b.c",
        "fa:fa-car",
        "{{x}}",
        "%s",
        "$x",
        " ",
        "  ",
        " a",
        "a ",
        "a  b",
        "    a",
    ),
    *(
        "é",
        "日本",
        "😀",
        "e\u0301",
        "مرحبا",
        "İ",
        "½",
        "~",
        "/",
        "a/b",
        "a[1]",
        "a~1",
        "%41",
        "start",
        "finish",
        "s1",
        "t1",
    ),
]
"""Words of Mermaid, Markdown, HTML, YAML and of paths."""


def _is_name(text: str) -> bool:
    try:
        check_name("step", text)
    except BadName:
        return False
    return True


_texts = st.text(st.characters(exclude_categories=["C"]), min_size=1).filter(_is_name)
_names = st.sampled_from(NASTY) | _texts


@st.composite
def _name(draw: st.DrawFn) -> str:
    return draw(_names)


names = _name()
"""What a step may be called."""


def ask(state: dict[str, Any]) -> Any:
    """A question to the state."""


def call(fn: Callable[..., object] = ask) -> Call:
    return new_call("flow", fn)


def task(name: str, *targets: str, **options: Any) -> Task[Any]:
    """A step, whose annotation says that it may jump to `targets`."""

    def step(state: dict[str, Any]) -> None:
        pass

    if targets:
        step.__annotations__["return"] = cast(Any, Literal)[tuple(f"#{target}" for target in targets)] | None
    return new_task("flow", step, name, **options)


def body(*nodes: AnyNode | str, on_error: AnyBody | None = None) -> AnyBody:
    """Steps one after the other; a name alone is a task."""
    steps = [task(node) if isinstance(node, str) else node for node in nodes]
    return Body({node.name: node for node in steps}, on_error)


def sub(name: str, inner: AnyBody) -> AnyNode:
    return Sub(name, quoted(name), inner)


def branch(name: str, cases: dict[str, AnyBody], default: AnyBody | None = None) -> AnyNode:
    return Branch(name, quoted(name), call(), cases, default)


def loop(name: str, inner: AnyBody, condition: Callable[..., object] = ask) -> AnyNode:
    return Loop(name, quoted(name), call(condition), inner)


def batch(name: str, inner: AnyBody, **options: Any) -> AnyNode:
    return Batch(name, quoted(name), call(), inner, **options)


def parallel(name: str, *lanes: AnyBody, labels: Sequence[str] | None = None, **options: Any) -> AnyNode:
    called = tuple(next(iter(lane.steps)) for lane in lanes) if labels is None else tuple(labels)
    return Parallel(name, quoted(name), lanes, called, **options)


def anchor(name: str, max_visits: int | None = None) -> AnyNode:
    return Anchor(name, quoted(name), max_visits)


def sleep(name: str, until: Any = 5.0) -> AnyNode:
    return Sleep(name, quoted(name), until)


def wait(name: str, **options: Any) -> AnyNode:
    return Wait(name, quoted(name), name, options.pop("into", None), **options)


_asides = st.sampled_from([{}, {"compensate": ask}, {"fallback": ask}, {"compensate": ask, "fallback": ask}])


@st.composite
def _leaf(draw: st.DrawFn) -> AnyNode:
    name, kind = draw(names), draw(st.sampled_from([task, task, task, anchor, sleep, wait]))
    if kind is task:
        return task(name, *draw(st.lists(names, max_size=2)), **draw(_asides))
    return wait(name, fallback=draw(st.sampled_from([None, call()]))) if kind is wait else kind(name)


@st.composite
def _nested(draw: st.DrawFn, depth: int) -> AnyNode:
    name, kind, inner = draw(names), draw(st.sampled_from([sub, loop, batch, parallel, branch])), _body(depth - 1)
    if kind is branch:
        cases = draw(st.dictionaries(names, inner, min_size=1, max_size=2))
        return branch(name, cases, draw(st.none() | inner))
    if kind is parallel:
        return parallel(name, *draw(st.lists(inner, min_size=1, max_size=3)))
    if kind is batch:
        return batch(name, draw(inner), concurrency=draw(st.integers(1, 3)))
    return (
        loop(name, draw(inner), draw(st.sampled_from([ask, lambda state: True])))
        if kind is loop
        else sub(name, draw(inner))
    )


@st.composite
def _body(draw: st.DrawFn, depth: int) -> AnyBody:
    nodes = _leaf() | _nested(depth) if depth else _leaf()
    members = draw(st.lists(nodes, min_size=1, max_size=3, unique_by=lambda node: node.name))
    rescued = depth and draw(st.integers(0, 3)) == 3
    return body(*members, on_error=draw(_body(depth - 1)) if rescued else None)


bodies = _body(3)
"""Bodies of all kinds of steps, nested in one another, four levels deep."""


@st.composite
def marked(draw: st.DrawFn, paths: Sequence[str]) -> Progress:
    """Some progress on steps of these paths, and on others that are not there."""
    some = st.frozensets(st.sampled_from([*paths, "nowhere"]))
    return Progress(draw(some), draw(some), draw(some), draw(some))
