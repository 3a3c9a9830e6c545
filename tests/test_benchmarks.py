"""The benchmarks still run; what they measure is no test's business."""

import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import SUBJECTS
from benchmarks.figure import Figure
from benchmarks.report import BEGIN, END, README, write

ROOT = Path(__file__).resolve().parent.parent


def test_every_benchmark_runs_and_a_quick_run_leaves_the_readme_alone() -> None:
    before = README.read_bytes()
    command = (sys.executable, "-W", "error", "-m", "benchmarks", "--quick")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    assert SUBJECTS.keys() <= set(done.stdout.split()), done.stdout
    assert README.read_bytes() == before


def test_the_table_replaces_what_stands_between_the_marks_and_nothing_else(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n", "utf-8")
    for name in ("once", "twice"):
        write([("subject", [Figure(name, "1 s", "2 s", 0.5, "≤ 1 ×", True, "0.40 – 0.60")])], readme)
    text = readme.read_text("utf-8")
    assert text.startswith(f"above\n{BEGIN}\n")
    assert text.endswith(f"| subject | twice | 1 s | 2 s | 0.50 | 0.40 – 0.60 | ≤ 1 × | ok |\n\n{END}\nbelow\n")
    assert "once" not in text
    assert "old" not in text


def test_the_readme_has_the_marks() -> None:
    text = README.read_text("utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
