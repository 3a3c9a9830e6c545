"""The library that a process is started with to have its files watched, or to let them fail: `faulty_io.c`."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.children import ENVIRONMENT

_SOURCE = Path(__file__).with_name("faulty_io.c")


def compiled(folder: Path) -> Path:
    """The library, in a folder of its own; skips the test where there is no way to have it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux":
        pytest.skip("libraries are preloaded, in the way of these tests, on Linux only")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc, clang) is on PATH to build tests/support/faulty_io.c")
    library = folder / "faulty_io.so"
    command = [compiler, "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-pthread"]
    subprocess.run([*command, "-o", library, _SOURCE, "-ldl"], check=True)
    return library


def environment(library: Path, folder: Path, log: Path | None = None) -> dict[str, str]:
    """What a process needs in its environment for the files in `folder` to be watched."""
    watched = {"LD_PRELOAD": str(library), "FAULTY_FOLDER": str(folder.resolve())}
    return ENVIRONMENT | watched | ({} if log is None else {"FAULTY_LOG": str(log)})


class Faults:
    """The library, seen from within the process that it was preloaded into."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._library.faulty_calls.restype = ctypes.c_long
        self._library.faulty_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_long, ctypes.c_int, ctypes.c_int]

    def arm(self, kinds: str, call: int, error: int, *, calls: int = 1, half: bool = False) -> None:
        """Let this call of these kinds (of any, if none are named) fail from now on, the first being 1; `calls` in all.

        A negative error kills the process. With `half`, a write first does half of what it should, and then they fail.
        """
        last = call + calls - 1 + half
        self._library.faulty_arm(kinds.encode(), call, last, error, half)

    def lift(self) -> None:
        """Let nothing fail any more."""
        self.arm("", 0, 0, calls=0)

    @property
    def calls(self) -> int:
        """How many there were since it was armed."""
        return self._library.faulty_calls()

    def note(self, text: bytes) -> None:
        """Write something into the log, between what was done before and what comes after."""
        self._library.faulty_note(text, len(text))
