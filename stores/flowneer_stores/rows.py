"""A run as a row of the table, and a row as a run."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

import orjson

from flowneer_async.errors import CorruptRun
from flowneer_async.store import Lease
from flowneer_async.versions import Run, Version
from flowneer_stores.writer import Cell

Row: TypeAlias = Sequence[Any]
"""What a question to the tables gives, each time."""


def as_row(run: Run, owner: str, lease_until: int) -> tuple[Cell, ...]:
    """The columns of create.sql; a run that waits is nobody's."""
    steps, tags = orjson.dumps(run.steps).decode(), orjson.dumps(dict(run.tags)).decode()
    held = (None, 0) if run.status == "waiting" else (owner, lease_until)
    named = (run.run_id, run.flow, run.state_type, steps, run.status, *held)
    said = (run.created, run.updated, run.first, run.fork_of, tags, run.seal)
    return (*named, *said, run.wake, run.priority, run.key, run.begun)


def as_run(columns: Sequence[Any], after: str | None = None) -> Run:
    """A run from the columns of run.sql, but for the first two; raises CorruptRun, which says `after`."""
    stored: Any = Run(*columns)
    steps, tags = _names(stored.steps, stored.run_id, after), _tags(stored.tags, stored.run_id, after)
    run: Run = replace(stored, steps=steps, tags=tags, cancelling=bool(stored.cancelling))
    return run


def append_rows(lease: Lease, versions: Sequence[Version]) -> list[tuple[Cell, ...]]:
    """The rows of append.sql: the first three say whether one fits, then the columns of a version but its run's id."""
    head = versions[0].seq - 1
    return [(lease.run_id, lease.epoch, head, *version[1:]) for version in versions]


def _names(text: str, run_id: str, after: str | None) -> tuple[str, ...]:
    names = _loaded(text)
    if isinstance(names, list) and _are_texts(cast(list[object], names)):
        return tuple(cast(list[str], names))
    raise CorruptRun(run_id, "its steps are no list of names", after)


def _tags(text: str, run_id: str, after: str | None) -> dict[str, str]:
    tags = _loaded(text)
    if isinstance(tags, dict) and _are_texts(cast(dict[str, object], tags).values()):
        return cast(dict[str, str], tags)
    raise CorruptRun(run_id, "its tags are no mapping of texts", after)


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _loaded(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
