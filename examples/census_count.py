"""The counting of the census: which files there are, and what is in one of them.

Plain functions over one dict, `Census`: nothing here knows of flows, stores or terminals.

    census = new_census("/usr/lib/python3.11")
    for name in find_files(census):
        count_file(census, name)
    rank(census)
"""

import ast
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypedDict

TOP = 10  # how many of the longest functions and of the most imported modules are kept
SKIPPED = {"__pycache__", "site-packages", "dist-packages", "node_modules", "test", "tests", "idle_test"}
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # where a statement keeps its inner statements
UNREADABLE = (OSError, SyntaxError, ValueError, RecursionError, MemoryError)  # what reading and parsing may raise

Function = ast.FunctionDef | ast.AsyncFunctionDef
OnFile = Callable[[], None]  # told after every file
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
    files: int
    lines: int
    functions: int
    async_functions: int
    classes: int
    imports: int
    definitions: int  # what may have a docstring: modules, classes, functions
    documented: int  # of these, how many have one
    annotated: int  # functions that say what they return
    imported: list[str]  # a top-level module for each import that is not relative
    most_imported: list[Import]
    longest: list[LongFunction]
    failures: list[Failure]


def new_census(root: str) -> Census:
    """The empty census of a tree."""
    return {
        "root": root, "files": 0, "lines": 0, "functions": 0, "async_functions": 0, "classes": 0, "imports": 0,
        "definitions": 0, "documented": 0, "annotated": 0, "imported": [], "most_imported": [], "longest": [],
        "failures": [],
    }  # fmt: skip


def python_files(root: str) -> Iterator[str]:
    """Every .py file below root, as a path relative to it; no installed packages, tests, hidden folders."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.startswith(".")]
        paths = (Path(folder, name) for name in names if name.endswith(".py"))
        yield from (path.relative_to(root).as_posix() for path in paths if path.is_file())


def find_files(census: Census) -> list[str]:
    """The names of all files of the tree, in their order."""
    return sorted(printable(name) for name in python_files(census["root"]))


def printable(text: str) -> str:
    """The same text; bytes that are no text, which a file name may contain, become escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def count_file(census: Census, name: str) -> None:
    """Count one file. One that cannot be read or parsed is noted with its reason."""
    census["files"] += 1
    try:
        source = Path(census["root"], name).read_bytes()
        tree = parse(source)
    except UNREADABLE as error:
        census["failures"].append({"file": name, "reason": reason(error)})
        return
    census["lines"] += len(source.splitlines())
    count_definition(census, tree)
    for node in statements(tree):
        count_statement(census, name, node)


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


def count_statement(census: Census, file: str, node: ast.AST) -> None:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            count_function(census, file, node)
        case ast.ClassDef():
            census["classes"] += 1
            count_definition(census, node)
        case ast.Import(names=names):
            for alias in names:
                count_import(census, alias.name)
        case ast.ImportFrom(module=module, level=level):
            count_import(census, module if module and not level else "")
        case _:
            pass


def count_function(census: Census, file: str, node: Function) -> None:
    census["functions"] += 1
    census["async_functions"] += isinstance(node, ast.AsyncFunctionDef)
    census["annotated"] += node.returns is not None
    count_definition(census, node)
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if len(census["longest"]) < TOP or lines >= census["longest"][-1]["lines"]:
        found: LongFunction = {"lines": lines, "name": node.name, "file": file, "line": node.lineno}
        census["longest"] = longest_of([*census["longest"], found])


def longest_of(functions: Iterable[LongFunction]) -> list[LongFunction]:
    """The longest ones, longest first."""
    return sorted(functions, key=lambda each: (-each["lines"], each["file"], each["line"]))[:TOP]


def count_definition(census: Census, node: Definition) -> None:
    census["definitions"] += 1
    census["documented"] += ast.get_docstring(node, clean=False) is not None


def count_import(census: Census, name: str) -> None:
    """Count one imported module; without a name it is a relative import."""
    census["imports"] += 1
    if name:
        census["imported"].append(name.partition(".")[0])


def reason(error: BaseException) -> str:
    """Why a file was not counted, in a few words."""
    match error:
        case SyntaxError(msg=msg, lineno=line):
            return printable(f"line {line}: {msg}" if line else msg)
        case OSError(strerror=str(text)):
            return text
        case _:
            return printable(str(error) or type(error).__name__)


def rank(census: Census) -> None:
    """The last step: the imported modules, most frequent first."""
    ranked = sorted(Counter(census["imported"]).items(), key=lambda item: (-item[1], item[0]))
    census["most_imported"] = [{"module": module, "times": times} for module, times in ranked[:TOP]]


def count_tree(root: str, on_file: OnFile) -> Census:
    """The whole census in one go, with no flow and no store: what the demo and the tests compare with."""
    census = new_census(root)
    for name in find_files(census):
        count_file(census, name)
        on_file()
    rank(census)
    return census
