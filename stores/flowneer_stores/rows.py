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
    """The columns of create.sql."""
    steps, tags = orjson.dumps(run.steps).decode(), orjson.dumps(dict(run.tags)).decode()
    named = (run.run_id, run.flow, run.state_type, steps, run.status, owner, lease_until)
    return (*named, run.created, run.updated, run.first, run.fork_of, tags, run.seal)


def as_run(columns: Sequence[Any], after: str | None = None) -> Run:
    """A run from the columns of run.sql, but for the first one; raises CorruptRun, which says `after`."""
    run_id, flow, state_type, steps, *rest = columns
    *others, tags, seal = rest
    run = Run(run_id, flow, state_type, _names(steps, run_id, after), *others)
    return replace(run, tags=_tags(tags, run_id, after), seal=seal)


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
