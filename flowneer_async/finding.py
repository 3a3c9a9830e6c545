"""From a path to the steps that it names, and what those are called now."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from flowneer_async.cursor import ERROR, Frame, decode, encode
from flowneer_async.memory import SIGN
from flowneer_async.steps import Body, Branch, Node, Parallel, parts


def steps_along(body: Body[Any], frames: Sequence[Frame]) -> list[Node[Any] | None]:
    """The step that each frame of a path names, by its name or an alias; None for one that names none."""
    if not frames:
        return []
    frame, rest = frames[0], frames[1:]
    if frame.name == ERROR and body.on_error is not None:
        return [None, *steps_along(body.on_error, rest)]
    number = None if frame.is_own else body.position.get(frame.name)
    if number is None:
        return [None] * len(frames)
    node = body.order[number]
    return [node, *_inside(node, frame, rest)]


def _inside(node: Node[Any], frame: Frame, rest: Sequence[Frame]) -> list[Node[Any] | None]:
    if isinstance(node, Branch):
        chosen = dict(parts(node)).get(rest[0].name) if rest else None
        return [None] * len(rest) if chosen is None else [None, *steps_along(chosen, rest[1:])]
    bodies = [body for _, body in parts(node)]
    if isinstance(node, Parallel) and frame.index is not None:
        bodies = bodies[frame.index :][:1]
    # Without its number, a lane is the one that has such a step.
    for body in bodies:
        if rest and (rest[0].name in body.position or rest[0].name == ERROR):
            return steps_along(body, rest)
    return [None] * len(rest)


def node_at(body: Body[Any], path: str) -> Node[Any] | None:
    """The step that a path leads to; None where the flow has none."""
    return next(reversed(steps_along(body, decode(path))), None)


def renamed(body: Body[Any], path: str) -> str:
    """A path with the names that its steps have now."""
    frames = decode(path)
    nodes = steps_along(body, frames)
    return encode(
        [frame if node is None else replace(frame, name=node.name) for frame, node in zip(frames, nodes, strict=True)]
    )


def renamed_facts(body: Body[Any], facts: Mapping[str, bytes]) -> dict[str, bytes]:
    """The facts of a run, under the names that the steps have now."""
    new: dict[str, bytes] = {}
    for key, text in facts.items():
        _, path, kind = key.split(SIGN, 2)
        if kind in ("at", "goto"):
            text = orjson.dumps(renamed(body, orjson.loads(text)))
        elif kind == "error" or kind.startswith(("undo:", "failure:")):
            value = orjson.loads(text)
            text = orjson.dumps({**value, "step": renamed(body, value["step"])})
        new[f"{SIGN}{renamed(body, path)}{SIGN}{kind}"] = text
    return new
