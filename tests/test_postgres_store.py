from pathlib import Path

from flowneer_async.testing import StoreContract
from flowneer_stores import PostgresStore
from tests.support.postgres import store_at


class TestPostgresStore(StoreContract):
    def make_store(self, tmp_path: Path) -> PostgresStore:
        return store_at(tmp_path)
