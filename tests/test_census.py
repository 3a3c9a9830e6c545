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

FILES = 120
LANES = 8  # so many files may be under way when it is killed
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
    return census_count.count_tree(str(root), lambda: None)


def names_in(root: Path) -> list[str]:
    names: list[str] = census_count.find_files(census_count.new_census(str(root)))
    return names


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

    async def left(self) -> list[str]:
        """The files that the stored run would still count."""
        async with SqliteStore(str(self.db)) as store:
            flow = census.FLOW.with_versioned_checkpoint(store)
            plan = await flow.plan_resume(census.run_id(str(self.tree)))
        names = names_in(self.tree)
        return [names[int(path.removeprefix("files[").removesuffix("]/count"))] for path in plan.again]

    async def counted(self) -> Any:
        """The result that is stored; nothing is done to have it."""
        async with SqliteStore(str(self.db)) as store:
            run = await store.read(census.run_id(str(self.tree)))
            assert run.status == "completed"
            return (await store.resolve(f"{run.run_id}@{run.head}")).state


@pytest.fixture
def watched(tree: Path, tmp_path: Path) -> Watched:
    return Watched(tree, tmp_path)


# --- counting


def test_one_file_is_counted_as_by_hand(tmp_path: Path) -> None:
    write(tmp_path / "known.py", KNOWN)
    counted = count(tmp_path)
    longest = [(found["name"], found["lines"], found["line"]) for found in counted.pop("longest")]
    assert longest == [("method", 4, 9), ("inner", 2, 11), ("last", 1, 19), ("in_case", 1, 23)]
    counted["imported"].sort()
    assert counted == {
        "root": str(tmp_path), "files": 1, "lines": 23, "functions": 4, "async_functions": 1, "classes": 1,
        "imports": 7, "definitions": 6, "documented": 3, "annotated": 1, "failures": [],
        "imported": ["collections", "first", "os", "os", "second"],
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
    assert (state["files"], len(state["failures"]), state["lines"]) == (4, 3, 1)
    assert [failure["file"] for failure in state["failures"]] == ["bad.py", "coding.py", "gone.py"]
    assert state["failures"][0]["reason"].startswith("line 2: ")
    assert "no-such" in state["failures"][1]["reason"]
    assert state["failures"][2]["reason"] == "No such file or directory"


def test_files_are_sorted_and_without_caches_packages_tests_and_hidden_folders(tmp_path: Path) -> None:
    for name in (
        "b.py",
        "a/z.py",
        "a.py",
        ".git/no.py",
        "__pycache__/no.py",
        "site-packages/no.py",
        "a/test/no.py",
        "no.txt",
    ):
        write(tmp_path / name, "")
    (tmp_path / "folder.py").mkdir()
    assert names_in(tmp_path) == ["a.py", "a/z.py", "b.py"]


def test_a_file_name_that_is_no_text_is_counted_as_failed(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.py")).write_text("x = 1")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    assert [failure["file"] for failure in count(tmp_path)["failures"]] == ["caf\\xe9.py"]


# --- running


async def test_the_flow_counts_what_a_plain_loop_counts(watched: Watched) -> None:
    done = watched.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert await watched.counted() == count(watched.tree)
    assert sorted(watched.parsed) == names_in(watched.tree)
    assert f"100 %  {FILES} of {FILES} files" in done.stdout
    assert f"{FILES} files counted now, 0 before." in done.stdout


@pytest.mark.parametrize("index", [0, FILES - 1])
async def test_killed_anywhere_it_goes_on_with_exactly_the_files_that_were_not_done(
    watched: Watched, index: int
) -> None:
    whole, names = count(watched.tree), names_in(watched.tree)
    assert watched.run(names[index]).returncode == -9
    first, left = watched.parsed, await watched.left()
    # What was counted is stored, but for the files that were under way.
    assert set(first) | set(left) == set(names)
    assert len(set(first) & set(left)) <= LANES
    assert names[index] in left

    again = watched.run()
    assert again.returncode == 0
    assert sorted(watched.parsed) == left
    assert await watched.counted() == whole
    assert f"going on, {census_report.files(len(left))} left." in again.stdout
    assert f"{census_report.files(len(left))} counted now, {FILES - len(left)} before." in again.stdout


async def test_killed_again_and_again_it_still_arrives(watched: Watched) -> None:
    whole, names = count(watched.tree), names_in(watched.tree)
    for index in (10, 100):
        assert watched.run(names[index]).returncode == -9
    assert watched.run().returncode == 0
    assert await watched.counted() == whole


async def test_ctrl_c_stops_it_and_the_same_command_goes_on(watched: Watched) -> None:
    whole, names = count(watched.tree), names_in(watched.tree)
    stopped = watched.run(names[50], "SIGINT")
    assert (stopped.returncode, stopped.stderr) == (130, "Stopped. The same command goes on where it was.\n")
    left = await watched.left()
    assert watched.run().returncode == 0
    assert sorted(watched.parsed) == left
    assert await watched.counted() == whole


async def test_a_finished_census_shows_its_result_again(watched: Watched) -> None:
    first = watched.run()
    write(watched.tree / "new.py", "")
    second = watched.run()
    assert watched.parsed == []
    assert "is counted already, this is the stored result." in second.stdout
    assert table(second) == table(first)


def table(done: "subprocess.CompletedProcess[str]") -> str:
    return done.stdout[done.stdout.index("Census of") :].rpartition("\n\n")[0]


async def test_files_that_vanish_or_appear_while_it_is_down_do_no_harm(watched: Watched) -> None:
    names = names_in(watched.tree)
    assert watched.run(names[60]).returncode == -9
    (watched.tree / names[100]).unlink()
    write(watched.tree / "a_new_one.py", "")
    assert watched.run().returncode == 0
    counted = await watched.counted()
    assert (counted["files"], len(counted["failures"])) == (FILES, 3)
    assert {"file": names[100], "reason": "No such file or directory"} in counted["failures"]


async def test_while_another_process_counts_it_says_so_in_one_line(watched: Watched) -> None:
    whole, names = count(watched.tree), names_in(watched.tree)
    first = subprocess.Popen(watched.command(names[50], "SIGSTOP"), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
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
    assert await watched.counted() == whole


def test_another_tree_is_another_run(watched: Watched, tmp_path: Path) -> None:
    write(tmp_path / "other" / "one.py", "x = 1")
    assert watched.run().returncode == 0
    assert "1 file counted now, 0 before." in run(tmp_path / "other", "--db", watched.db).stdout


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


def test_a_terminal_gets_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with census_report.progress(console, 5) as on_file:
        on_file()
        on_file()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "40%" in shown
    assert "2/5" in shown


# --- the demo


def test_the_demo_crashes_goes_on_and_compares(tmp_path: Path) -> None:
    body = "".join(f"def f{number}(a, b):\n    return (a + b) * {number}\n" for number in range(200))
    for number in range(100):
        write(tmp_path / f"module{number:03}.py", body)
    done = run(tmp_path, "--demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Killed with SIGKILL" in done.stdout
    assert "going on, " in done.stdout
    assert "Equal, in all 14 fields" in done.stdout


def console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=100), out


def test_the_demo_fails_where_the_results_differ(tree: Path) -> None:
    (quiet, out), whole = console(), count(tree)
    assert census_demo.compare(whole, quiet) == 0
    assert census_demo.compare(whole | {"lines": 7, "failures": []}, quiet) == 1
    assert "NOT EQUAL: lines, failures" in out.getvalue()


async def test_the_demo_fails_where_the_kill_comes_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: object) -> int:
        return 0

    write(tmp_path / "one.py", "x = 1")
    monkeypatch.setattr(census_demo, "versions", none)
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    quiet, out = console()
    run_id = census.run_id(str(tmp_path))
    assert await census_demo.demo(str(tmp_path), run_id, str(EXAMPLES / "census.py"), quiet) == 1
    assert "It ended with exit code 0, before the kill came." in out.getvalue()


async def test_the_demo_fails_with_the_census(tmp_path: Path) -> None:
    quiet, out = console()
    script = tmp_path / "failing.py"
    write(script, "raise SystemExit(3)")
    assert await census_demo.demo(str(tmp_path), "census-1", str(script), quiet) == 1
    assert "ended with exit code 3" in out.getvalue()
