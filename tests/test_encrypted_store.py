from pathlib import Path

from flowneer_async.testing import StoreContract
from flowneer_stores import MemoryStore, SqliteStore
from flowneer_stores.encrypted import EncryptedStore

KEYS = {"old": bytes(range(16)), "new": bytes(range(32))}


class TestEncryptedMemoryStore(StoreContract):
    def make_store(self, tmp_path: Path) -> EncryptedStore:
        return EncryptedStore(MemoryStore(), KEYS)


class TestEncryptedSqliteStore(StoreContract):
    def make_store(self, tmp_path: Path) -> EncryptedStore:
        return EncryptedStore(SqliteStore(tmp_path / "runs.db"), KEYS, current="new")
