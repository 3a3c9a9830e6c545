"""What the census looks like in a terminal: the progress bar and the tables. It reads a census and changes nothing."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from census_count import Census, OnFile
from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

SHOWN_FAILURES = 8
TENTHS = 10


def console_for(stream: TextIO) -> Console:
    """A console that puts a question mark where the stream's encoding has no such letter, instead of failing."""
    if reconfigure := getattr(stream, "reconfigure", None):
        reconfigure(errors="replace")
    return Console(file=stream, highlight=False, soft_wrap=True)


def say(console: Console, text: str, style: str = "") -> None:
    """Print a line just as it is: a path may hold what looks like markup."""
    console.print(Text(text, style=style))


def number(value: int) -> str:
    return f"{value:,}"


def files(value: int) -> str:
    return f"{number(value)} file{'' if value == 1 else 's'}"


def share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "-"


@contextmanager
def progress(console: Console, total: int) -> Generator[OnFile, None, None]:
    """A progress bar over so many files; outside a terminal a line for every tenth of them."""
    if not console.is_terminal or not total:
        yield tenths(console, total)
        return
    with Progress(*columns(), console=console) as bar:
        task = bar.add_task("Counting", total=total)
        yield lambda: bar.advance(task)


def columns() -> list[TextColumn | BarColumn | TaskProgressColumn | MofNCompleteColumn | TimeElapsedColumn]:
    return [
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeElapsedColumn(),
    ]


def tenths(console: Console, total: int) -> OnFile:
    """Say a line whenever another tenth of the files is counted."""
    done = said = 0

    def on_file() -> None:
        nonlocal done, said
        done += 1
        if (tenth := done * TENTHS // total) > said:
            said = tenth
            say(console, f"  {tenth * 100 // TENTHS:3} %  {number(done)} of {files(total)}")

    return on_file


def report(census: Census) -> RenderableType:
    """The whole census, as tables one below the other."""
    parts: list[RenderableType] = [totals(census), longest(census), most_imported(census)]
    if census["failures"]:
        parts.append(failures(census))
    return Group(*parts)


def table(title: str, **columns: str) -> Table:
    """An empty table; every column is given with its side, left or right."""
    made = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name, side in columns.items():
        made.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    return made


def figures(census: Census) -> dict[str, int]:
    """The plain counts, by the names people give them."""
    return {
        "files": census["files"],
        "lines": census["lines"],
        "functions": census["functions"],
        "async functions": census["async_functions"],
        "classes": census["classes"],
        "imports": census["imports"],
        "docstrings": census["documented"],
        "not parsed": len(census["failures"]),
    }


def notes(census: Census) -> dict[str, str]:
    """What a count means, where the count alone says little."""
    functions, definitions = census["functions"], census["definitions"]
    return {
        "functions": f"{share(census['annotated'], functions)} say what they return",
        "async functions": f"{share(census['async_functions'], functions)} of the functions",
        "imports": f"of {number(len(set(census['imported'])))} modules",
        "docstrings": f"{share(census['documented'], definitions)} of modules, classes and functions have one",
    }


def totals(census: Census) -> Table:
    made = table(f"Census of {census['root']}", what="left", count="right", note="left")
    about = notes(census)
    for name, value in figures(census).items():
        made.add_row(name, number(value), Text(about.get(name, ""), style="dim"))
    return made


def longest(census: Census) -> Table:
    made = table("The longest functions", lines="right", function="left", where="left")
    for found in census["longest"]:
        made.add_row(number(found["lines"]), Text(found["name"]), Text(f"{found['file']}:{found['line']}"))
    return made


def most_imported(census: Census) -> Table:
    made = table("The most imported modules", times="right", module="left")
    for found in census["most_imported"]:
        made.add_row(number(found["times"]), Text(found["module"]))
    return made


def failures(census: Census) -> Table:
    made = table("Not parsed", file="left", why="left")
    shown = census["failures"][:SHOWN_FAILURES]
    for failure in shown:
        made.add_row(Text(failure["file"]), Text(failure["reason"]))
    if more := len(census["failures"]) - len(shown):
        made.add_row(Text(f"and {number(more)} more", style="dim"))
    return made


def compared(after: Census, whole: Census) -> Table:
    """What was counted by the census that was killed, and in one go."""
    made = table("", what="left", **{"killed and gone on": "right", "in one go": "right"})
    for (name, total), straight in zip(figures(after).items(), figures(whole).values(), strict=True):
        made.add_row(name, number(total), number(straight), style="" if total == straight else "bold red")
    return made
