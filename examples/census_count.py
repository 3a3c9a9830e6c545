"""The counting of the census: which files there are, and what is in one of them.

Plain functions over one dict, `Census`: nothing here knows of flows, stores or terminals.

    state = new_census("/usr/lib/python3.11")
    find_files(state)
    for name in state["files"]:
        count_file(state, name)
    rank(state)
"""

import ast
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

TOP = 10  # how many of the longest functions and of the most imported modules are kept
KEPT_FAILURES = 20  # all failures are counted, these many are kept with their reason
SKIPPED = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # where a statement keeps its inner statements
UNREADABLE = (OSError, SyntaxError, ValueError, RecursionError, MemoryError)  # what reading and parsing may raise

Function = ast.FunctionDef | ast.AsyncFunctionDef
OnFile = Callable[[int, int], None]  # told after every file: how many are counted, how many there are
Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class LongFunction(TypedDict):
    lines: int
    name: str
    file: str
    line: int


class Failure(TypedDict):
    file: str
    reason: str


class Import(TypedDict):
    module: str
    times: int


class Census(TypedDict):
    root: str
    files: list[str]  # fixed by the first step, sorted, relative to root
    done: int  # how many of them are counted
    lines: int
    functions: int
    async_functions: int
    classes: int
    imports: int
    definitions: int  # what may have a docstring: modules, classes, functions
    documented: int  # of these, how many have one
    annotated: int  # functions that say what they return
    modules: dict[str, int]  # imported top-level module: how often
    longest: list[LongFunction]
    most_imported: list[Import]
    failed: int
    failures: list[Failure]


def new_census(root: str) -> Census:
    """The empty census of a tree."""
    return {
        "root": root, "files": [], "done": 0, "lines": 0, "functions": 0, "async_functions": 0, "classes": 0,
        "imports": 0, "definitions": 0, "documented": 0, "annotated": 0, "modules": {}, "longest": [],
        "most_imported": [], "failed": 0, "failures": [],
    }  # fmt: skip


def python_files(root: str) -> Iterator[str]:
    """Every .py file below root, as a path relative to it; not the installed packages, nor hidden folders."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.startswith(".")]
        paths = (Path(folder, name) for name in names if name.endswith(".py"))
        yield from (path.relative_to(root).as_posix() for path in paths if path.is_file())


def find_files(state: Census) -> None:
    """Fix the list of files. Whatever happens to the tree later, this is the list that is counted."""
    state["files"] = sorted(printable(name) for name in python_files(state["root"]))


def printable(text: str) -> str:
    """The same text; bytes that are no text, which a file name may contain, become escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def count_file(state: Census, name: str) -> None:
    """Count one file into the state. One that cannot be read or parsed is noted as failed."""
    try:
        source = Path(state["root"], name).read_bytes()
        tree = parse(source)
    except UNREADABLE as error:
        count_failure(state, name, error)
    else:
        state["lines"] += len(source.splitlines())
        count_definition(state, tree)
        for node in statements(tree):
            count_statement(state, name, node)
    state["done"] += 1


def parse(source: bytes) -> ast.Module:
    """Parse a file, whatever its encoding; what Python would warn of in it is no matter of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Every statement in the tree, nested ones too. Expressions are not walked: that would take thrice the time."""
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        for block in BLOCKS:
            stack.extend(getattr(node, block, ()))
        yield node


def count_statement(state: Census, file: str, node: ast.AST) -> None:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            count_function(state, file, node)
        case ast.ClassDef():
            state["classes"] += 1
            count_definition(state, node)
        case ast.Import(names=names):
            for alias in names:
                count_import(state, alias.name)
        case ast.ImportFrom(module=module, level=level):
            count_import(state, module if module and not level else "")
        case _:
            pass


def count_function(state: Census, file: str, node: Function) -> None:
    state["functions"] += 1
    state["async_functions"] += isinstance(node, ast.AsyncFunctionDef)
    state["annotated"] += node.returns is not None
    count_definition(state, node)
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if len(state["longest"]) < TOP or lines >= state["longest"][-1]["lines"]:
        found: LongFunction = {"lines": lines, "name": node.name, "file": file, "line": node.lineno}
        state["longest"] = sorted([*state["longest"], found], key=longest_first)[:TOP]


def longest_first(function: LongFunction) -> tuple[int, str, int]:
    return -function["lines"], function["file"], function["line"]


def count_definition(state: Census, node: Definition) -> None:
    state["definitions"] += 1
    state["documented"] += ast.get_docstring(node, clean=False) is not None


def count_import(state: Census, name: str) -> None:
    """Count one imported module; without a name it is a relative import."""
    state["imports"] += 1
    module = name.partition(".")[0]
    if module:
        state["modules"][module] = state["modules"].get(module, 0) + 1


def count_failure(state: Census, file: str, error: BaseException) -> None:
    state["failed"] += 1
    if len(state["failures"]) < KEPT_FAILURES:
        state["failures"].append({"file": file, "reason": reason(error)})


def reason(error: BaseException) -> str:
    """Why a file was not counted, in a few words."""
    match error:
        case SyntaxError(msg=msg, lineno=line):
            return printable(f"line {line}: {msg}" if line else msg)
        case OSError(strerror=str(text)):
            return text
        case _:
            return printable(str(error) or type(error).__name__)


def rank(state: Census) -> None:
    """The last step: the imported modules, most frequent first."""
    ranked = sorted(state["modules"].items(), key=lambda item: (-item[1], item[0]))
    state["most_imported"] = [{"module": module, "times": times} for module, times in ranked[:TOP]]


def count_tree(root: str, on_file: OnFile) -> Census:
    """The whole census in one go, with no flow and no store: what the demo and the tests compare with."""
    state = new_census(root)
    find_files(state)
    for name in state["files"]:
        count_file(state, name)
        on_file(state["done"], len(state["files"]))
    rank(state)
    return state
