"""The wheel, built by way of the sdist, holds both packages whole and works where the checkout cannot be seen."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"flowneer_async": ROOT / "flowneer_async", "flowneer_stores": ROOT / "stores" / "flowneer_stores"}
SHIPPED = {".py", ".sql", ".typed"}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With neither --sdist nor --wheel, build makes the wheel out of the sdist: both are tested by one build."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_top_level_names_are_the_two_packages_and_the_metadata(wheel: Path, names: set[str]) -> None:
    name, version, *_ = wheel.name.split("-")
    assert {n.split("/")[0] for n in names} == {*PACKAGES, f"{name}-{version}.dist-info"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_the_package_is_in_the_wheel(package: str, names: set[str]) -> None:
    tree = PACKAGES[package]
    expected = {f"{package}/{f.relative_to(tree).as_posix()}" for f in tree.rglob("*") if f.suffix in SHIPPED}
    assert f"{package}/py.typed" in expected
    assert {n for n in names if n.startswith(f"{package}/")} == expected


def test_both_packages_import_from_a_fresh_venv(wheel: Path, tmp_path: Path) -> None:
    """The venv is new and has only the wheel, put there by the pip of this environment. The dependencies are
    borrowed from this environment by a .pth file, added last: Python reads no .pth file of a borrowed directory, so
    the editable install of the checkout stays out of sight, as the paths printed below show.
    """
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    code = f"import {', '.join(PACKAGES)}; print({', '.join(f'{p}.__file__' for p in PACKAGES)}, sep='\\n')"
    printed = run(python, "-I", "-W", "error", "-c", code, cwd=tmp_path)

    assert [Path(line) for line in printed.splitlines()] == [site / p / "__init__.py" for p in PACKAGES]
