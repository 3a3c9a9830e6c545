"""Draws docs/demo.svg, what `python examples/census.py --demo` prints in a terminal.

    python docs/make_picture.py

The demo is run and its output drawn as it is, but for three things: paths are shortened, of a progress bar only its
last look is kept, and the tables of the census itself, which are long, give way to a line that says so.
"""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 96
BLANK = re.compile(r"\x1b\[\?25[lh]|\x1b\[\d*[AK]|\x1b\[2K")  # moves of the cursor
SHORTER = {str(ROOT) + os.sep: "", sysconfig.get_path("stdlib"): "lib/python"}
FOLDER = re.compile(r"\S*/(census\.db)")


def demo_output() -> str:
    """What the demo prints, in colour."""
    command = (sys.executable, str(ROOT / "examples/census.py"), "--demo")
    width = {"COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, env={**os.environ, **width}, stdout=subprocess.PIPE, check=True).stdout.decode()


def shown(output: str) -> Iterator[str]:
    """The lines that are drawn."""
    in_tables = False
    for line in output.strip("\n").split("\n"):
        last = BLANK.sub("", line.rsplit("\r", 1)[-1])
        plain = Text.from_ansi(last).plain
        if plain.startswith("Census of"):
            in_tables = True
            yield "(here come the tables of the census)"
        in_tables = in_tables and "counted now" not in plain
        if not in_tables:
            yield shortened(last)


def shortened(line: str) -> str:
    """A line without the paths of this machine."""
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    return FOLDER.sub(r"\1", line)


def draw(lines: list[str], target: Path) -> None:
    """The lines as a terminal window, in an SVG file."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    for line in ["", *lines]:
        console.print(Text.from_ansi(line), highlight=False)
    console.save_svg(str(target), title="make demo", unique_id="demo")
    # The letters come from the reader's own machine, and from nowhere else.
    target.write_text(re.sub(r"@font-face \{.*?\}\s*", "", target.read_text("utf-8"), flags=re.S), "utf-8")


if __name__ == "__main__":
    draw(list(shown(demo_output())), ROOT / "docs" / "demo.svg")
