"""The SQL of the SQLite store, one file for each question, under `sql/`."""

from importlib.resources import files


def _read(name: str) -> str:
    return (files("flowneer_stores.sqlite") / "sql" / name).read_text("utf-8")


CREATE = _read("create.sql")
START = _read("start.sql")
CLAIM = _read("claim.sql")
APPEND = _read("append.sql")
RELEASE = _read("release.sql")
RENEW = _read("renew.sql")
ABANDON = _read("abandon.sql")
RUN = _read("run.sql")
CHAIN = _read("chain.sql")
VERSIONS = _read("versions.sql")
SEND = _read("send.sql")
ASK_CANCEL = _read("ask_cancel.sql")
SIGNALS = _read("signals.sql")
DUE = _read("due.sql")
FIND = _read("find.sql")
COUNT = _read("count.sql")
MARKS = _read("marks.sql")
OWNERS = _read("owners.sql")
DROP = _read("drop.sql")
PURGE = _read("purge.sql")

MIGRATIONS = tuple(_read(f"migrations/{number:03}.sql") for number in (1, 2, 3, 4))
"""What brings a database from schema n to schema n + 1."""
