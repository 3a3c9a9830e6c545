from pathlib import Path

from flowneer_async.testing import StoreContract
from flowneer_stores import MemoryStore


class TestMemoryStore(StoreContract):
    def make_store(self, tmp_path: Path) -> MemoryStore:
        return MemoryStore()
