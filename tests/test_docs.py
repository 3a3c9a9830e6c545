"""What the documentation shows is true: its blocks run and print what it says, its links lead somewhere."""

import ast
import asyncio
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FunctionType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^```(?P<kind>python(?: compiled)?)\n(?P<code>.*?)^```$(?:\n+^```text\n(?P<output>.*?)^```$)?", re.M | re.S
)
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.M)
MAKE = re.compile(r"\bmake ([a-z]+)\b(?=`|$| {2,})", re.M)
FORBIDDEN = re.compile(
    r"/(?:work|root|home|tmp|Users)/|\.pyenv|pypi\.org/simple|files\.pythonhosted|localhost|127\.0\.0\.1"
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@dataclass(frozen=True)
class Block:
    code: str
    line: int
    runs: bool
    output: str

    def compile(self, page: Path) -> FunctionType:
        """As a function: a coroutine function where an `await` stands outside of one, as `python -m asyncio` allows."""
        padded = "\n" * (self.line - 1) + self.code  # so that a traceback names the line of the page
        return FunctionType(compile(padded, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {})


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(found["code"], line, found["kind"] == "python", found["output"] or "")


@each_page
def test_every_block_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python blocks of a page, run in their order in one namespace, print exactly the text blocks below them."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        code = block.compile(page).__code__
        if block.runs:
            assert printed(FunctionType(code, names)) == block.output, f"{page.name}:{block.line}"


def printed(run: FunctionType) -> str:
    with redirect_stdout(StringIO()) as out:
        waiting = run()
        if waiting is not None:
            asyncio.run(waiting)
    return out.getvalue()


def anchors(page: Path) -> set[str]:
    """The headings of a page, written as their links are."""
    headings = (found["text"].lower() for found in HEADING.finditer(FENCED.sub("", page.read_text("utf-8"))))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@each_page
def test_every_link_into_the_project_leads_somewhere(page: Path) -> None:
    """A link to a file or a heading of the project names one that is there."""
    for found in LINK.finditer(FENCED.sub("", page.read_text("utf-8"))):
        path, _, anchor = found["target"].partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), found["target"]
        assert target.exists(), found["target"]
        assert not anchor or anchor in anchors(target), found["target"]


@each_page
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    """A page tells to `make` only what the Makefile makes."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    assert {found[1] for found in MAKE.finditer(page.read_text("utf-8"))} <= targets


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs").glob("*.svg"))], ids=lambda page: page.name)
def test_no_page_names_a_place_of_one_machine(page: Path) -> None:
    """Pages and pictures hold no path of the machine on which they were made, and no private host."""
    assert FORBIDDEN.findall(page.read_text("utf-8")) == []


def test_the_readme_shows_at_least_one_run() -> None:
    """Should the fences change, so that no block is found any more, this says so."""
    assert sum(bool(block.output) for block in blocks(ROOT / "README.md")) > 3
