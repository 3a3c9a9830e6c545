"""Where each step of a flow stands: its static path, as in a cursor, but without the numbers of items and lanes.

A step inside a loop, a batch, a parallel or a flow of its own stands below it: `poll/ask`. The case of a branch stands
between: `route/big/charge`. What is done on an error stands under `@error`: `sub/@error/notify`, and `@error/notify`
for the outermost body. Lanes stand as nothing, so that two steps of one parallel may share a path.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, TypeAlias, cast

from flowneer_async.cursor import ERROR, quoted
from flowneer_async.steps import Body, Branch, Node, Parallel, parts

Kind: TypeAlias = Literal["task", "sub", "branch", "loop", "batch", "parallel", "anchor", "sleep", "wait"]


@dataclass(frozen=True, slots=True)
class Inner:
    """A body inside a step: the path that its steps stand under, and the case or the number of the lane that it is."""

    path: str
    body: Body[Any]
    case: str | None = None
    lane: int | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """A step and its static path; `lane` is the number of the lane whose body it is a member of."""

    path: str
    node: Node[Any]
    lane: int | None = None


def kind_of(node: Node[Any]) -> Kind:
    """What a step is, in one word."""
    return cast(Kind, type(node).__name__.lower())


def beneath(path: str, frame: str) -> str:
    """The path of `frame` below `path`; at the top, where `path` is empty, it is the frame alone."""
    return f"{path}/{frame}" if path else frame


def inners(path: str, node: Node[Any]) -> tuple[Inner, ...]:
    """The bodies inside the step at `path`, in their order."""
    in_lanes = isinstance(node, Parallel)
    return tuple(
        Inner(
            beneath(path, quoted(case)) if case is not None else path,
            body,
            case if isinstance(node, Branch) else None,
            number if in_lanes else None,
        )
        for number, (case, body) in enumerate(parts(node))
    )


def located(inner: Inner) -> Iterator[Located]:
    """The steps of a body and of all inside it, depth first; those of its `on_error` body come last."""
    for node in inner.body.order:
        path = beneath(inner.path, node.quoted)
        yield Located(path, node, inner.lane)
        for each in inners(path, node):
            yield from located(each)
    if inner.body.on_error is not None:
        yield from located(Inner(beneath(inner.path, ERROR), inner.body.on_error, lane=inner.lane))


def paths(body: Body[Any]) -> tuple[str, ...]:
    """The static paths of all steps, depth first; one that two lanes share is there once."""
    return tuple(dict.fromkeys(place.path for place in located(Inner("", body))))


def lane_paths(body: Body[Any], prefix: str = "") -> tuple[str, ...]:
    """The same, but with the numbers of lanes, `fan[1]/a`: what a stored run remembers its steps by."""
    found: list[str] = []
    for node in body.order:
        path = beneath(prefix, node.quoted)
        found.append(path)
        for inner in inners(path, node):
            found += lane_paths(inner.body, inner.path if inner.lane is None else f"{inner.path}[{inner.lane}]")
    if body.on_error is not None:
        found += lane_paths(body.on_error, beneath(prefix, ERROR))
    return tuple(found)


def fingerprint(body: Body[Any]) -> str:
    """16 hex digits that change with the kinds, the paths or the order of the steps, and with nothing else."""
    rows = "\n".join(
        f"{kind_of(place.node)} {'' if place.lane is None else place.lane} {place.path}"
        for place in located(Inner("", body))
    )
    return blake2b(rows.encode(), digest_size=8).hexdigest()
