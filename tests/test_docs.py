"""What the documentation shows is true: its blocks run and print what it says, its links lead somewhere."""

import ast
import asyncio
import builtins
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FunctionType

import pytest

from flowneer_async.authoring import Authoring

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "stores" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
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


def shown(page: Path) -> str:
    """A page as people call it."""
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=shown)


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
    names: dict[str, object] = {"__name__": "__main__", "__builtins__": builtins}
    for block in blocks(page):
        code = block.compile(page).__code__
        if block.runs:
            assert printed(FunctionType(code, names)) == block.output, f"{shown(page)}:{block.line}"


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


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs").rglob("*.svg"))], ids=shown)
def test_no_page_names_a_place_of_one_machine(page: Path) -> None:
    """Pages and pictures hold no path of the machine on which they were made, and no private host."""
    assert FORBIDDEN.findall(page.read_text("utf-8")) == []


def test_the_readme_shows_at_least_one_run() -> None:
    """Should the fences change, so that no block is found any more, this says so."""
    assert sum(bool(block.output) for block in blocks(ROOT / "README.md")) > 3


def test_every_page_is_in_the_table_of_pages() -> None:
    """docs/README.md leads to each page beside and beneath it."""
    index = ROOT / "docs" / "README.md"
    targets = (found["target"].partition("#")[0] for found in LINK.finditer(index.read_text("utf-8")))
    linked = {(index.parent / target).resolve() for target in targets}
    assert [shown(page) for page in (ROOT / "docs").rglob("*.md") if page not in {*linked, index}] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "steps").glob("*.md")), ids=shown)
def test_the_page_of_each_kind_of_step_has_a_run_to_show(page: Path) -> None:
    """It is short enough to be read at once, and begins with an example whose output stands below it."""
    assert page.read_text("utf-8").count("\n") <= 150
    assert any(block.output for block in blocks(page))


def test_every_kind_of_step_has_a_page() -> None:
    """Each word of the builder stands in the code of a page about steps, so that a new one cannot do without."""
    words = {name for name, value in vars(Authoring).items() if callable(value) and not name.startswith("_")}
    pages = sorted((ROOT / "docs" / "steps").glob("*.md"))
    shown_there = {word for page in pages for block in blocks(page) for word in re.findall(r"\.(\w+)\(", block.code)}
    assert words - shown_there == set()


@pytest.mark.parametrize(
    ("package", "page"),
    [
        ("flowneer_async", "design.md"),
        ("flowneer_async/engine", "design-engine.md"),
        ("stores/flowneer_stores", "design.md"),
    ],
)
def test_the_design_names_every_module(package: str, page: str) -> None:
    """Its tables say what each module is for."""
    design = (ROOT / "docs" / page).read_text("utf-8")
    modules = [path for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    names = {path.stem + "/" * path.is_dir() for path in modules} - {"__init__"}
    assert {name for name in names if f"`{name}`" not in design} == set()
