from pathlib import Path

from flowneer_async.testing import StoreContract
from flowneer_stores import MemoryStore, SqliteStore
from flowneer_stores.encrypted import EncryptedStore
from flowneer_stores.signed import SignedStore

KEY = bytes(range(32))


class TestSignedMemoryStore(StoreContract):
    def make_store(self, tmp_path: Path) -> SignedStore:
        return SignedStore(MemoryStore(), KEY)


class TestSignedSqliteStore(StoreContract):
    def make_store(self, tmp_path: Path) -> SignedStore:
        return SignedStore(SqliteStore(tmp_path / "runs.db"), KEY, on_head=lambda version, signature: None)
