"""Which runs are meant, in SQL."""

from collections.abc import Collection, Iterator

from flowneer_async.store import EVERY_STATUS, RunFilter
from flowneer_async.versions import Status

Condition = tuple[str, tuple[str | int, ...]]

_RUNNING: frozenset[Status] = frozenset({"running"})


def conditions(runs: RunFilter, now: int, gone: Collection[str], before: int | None = None) -> Condition:
    """What is true of these runs in rows before number `before`, and its parameters; the owners in `gone` are dead."""
    texts: list[str] = ["TRUE"]
    parameters: list[str | int] = []
    for text, cells in _each(runs, now, gone):
        texts.append(text)
        parameters += cells
    if before is not None:
        texts.append("id < ?")
        parameters.append(before)
    return " AND ".join(texts), tuple(parameters)


def _each(runs: RunFilter, now: int, gone: Collection[str]) -> Iterator[Condition]:
    # Some values are written out, as an index has them which holds nothing else.
    if runs.status == _RUNNING:
        yield "status = 'running'", ()
    elif runs.status != EVERY_STATUS:
        yield _among("status", runs.status)
    if runs.flow is not None:
        yield "flow = ?", (runs.flow,)
    for name, value in runs.tags.items():
        yield "id IN (SELECT run FROM flowneer_tags WHERE name = ? AND value = ?)", (name, value)
    if runs.owned is not None:
        dead, owners = _among("owner", gone)
        yield f"(owner IS NULL OR lease_until <= ? OR {dead}) = ?", (now, *owners, int(not runs.owned))
    for column, after, until in (
        ("created", runs.created_after, runs.created_before),
        ("updated", runs.updated_after, runs.updated_before),
    ):
        if after is not None:
            yield f"{column} >= ?", (after,)
        if until is not None:
            yield f"{column} < ?", (until,)
    if runs.begun_after is not None:
        yield "begun >= ?", (runs.begun_after,)
    if runs.key is not None:
        yield "key = ?" if runs.key == "" else "key = ? AND key <> ''", (runs.key,)
    if runs.cancelling is not None:
        yield f"cancelling = {int(runs.cancelling)}", ()


def _among(column: str, values: Collection[str]) -> Condition:
    return f"{column} IN ({','.join('?' * len(values))})", tuple(values)
