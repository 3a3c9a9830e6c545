from pathlib import Path

from flowneer_async.testing import StoreContract
from flowneer_stores import SqliteStore


class TestSqliteStore(StoreContract):
    def make_store(self, tmp_path: Path) -> SqliteStore:
        return SqliteStore(tmp_path / "runs.db")
