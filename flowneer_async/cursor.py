"""The position in a flow: a path of frames, written like `emails[12]/send`.

Law: `decode(encode(frames)) == frames`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

_FRAME = re.compile(r"(?P<name>[^/\[\]]+)(\[(?P<index>\d+)\])?")
# What a name keeps as it is: all that is readable and has no meaning in a path.
_SAFE = " !\"#$&'()*+,-.:;<=>?@^_`{|}~"


@dataclass(frozen=True, slots=True)
class Frame:
    """One level of a cursor: the step `name`, and the number of its item or iteration, if it has one."""

    name: str
    index: int | None = None


def encode(frames: Sequence[Frame]) -> str:
    """Write `frames` as a path."""
    return "/".join(_quoted(frame.name) + ("" if frame.index is None else f"[{frame.index}]") for frame in frames)


def decode(path: str) -> tuple[Frame, ...]:
    """Read a path; raises ValueError when it is not one."""
    return tuple(map(_frame, path.split("/"))) if path else ()


def _frame(text: str) -> Frame:
    found = _FRAME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no frame of a cursor")
    index = found["index"]
    return Frame(unquote(found["name"]), None if index is None else int(index))


def _quoted(name: str) -> str:
    return name if name.isidentifier() else "".join(c if c.isalnum() or c in _SAFE else quote(c, safe="") for c in name)
