"""Other processes that a test talks to, line by line, so that nobody has to sleep."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "stores")))}
LONGEST = 60  # seconds, after which a process that does not answer is killed


class Talking:
    """A process that says a line when it has come somewhere, and goes on when it is told one."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def hear(self) -> str:
        """The next line that it says; empty once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, line: str = "go on") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Let it go on to its end, and give its exit code."""
        self.process.communicate()
        return self.process.returncode


@contextmanager
def talking(script: str, *arguments: object) -> Iterator[Talking]:
    """A Python process that runs `script`; killed at the end if it has not ended."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    limit = Timer(LONGEST, process.kill)
    limit.start()
    try:
        with process:
            yield Talking(process)
            process.kill()
    finally:
        process.kill()
        limit.cancel()
