"""The SQL of the PostgreSQL store, one file for each question, under `sql/`."""

from importlib.resources import files

NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""Unix time in ms, by the clock of the database: the only one that all processes share."""


def _read(name: str) -> str:
    return (files("flowneer_stores.postgres") / "sql" / name).read_text("utf-8").replace("{now}", NOW)


SCHEMA = _read("schema.sql")
UPGRADED = _read("upgraded.sql")
CREATE = _read("create.sql")
START = _read("start.sql")
CLAIM = _read("claim.sql")
APPEND = _read("append.sql")
APPEND_ONE = _read("append_one.sql")
RELEASE = _read("release.sql")
RENEW = _read("renew.sql")
ABANDON = _read("abandon.sql")
SEND = _read("send.sql")
ASK_CANCEL = _read("ask_cancel.sql")
DROP = _read("drop.sql")
PURGE = _read("purge.sql")

TAKEN = _read("taken.sql")
APPENDED = _read("appended.sql")
SENT = _read("sent.sql")
DROPPED = _read("dropped.sql")
PURGED = _read("purged.sql")

RUN = _read("run.sql")
CHAIN = _read("chain.sql")
VERSIONS = _read("versions.sql")
SIGNALS = _read("signals.sql")
DUE = _read("due.sql")
FIND = _read("find.sql")
COUNT = _read("count.sql")
OWNERS = _read("owners.sql")

MIGRATIONS = tuple(_read(f"migrations/{number:03}.sql") for number in (1, 2))
"""What brings a database from schema n to schema n + 1."""


def within(statement: str, schema: str) -> str:
    """The statement, on the tables of this schema."""
    return statement.replace("{schema}", f'"{schema}"')
