"""A flow as plain dicts and lists, which JSON can hold."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from datetime import datetime, timedelta
from typing import Any, NotRequired, TypeAlias, TypedDict, Union, cast, get_origin

from flowneer_async.cursor import ERROR
from flowneer_async.defining import literals_of
from flowneer_async.outline import Inner, Kind, beneath, fingerprint, inners, kind_of
from flowneer_async.picture.progress import Mark, Progress
from flowneer_async.policy import Backoff
from flowneer_async.steps import Body, Node, Parallel, Task, Wait

Json: TypeAlias = Union[str, int, float, bool, "list[Json]", "dict[str, Json]", None]

# What is no option: shown elsewhere, or follows from the rest.
_STRUCTURE = frozenset(
    ("name", "quoted", "call", "wants_context", "is_plain", "body", "cases", "default", "lanes", "labels")
)


class DescribedBody(TypedDict):
    """A body: its steps in their order, and what it does on an error.

    `case` is there in a branch; `lane`, a number from 0, and `label` in a parallel.
    """

    case: NotRequired[str]
    lane: NotRequired[int]
    label: NotRequired[str]
    steps: list["DescribedStep"]
    on_error: NotRequired["DescribedBody"]


class DescribedStep(TypedDict):
    """A step; `options` holds those that are set, `jumps` the anchors that its annotation names.

    A function is shown as "function". `status` is there when a run's progress was given.
    """

    name: str
    path: str
    kind: Kind
    status: NotRequired[Mark]
    options: dict[str, Json]
    jumps: NotRequired[list[str]]
    bodies: NotRequired[list[DescribedBody]]


class Described(TypedDict):
    """A flow; `fingerprint` changes with the kinds, the paths and the order of its steps, and with nothing else."""

    name: str
    fingerprint: str
    steps: list[DescribedStep]
    on_error: NotRequired[DescribedBody]


def describe(name: str, body: Body[Any], progress: Progress | None = None) -> Described:
    """The flow `name` as plain dicts and lists; with `progress`, each step has a status."""
    whole = _body(Inner("", body), progress, {})
    described = Described(name=name, fingerprint=fingerprint(body), steps=whole["steps"])
    if "on_error" in whole:
        described["on_error"] = whole["on_error"]
    return described


def jumps_of(fn: object) -> tuple[str, ...]:
    """The anchors that the annotation of a function names, `-> Literal["#name"] | None`."""
    return tuple(text[1:] for text in literals_of(fn) if text.startswith("#"))


def _body(inner: Inner, progress: Progress | None, head: dict[str, Json]) -> DescribedBody:
    steps = [_step(inner.path, node, progress) for node in inner.body.order]
    described = cast(DescribedBody, {**head, "steps": steps})
    if inner.body.on_error is not None:
        described["on_error"] = _body(Inner(beneath(inner.path, ERROR), inner.body.on_error), progress, {})
    return described


def _step(above: str, node: Node[Any], progress: Progress | None) -> DescribedStep:
    path = beneath(above, node.quoted)
    described = DescribedStep(name=node.name, path=path, kind=kind_of(node), options=_options(node))
    if progress is not None:
        described["status"] = progress.mark(path)
    if jumps := _jumps(node):
        described["jumps"] = jumps
    if bodies := inners(path, node):
        described["bodies"] = [_body(each, progress, _head(node, each)) for each in bodies]
    return described


def _jumps(node: Node[Any]) -> list[str]:
    """Where a step may go on, or what takes its place."""
    functions: list[object] = [node.call] if isinstance(node, Task) else []
    if isinstance(node, (Task, Wait)) and node.fallback is not None:
        functions.append(node.fallback.fn)
    return list(dict.fromkeys(anchor for fn in functions for anchor in jumps_of(fn)))


def _head(node: Node[Any], inner: Inner) -> dict[str, Json]:
    """What tells a body from its neighbours."""
    if inner.case is not None:
        return {"case": inner.case}
    if isinstance(node, Parallel) and inner.lane is not None:
        return {"lane": inner.lane, "label": node.labels[inner.lane]}
    return {}


def _options(node: Node[Any]) -> dict[str, Json]:
    """The options that are set, by their names."""
    given: dict[str, tuple[object, object]] = {
        field.name: (getattr(node, field.name), None if field.default is MISSING else field.default)
        for field in fields(node)
        if field.name not in _STRUCTURE
    }
    return {name: _shown(value) for name, (value, default) in given.items() if _is_set(value, default)}


def _is_set(value: object, default: object) -> bool:
    # Only plain values are compared: what == does is up to others.
    return value is not default and not (isinstance(value, (int, float, str, tuple)) and value == default)


def _shown(value: object) -> Json:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Backoff):
        return asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _shown(each) for key, each in cast(Mapping[object, object], value).items()}
    if isinstance(value, tuple):
        return [_shown(each) for each in cast(tuple[object, ...], value)]
    return _of_code(value)


def _of_code(value: object) -> str:
    """A type is shown by its name, and anything else that can be called as a function."""
    if get_origin(value) is not None:
        return str(value)
    return value.__qualname__ if isinstance(value, type) else "function"
