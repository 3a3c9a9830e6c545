"""A real PostgreSQL server for the tests: one for all of them, started when the first one asks, and a schema for each.

With `FLOWNEER_TEST_PG_DSN` another server is used instead: a database is made there, and dropped in the end.
"""

import asyncio
import atexit
import os
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from flowneer_stores import PostgresStore

ROOT = Path(__file__).parents[2]


class Own:
    """A server that the tests have to themselves, kept by a process beside them."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.support.postgres_keeper"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # What is typed to end the tests is not meant for the keeper: it has to clean up.
            start_new_session=True,
        )
        self.folder = self._answer()
        self.dsn = f"postgresql://postgres@/postgres?host={self.folder}"

    def restart(self) -> None:
        """Restart the server as after a crash."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write("restart\n")
        self._keeper.stdin.flush()
        self._answer()

    def stop(self) -> None:
        """Stop the server; its files are gone."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.wait()
        self._keeper.stdout.close()

    def _answer(self) -> str:
        assert self._keeper.stdout is not None
        return self._keeper.stdout.readline().strip() or pytest.fail("the PostgreSQL server does not start")


class Given:
    """A database of these tests on a server that was given."""

    def __init__(self, dsn: str) -> None:
        self._given, self._name = dsn, f"flowneer_test_{secrets.token_hex(4)}"
        # In a thread, for the test that asks first may have a loop that runs.
        with ThreadPoolExecutor(1) as beside:
            beside.submit(asyncio.run, _execute(dsn, f"CREATE DATABASE {self._name}")).result()
        self.dsn = urlsplit(dsn)._replace(path=f"/{self._name}").geturl()

    def restart(self) -> None:
        """It is not ours."""
        pytest.skip("the server was given with FLOWNEER_TEST_PG_DSN, and is not restarted")

    def stop(self) -> None:
        """Drop the database."""
        asyncio.run(_execute(self._given, f"DROP DATABASE {self._name} WITH (FORCE)"))


@cache
def server() -> Own | Given:
    """The server of this session."""
    dsn = os.environ.get("FLOWNEER_TEST_PG_DSN")
    running = Given(dsn) if dsn else Own()
    atexit.register(running.stop)
    return running


def own_server() -> Own:
    """The server of this session, for a test that asks more of it than of one that was given."""
    running = server()
    return running if isinstance(running, Own) else pytest.skip("the server was given with FLOWNEER_TEST_PG_DSN")


def schema_of(folder: Path) -> str:
    """The schema of one test: that which belongs to its folder."""
    return "test_" + blake2b(str(folder).encode(), digest_size=8).hexdigest()


def store_at(folder: Path, **options: Any) -> PostgresStore:
    """The store that belongs to a folder, new unless there was one."""
    return PostgresStore(server().dsn, schema=schema_of(folder), **options)


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
