"""What the type checkers say of users' code, which stands in tests/typing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GOOD, BAD = (ROOT / "tests" / "typing" / name for name in ("good.py", "bad.py"))

Complaints = set[tuple[str, int]]


def output_of(*command: str | Path) -> str:
    found = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert found.returncode in (0, 1), found.stdout + found.stderr
    print(found.stdout)
    return found.stdout


def mypy(folder: Path) -> Complaints:
    """File and line of each error, under the project's own strict settings."""
    output = output_of("mypy", "--no-error-summary", "--hide-error-context", GOOD, BAD)
    found = re.findall(r"^(?:.*/)?(\w+\.py):(\d+): error:", output, re.MULTILINE)
    return {(name, int(line)) for name, line in found}


def pyright(folder: Path) -> Complaints:
    """The same. Its project is one of its own, for the repository's leaves these files out."""
    settings = folder / "pyrightconfig.json"
    paths = {"include": [os.path.relpath(GOOD.parent, folder)], "extraPaths": [str(ROOT), str(ROOT / "stores")]}
    settings.write_text(json.dumps(paths | {"typeCheckingMode": "strict", "pythonVersion": "3.11"}))
    output = output_of("pyright", "--project", settings, "--pythonpath", sys.executable, "--outputjson")
    report = json.loads(output[output.index("{") :])
    assert report["summary"]["filesAnalyzed"] == 2
    errors = [found for found in report["generalDiagnostics"] if found["severity"] == "error"]
    return {(Path(found["file"]).name, found["range"]["start"]["line"] + 1) for found in errors}


def marked(path: Path) -> Complaints:
    """The lines that are to be complained of."""
    lines = enumerate(path.read_text().splitlines(), start=1)
    return {(path.name, number) for number, line in lines if line.endswith("# error")}


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_checkers_find_the_mistakes_and_nothing_else(checker: Callable[[Path], Complaints], tmp_path: Path) -> None:
    """A user's flows pass in strict mode, and every marked line of the bad ones, and no other, is an error."""
    assert marked(GOOD) == set()
    assert checker(tmp_path) == marked(BAD)
