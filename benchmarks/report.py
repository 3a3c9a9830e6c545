"""The table: on the screen, and in README.md."""

import platform
import sqlite3
from collections.abc import Sequence
from math import isnan
from os import cpu_count
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figure import Figure

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table: written by `make bench` -->", "<!-- end of the table -->"
HEADS = ("subject", "figure", "ours", "beside", "ratio", "rounds", "promised", "verdict")

_WIDEST = 200

Results = Sequence[tuple[str, Sequence[Figure]]]


def show(results: Results) -> None:
    table = Table(title=machine(), title_justify="left")
    for head in HEADS:
        table.add_column(head, no_wrap=True)
    for subject, figures in results:
        for number, figure in enumerate(figures):
            style = "bold red" if figure.kept is False else None
            table.add_row(*_cells("" if number else subject, figure), style=style)
        table.add_section()
    # Wider than any screen: a cell that is cut is worse than a line that is broken up.
    Console(width=_WIDEST).print(table)


def write(results: Results, readme: Path = README) -> None:
    """Put the tables between the marks; all else stays as it is."""
    before, _, rest = readme.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n{machine()}\n\n{_markdown(results)}\n{END}{after}", "utf-8")


def machine() -> str:
    return (
        f"{_processor()}, {cpu_count()} cores; {platform.system()}; "
        f"Python {platform.python_version()}; SQLite {sqlite3.sqlite_version}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _cells(subject: str, figure: Figure) -> tuple[str, ...]:
    return (
        subject,
        figure.name,
        figure.ours,
        figure.peer,
        "" if isnan(figure.ratio) else f"{figure.ratio:.2f}",
        figure.spread,
        figure.limit,
        figure.verdict,
    )


def _markdown(results: Results) -> str:
    rows = [_cells(subject, figure) for subject, figures in results for figure in figures]
    lines = [HEADS, ("---", "---", "--:", "--:", "--:", "--:", "--:", "---"), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
