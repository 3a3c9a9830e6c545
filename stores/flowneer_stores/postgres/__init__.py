"""A store in a PostgreSQL database."""

from flowneer_stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
