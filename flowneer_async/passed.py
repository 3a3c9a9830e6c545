"""Does a stored run still fit its flow?"""

from collections.abc import Sequence
from typing import Any

from flowneer_async.cursor import ERROR, Frame, decode, encode
from flowneer_async.errors import FlowChanged
from flowneer_async.finding import steps_along
from flowneer_async.outline import beneath
from flowneer_async.steps import Body, Branch, Node, parts
from flowneer_async.versions import Run


def check_passed(run: Run, paths: Sequence[str], at: str) -> None:
    """Raises FlowChanged where the steps that a run has passed are not there any more, in their order.

    These are the ones before its position, in the bodies around it. Nor may one that was still to come stand before the
    position now, for it would never be done.
    """
    position = _known(_numbered(at, run.steps), run.steps)
    passed = before(position, run.steps)
    left = iter(paths)
    if not all(path in left for path in passed):
        raise FlowChanged(run.run_id, passed, paths)
    still_to_come = set(run.steps).difference(before(position, run.steps))
    if still_to_come.intersection(before(position, paths)):
        raise FlowChanged(run.run_id, passed, paths)


def check_known(run: Run, body: Body[Any], paths: Sequence[str], at: str) -> None:
    """Raises FlowChanged where a position leads through a step, a case or a lane that the flow does not have."""
    frames = decode(at)
    nodes = steps_along(body, frames)
    for number, (frame, node) in enumerate(zip(frames, nodes, strict=True)):
        is_case = number > 0 and isinstance(nodes[number - 1], Branch)
        if node is None and not frame.is_own and not (is_case and _has_case(nodes[number - 1], frame)):
            raise FlowChanged(run.run_id, [at], paths)


def _has_case(node: Node[Any] | None, frame: Frame) -> bool:
    return node is not None and any(case == frame.name for case, _ in parts(node))


def before(position: str, paths: Sequence[str]) -> list[str]:
    """The steps up to a position, itself among them, in the bodies around it."""
    if position not in paths:
        return [position] if position else []
    return [path for path in paths[: paths.index(position) + 1] if _is_around(path, position)]


def _is_around(path: str, position: str) -> bool:
    """Is the step a member of a body that the position stands in?"""
    parent = path.rpartition("/")[0]
    return not parent or position.startswith(f"{parent}/")


def _numbered(at: str, paths: Sequence[str]) -> str:
    """A position among stored paths, in which only lanes have numbers."""
    found = ""
    for frame in decode(at):
        if frame.is_own and frame.name != ERROR:
            continue
        path = beneath(found, encode((Frame(frame.name),)))
        lane = f"{path}[{frame.index}]"
        found = lane if any(each.startswith(f"{lane}/") for each in paths) else path
    return found


def _known(position: str, paths: Sequence[str]) -> str:
    """The innermost step that a position stands in."""
    found = position
    while found and found not in paths:
        found = found.rpartition("/")[0]
    return found or position
