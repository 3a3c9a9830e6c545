"""The position in a flow: a path of frames, written like `emails[12]/send`.

A frame is a step's name. Once jumps have led into the body that it stands in, their number goes with it, `check~2`; and
so does the number of its item, iteration or lane. A frame whose name begins with `@` is the engine's own:
`charge/@begun` says that `charge` was entered and is not done.

Law: `decode(encode(frames)) == frames`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote

_FRAME = re.compile(r"(?P<name>@?[^/\[\]~@]+)(~(?P<round>[1-9]\d*))?(\[(?P<index>\d+)\])?")
# What a name keeps as it is: all that is readable and has no meaning in a path.
_SAFE = " !\"#$&'()*+,-.:;<=>?^_`{|}"


@dataclass(frozen=True, slots=True)
class Frame:
    """One level of a cursor: the step `name`, the number of its item or iteration, and of jumps into its body."""

    name: str
    index: int | None = None
    round: int = 0

    @property
    def is_own(self) -> bool:
        """Is it one of the engine's, and no step?"""
        return self.name[0] == "@"


ERROR = "@error"
"""What stands before the steps of an `on_error` body."""


def encode(frames: Sequence[Frame]) -> str:
    """Write `frames` as a path."""
    return "/".join(map(_written, frames))


def decode(path: str) -> tuple[Frame, ...]:
    """Read a path; raises ValueError when it is not one."""
    return tuple(map(_frame, path.split("/"))) if path else ()


def written_in(round: int, name: str) -> str:
    """A frame without a number, in the round that its body is in."""
    return _written(Frame(name, None, round))


def quoted(name: str) -> str:
    """A step's name as it stands in a path."""
    if name.isidentifier():
        return name
    # RFC 3986 lets "~" stand as it is; here it means something.
    return "".join(c if c.isalnum() or c in _SAFE else quote(c, safe="") for c in name).replace("~", "%7E")


def static(frames: Iterable[Frame]) -> str:
    """The path of a step as the flow has it: without numbers, and without the engine's marks but `@error`."""
    return "/".join(
        frame.name if frame.is_own else quoted(frame.name)
        for frame in frames
        if not frame.is_own or frame.name == ERROR
    )


def _written(frame: Frame) -> str:
    name = frame.name if frame.is_own else quoted(frame.name)
    index = "" if frame.index is None else f"[{frame.index}]"
    return f"{name}~{frame.round}{index}" if frame.round else name + index


@lru_cache(256)
def _frame(text: str) -> Frame:
    found = _FRAME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no frame of a cursor")
    index, round = found["index"], found["round"]
    return Frame(unquote(found["name"]), None if index is None else int(index), 0 if round is None else int(round))
