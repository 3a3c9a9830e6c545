"""Does a stored run still fit its flow?"""

from collections.abc import Sequence

from flowneer_async.cursor import decode, static
from flowneer_async.errors import FlowChanged
from flowneer_async.versions import Run


def check_passed(run: Run, paths: Sequence[str], at: str) -> None:
    """Raises FlowChanged where the steps that a run has passed are not there any more, in their order.

    These are the ones before its position, in the bodies around it. Nor may one that was still to come stand before the
    position now, for it would never be done.
    """
    position = _known(static(decode(at)), run.steps)
    passed = before(position, run.steps)
    left = iter(paths)
    if not all(path in left for path in passed):
        raise FlowChanged(run.run_id, passed, paths)
    still_to_come = set(run.steps).difference(before(position, run.steps))
    if still_to_come.intersection(before(position, paths)):
        raise FlowChanged(run.run_id, passed, paths)


def before(position: str, paths: Sequence[str]) -> list[str]:
    """The steps up to a position, itself among them, in the bodies around it."""
    if position not in paths:
        return [position] if position else []
    return [path for path in paths[: paths.index(position) + 1] if _is_around(path, position)]


def _is_around(path: str, position: str) -> bool:
    """Is the step a member of a body that the position stands in?"""
    parent = path.rpartition("/")[0]
    return not parent or position.startswith(f"{parent}/")


def _known(position: str, paths: Sequence[str]) -> str:
    """The innermost step that a position stands in."""
    found = position
    while found and found not in paths:
        found = found.rpartition("/")[0]
    return found or position
