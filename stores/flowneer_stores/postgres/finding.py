"""Which runs are meant, said in SQL."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import orjson

from flowneer_async.store import EVERY_STATUS, RunFilter
from flowneer_stores.postgres.queries import NOW

Parameter: TypeAlias = str | int | Sequence[str]


def conditions(
    runs: RunFilter, gone: Sequence[str], before: int | None = None, given: int = 0
) -> tuple[str, list[Parameter]]:
    """What is true of these runs in rows before number `before`, and its parameters; the owners in `gone` are dead.

    The statement has `given` parameters before these.
    """
    each = list(_each(runs, gone))
    if before is not None:
        each.append(("id < {}", before))
    texts = [text.format(f"${number}") for number, (text, _) in enumerate(each, given + 1)]
    return " AND ".join(texts) or "TRUE", [parameter for _, parameter in each]


def _each(runs: RunFilter, gone: Sequence[str]) -> Iterator[tuple[str, Parameter]]:
    if runs.status != EVERY_STATUS:
        yield "status = ANY({}::text[])", sorted(runs.status)
    if runs.flow is not None:
        yield "flow = {}", runs.flow
    if runs.tags:
        yield "tags @> {}::text::jsonb", orjson.dumps(dict(runs.tags)).decode()
    if runs.owned is not None:
        free = f"(owner IS NULL OR lease_until <= {NOW} OR owner = ANY({{}}::text[]))"
        yield f"NOT {free}" if runs.owned else free, list(gone)
    for text, moment in (
        ("created >= {}", runs.created_after),
        ("created < {}", runs.created_before),
        ("updated >= {}", runs.updated_after),
        ("updated < {}", runs.updated_before),
        ("begun >= {}", runs.begun_after),
    ):
        if moment is not None:
            yield text, moment
    if runs.key is not None:
        yield "key = {}", runs.key
    if runs.cancelling is not None:
        yield "cancelling = {}", runs.cancelling
