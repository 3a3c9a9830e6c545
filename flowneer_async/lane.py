"""One lane, as a line of its own."""

from collections.abc import Mapping
from typing import Any

from flowneer_async.differ import Mirror
from flowneer_async.draft import draft_of, shape_for
from flowneer_async.line import Core, Line
from flowneer_async.memory import GONE, Memory
from flowneer_async.unkept import LaneJournal


def open_lane(core: Core, base: Mirror, path: str) -> Line:
    """A line on a draft of the state that `base` has, as far as the lane had come."""
    facts = core.memory.of(path)
    mirror = Mirror(core.codec, overlaid(base.texts, facts)) if facts else base.fork()
    draft, shape = draft_of(mirror, core.shape, core.codec), shape_for(core.shape)
    return Line(core, path, draft, shape, LaneJournal(core.plan, core.journal, path, mirror, core.memory, shape))


def lanes_within(memory: Memory, where: str, kind: str) -> list[str]:
    """The paths of the lanes inside the body at `where` that have such facts, those inside of others after them."""
    prefix = f"{where}/" if where else ""
    found = [path for path in memory.paths if path.startswith(prefix) and path != where]
    return sorted((path for path in found if any(each.startswith(kind) for each in memory.of(path))), key=numbered)


def lane_inside(line: Line, path: str) -> Line:
    """A lane of an unfinished step of this line, or one inside such a lane."""
    base = line.mirror(path)
    for outer in lanes_within(line.core.memory, line.path, "at"):
        if path.startswith(f"{outer}/"):
            base = Mirror(line.core.codec, overlaid(base.texts, line.core.memory.of(outer)))
    return open_lane(line.core, base, path)


def overlaid(base: Mapping[str, bytes], facts: Mapping[str, bytes]) -> dict[str, bytes]:
    """The texts of a lane: those before it, and those that it has changed since."""
    changed = {kind[1:]: text for kind, text in facts.items() if kind[0] == "="}
    return {key: text for key, text in {**base, **changed}.items() if text != GONE}


def numbered(path: str) -> list[Any]:
    """What paths are sorted by, so that lane 10 comes after lane 9."""
    return [int(part) if part.isdigit() else part for part in path.replace("]", "[").split("[")]
