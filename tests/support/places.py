"""Where a store is, in words that another process can be given on its command line."""

from pathlib import Path
from typing import Any

from flowneer_stores import SqliteStore

KINDS = ("sqlite",)


def place_of(kind: str, folder: Path) -> tuple[str, ...]:
    """The words for the store of this kind that belongs to a folder."""
    if kind == "sqlite":
        return (str(folder / "runs.db"),)
    from tests.support import postgres

    return postgres.server().dsn, postgres.schema_of(folder)


def store_at(*place: str, **options: Any) -> Any:
    """The store at a place."""
    if len(place) == 1:
        return SqliteStore(place[0], **options)
    from flowneer_stores import PostgresStore

    dsn, schema = place
    return PostgresStore(dsn, schema=schema, **options)
