import ast
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flowneer_stores import SqliteStore

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES))
census = importlib.import_module("census")
census_count = importlib.import_module("census_count")
census_demo = importlib.import_module("census_demo")
census_report = importlib.import_module("census_report")
census_store = importlib.import_module("census_store")

FILES = 230  # in a hundred shares: two or three files in each
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT), str(ROOT / "stores")])
}

KNOWN = '''"""A module."""
import os, os.path
from collections.abc import Iterator
from . import other
from .other import thing

class A:
    """A class."""
    async def method(self) -> None:
        """A method."""
        def inner():
            return "\\d"

try:
    import first
except ImportError:
    import second
finally:
    def last(): pass

match os:
    case 1:
        def in_case(): pass
'''

# The census with eyes and a trap: it notes every file it parses, and at one of them it sends itself a signal.
WATCHED = """
import os, signal, sys
examples, log, victim, name, *argv = sys.argv[1:]
sys.path.insert(0, examples)
import census
count_file = census.count_file

def watched(state, file):
    with open(log, "a") as lines:
        print(file, file=lines)
    if file == victim:
        os.kill(os.getpid(), getattr(signal, name))
    count_file(state, file)

census.count_file = watched
sys.exit(census.main(argv))
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for number in range(FILES - 2):
        write(root / f"package{number % 7}" / f"module{number:03}.py", source(number))
    write(root / "bad.py", "def (:\n")
    write(root / "nul.py", "x = '\0'\n")
    return root


def source(number: int) -> str:
    body = "".join(f"    x = {line}\n" for line in range(number % 13))
    return f'"""Module."""\nimport m{number % 5}\n\nclass C: ...\n\nasync def f{number}():\n{body}    return 1\n'


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def count(root: Path) -> Any:
    def unseen(done: int, total: int) -> None: ...

    return census_count.count_tree(str(root), unseen)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", *map(str, arguments)]


def finished(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return finished(command(EXAMPLES / "census.py", *arguments))


class Watched:
    def __init__(self, tree: Path, folder: Path) -> None:
        self.tree, self.log, self.db = tree, folder / "parsed.log", folder / "census.db"
        self.script = folder / "watched.py"
        self.script.write_text(WATCHED)

    def run(self, victim: str = "", signal: str = "SIGKILL", *more: str) -> "subprocess.CompletedProcess[str]":
        return finished(self.command(victim, signal, *more))

    def command(self, victim: str, signal: str, *more: str) -> list[str]:
        self.log.write_text("")
        return command(self.script, EXAMPLES, self.log, victim, signal, self.tree, "--db", self.db, *more)

    @property
    def parsed(self) -> list[str]:
        return self.log.read_text().splitlines()

    async def stored(self) -> Any:
        async with SqliteStore(str(self.db)) as store:
            return await census_store.stored_census(store, f"{census.run_name(str(self.tree))}-1")


@pytest.fixture
def watched(tree: Path, tmp_path: Path) -> Watched:
    return Watched(tree, tmp_path)


def share_of(index: int) -> range:
    """The indices of the files that are counted in the same step as this one."""
    for share in range(census.SHARES):
        files = range(share * FILES // census.SHARES, (share + 1) * FILES // census.SHARES)
        if index in files:
            return files
    raise AssertionError(index)


# --- counting


def test_one_file_is_counted_as_by_hand(tmp_path: Path) -> None:
    write(tmp_path / "known.py", KNOWN)
    counted = count(tmp_path)
    longest = [(found["name"], found["lines"], found["line"]) for found in counted.pop("longest")]
    assert longest == [("method", 4, 9), ("inner", 2, 11), ("last", 1, 19), ("in_case", 1, 23)]
    assert counted == {
        "root": str(tmp_path), "files": ["known.py"], "done": 1, "lines": 23, "functions": 4, "async_functions": 1,
        "classes": 1, "imports": 7, "definitions": 6, "documented": 3, "annotated": 1, "failed": 0, "failures": [],
        "modules": {"os": 2, "collections": 1, "first": 1, "second": 1},
        "most_imported": [
            {"module": "os", "times": 2},
            {"module": "collections", "times": 1},
            {"module": "first", "times": 1},
            {"module": "second", "times": 1},
        ],
    }  # fmt: skip


def test_statements_are_those_of_ast_walk() -> None:
    tree = census_count.parse((KNOWN + (EXAMPLES / "census_count.py").read_text()).encode())
    kinds = (ast.stmt, ast.excepthandler, ast.match_case)
    expected = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    assert {id(node) for node in census_count.statements(tree)} == {id(node) for node in expected}


def test_what_cannot_be_read_or_parsed_is_counted_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path / "bad.py", "x = 1\ndef (:\n")
    write(tmp_path / "coding.py", "# coding: no-such\n")
    write(tmp_path / "good.py", "x = 1")
    state = census_count.new_census(str(tmp_path))
    for name in ("bad.py", "coding.py", "good.py", "gone.py"):
        census_count.count_file(state, name)
    assert (state["done"], state["failed"], state["lines"]) == (4, 3, 1)
    assert [failure["file"] for failure in state["failures"]] == ["bad.py", "coding.py", "gone.py"]
    assert state["failures"][0]["reason"].startswith("line 2: ")
    assert "no-such" in state["failures"][1]["reason"]
    assert state["failures"][2]["reason"] == "No such file or directory"


def test_failures_are_all_counted_and_some_kept(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / f"bad{number:02}.py", "(")
    counted = count(tmp_path)
    assert (counted["failed"], len(counted["failures"])) == (30, census_count.KEPT_FAILURES)


def test_files_are_sorted_and_without_caches_packages_and_hidden_folders(tmp_path: Path) -> None:
    for name in ("b.py", "a/z.py", "a.py", ".git/no.py", "__pycache__/no.py", "lib/site-packages/no.py", "no.txt"):
        write(tmp_path / name, "")
    (tmp_path / "folder.py").mkdir()
    assert count(tmp_path)["files"] == ["a.py", "a/z.py", "b.py"]


def test_a_file_name_that_is_no_text_is_counted_as_failed(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.py")).write_text("x = 1")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    counted = count(tmp_path)
    assert (counted["files"], counted["failed"]) == (["caf\\xe9.py"], 1)


# --- running


async def test_the_flow_counts_what_a_plain_loop_counts(watched: Watched) -> None:
    done = watched.run()
    assert (done.returncode, done.stderr) == (0, "")
    stored = await watched.stored()
    assert stored.finished
    assert stored.census == count(watched.tree)
    assert watched.parsed == stored.census["files"]
    assert len(watched.parsed) == FILES
    assert "100 %  230 of 230 files" in done.stdout


@pytest.mark.parametrize("index", [0, 116, FILES - 1])
async def test_killed_anywhere_it_goes_on_and_repeats_only_the_step_under_way(watched: Watched, index: int) -> None:
    whole = count(watched.tree)
    files = whole["files"]
    assert watched.run(files[index]).returncode == -9
    assert watched.parsed == files[: index + 1]
    begun = share_of(index).start
    assert (await watched.stored()).census["done"] == begun

    again = watched.run()
    assert again.returncode == 0
    assert watched.parsed == files[begun:]
    assert (await watched.stored()).census == whole
    assert f"going on after file {begun} of {FILES}." in again.stdout
    assert (f"{FILES - begun} files counted now, {begun} before." in again.stdout) == bool(begun)


async def test_killed_again_and_again_it_still_arrives(watched: Watched) -> None:
    whole = count(watched.tree)
    for index in (10, 11, 200):
        assert watched.run(whole["files"][index]).returncode == -9
    assert watched.run().returncode == 0
    assert (await watched.stored()).census == whole


async def test_ctrl_c_says_how_to_go_on(watched: Watched) -> None:
    whole = count(watched.tree)
    stopped = watched.run(whole["files"][100], "SIGINT")
    assert stopped.returncode == 130
    assert stopped.stderr.startswith("Stopped. This goes on where it was: python ")
    assert stopped.stderr.endswith(f" {watched.tree} --db {watched.db}\n")
    assert watched.parsed == whole["files"][:101]
    assert watched.run().returncode == 0
    assert (await watched.stored()).census == whole


async def test_a_finished_census_shows_its_result_and_fresh_counts_again(watched: Watched) -> None:
    first = watched.run()
    write(watched.tree / "new.py", "")
    second = watched.run()
    assert watched.parsed == []
    assert "is counted already, this is the stored result; --fresh counts it again." in second.stdout
    assert table(second) == table(first)

    third = watched.run("", "", "--fresh")
    assert len(watched.parsed) == FILES + 1
    assert f"{FILES + 1} files counted." in third.stdout
    fourth = watched.run()
    assert watched.parsed == []
    assert table(fourth) == table(third)


def table(done: "subprocess.CompletedProcess[str]") -> str:
    return done.stdout[done.stdout.index("Census of") :].rpartition("\n\n")[0]


async def test_files_that_vanish_or_appear_while_it_is_down_do_no_harm(watched: Watched) -> None:
    files = count(watched.tree)["files"]
    assert watched.run(files[100]).returncode == -9
    (watched.tree / files[150]).unlink()
    write(watched.tree / "a_new_one.py", "")
    assert watched.run().returncode == 0
    stored = (await watched.stored()).census
    assert (stored["files"], stored["done"], stored["failed"]) == (files, FILES, 3)
    assert {"file": files[150], "reason": "No such file or directory"} in stored["failures"]


async def test_while_another_process_counts_it_says_so_in_one_line(watched: Watched) -> None:
    whole = count(watched.tree)
    first = subprocess.Popen(watched.command(whole["files"][50], "SIGSTOP"), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        os.waitpid(first.pid, os.WUNTRACED)
        second = watched.run()
    finally:
        first.kill()
        first.wait()
    assert (second.returncode, watched.parsed) == (1, [])
    assert "is being worked on" in second.stderr
    assert second.stderr.count("\n") == 1
    assert watched.run().returncode == 0
    assert (await watched.stored()).census == whole


def test_another_tree_is_another_run(watched: Watched, tmp_path: Path) -> None:
    write(tmp_path / "other" / "one.py", "x = 1")
    assert watched.run().returncode == 0
    assert "1 file counted." in run(tmp_path / "other", "--db", watched.db).stdout


@pytest.mark.parametrize(("name", "why"), [("missing", "no such directory"), ("empty", "no Python file in it")])
def test_nothing_to_count_is_said_in_one_line(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "empty").mkdir()
    done = run(tmp_path / name, "--db", tmp_path / "census.db")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"census: {tmp_path / name}: {why}\n")


def test_a_database_that_is_none_is_said_in_one_line(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "census.db").write_text("no database, just a text that is long enough to be taken for one" * 99)
    done = run(tree, "--db", tmp_path / "census.db")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("census: ")
    assert done.stderr.count("\n") == 1


# --- showing


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "[red]dir[/red]" / "[b].py", "import os\ndef [\n")
    write(tmp_path / "[red]dir[/red]" / "good.py", "def f(): pass")
    shown = run(tmp_path / "[red]dir[/red]", "--db", tmp_path / "census.db").stdout
    assert f"Census of {tmp_path}/[red]dir[/red]" in shown
    assert "[b].py" in shown


def test_a_terminal_gets_a_bar_that_starts_where_the_run_is() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with census_report.progress(console, 40, 100) as on_file:
        on_file(60, 100)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "40%" in shown
    assert "60/100" in shown


# --- the demo


def test_the_demo_crashes_goes_on_and_compares(tmp_path: Path) -> None:
    body = "".join(f"def f{number}(a, b):\n    return (a + b) * {number}\n" for number in range(200))
    for number in range(300):
        write(tmp_path / f"module{number:03}.py", body)
    done = run(tmp_path, "--demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Killed with SIGKILL" in done.stdout
    assert "of 102 steps" in done.stdout
    assert "going on after file" in done.stdout
    assert "Equal, in all 16 fields" in done.stdout


def console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=100), out


def test_the_demo_fails_where_the_results_differ(tree: Path) -> None:
    (quiet, out), whole = console(), count(tree)
    assert census_demo.compare(census_count.new_census(str(tree)), whole, quiet) == 0
    assert census_demo.compare(census_count.new_census(str(tree)), whole | {"lines": 7, "failed": 0}, quiet) == 1
    assert "NOT EQUAL: lines, failed" in out.getvalue()


async def test_the_demo_fails_where_the_kill_always_comes_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> bool:
        return False

    write(tmp_path / "one.py", "x = 1")
    monkeypatch.setattr(census_demo, "passed", never)
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    quiet, out = console()
    name = f"{census.run_name(str(tmp_path))}-1"
    assert await census_demo.demo(str(tmp_path), name, str(EXAMPLES / "census.py"), quiet) == 1
    assert out.getvalue().count("It was through before the kill came") == 3
    assert "No crash, so nothing is shown" in out.getvalue()


async def test_the_demo_fails_with_the_census(tmp_path: Path) -> None:
    quiet, out = console()
    script = tmp_path / "failing.py"
    write(script, "raise SystemExit(3)")
    assert await census_demo.demo(str(tmp_path), "census-1", str(script), quiet) == 1
    assert "ended with exit code 3" in out.getvalue()
