"""Which runs a store has, and which of their versions it keeps: the questions that people ask, put to any store."""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TypedDict, cast

from flowneer_async.errors import BadOption, UnknownRun
from flowneer_async.policy import EPOCH, unix_ms
from flowneer_async.store import EVERY_STATUS, RunFilter, VersionStore
from flowneer_async.versions import Run, Status

NO_TAGS: Mapping[str, str] = {}

_PAGE = 100


class Where(TypedDict, total=False):
    """Which runs are meant: those of which all of this is true.

    `owned` runs have a lease that has not lapsed. A run has to have all of `tags`, and may have more. Times are those
    of aware datetimes, or Unix time in ms; *after* begins at that time, *before* ends before it.
    """

    status: Status | Collection[Status]
    flow: str
    tags: Mapping[str, str]
    owned: bool
    created_after: datetime | int
    created_before: datetime | int
    updated_after: datetime | int
    updated_before: datetime | int
    begun_after: datetime | int
    key: str
    cancelling: bool


def run_filter(where: Where) -> RunFilter:
    """The same, for a store; raises BadOption."""
    unknown = set(where) - set(Where.__annotations__)
    if unknown:
        raise BadOption(min(unknown), "…", f"runs are found by {', '.join(Where.__annotations__)}")
    times = {name: _ms(name, moment) for name, moment in where.items() if name.endswith(("_after", "_before"))}
    return RunFilter(
        _statuses(where.get("status", EVERY_STATUS)),
        where.get("flow"),
        checked_tags(where.get("tags", {})),
        where.get("owned"),
        key=where.get("key"),
        cancelling=where.get("cancelling"),
        **times,
    )


def checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as they are kept, by name; raises BadOption where they are not names and texts."""
    given = cast(Mapping[object, object], tags)
    for each in (*given, *given.values()):
        if not isinstance(each, str) or "\0" in each or any("\ud800" <= sign <= "\udfff" for sign in each):
            raise BadOption("tags", "…", "they are a mapping of names to texts, without NUL or lone surrogates")
    return dict(sorted(tags.items()))


async def every_run(store: VersionStore, runs: RunFilter) -> AsyncGenerator[Run, None]:
    """All of these runs, the newest first, a page at a time."""
    after: str | None = None
    while True:
        page = await store.find(runs, _PAGE, after)
        for run in page.runs:
            yield run
        if page.next is None:
            return
        after = page.next


async def prune(
    store: VersionStore,
    runs: RunFilter,
    keep: int | None = None,
    older_than: timedelta | float | None = None,
    now: int | None = None,
) -> int:
    """Drop versions of these runs that are not among the last `keep`, and older than `older_than` (seconds).

    Where one of the two is not given, the other decides alone. What a kept version folds from is kept too, and the last
    version always: so every run goes on. Gives how many were dropped. Raises BadOption.
    """
    if keep is None and older_than is None:
        raise BadOption("keep", None, "say what to keep: keep=…, the last so many versions, or older_than=…, seconds")
    if keep is not None and keep < 1:
        raise BadOption("keep", keep, "at least the last version is kept; purge(run_id) forgets a run")
    since = None if older_than is None else (unix_ms() if now is None else now) - _span(older_than)
    dropped = 0
    async for run in every_run(store, runs):
        with suppress(UnknownRun):
            dropped += await store.drop(run.run_id, min(keep or 1, 2**53), since)
    return dropped


def _span(older_than: timedelta | float) -> int:
    seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
    if not 0 <= seconds < float("inf"):
        raise BadOption("older_than", older_than, "it is a timedelta, or a number of seconds, of 0 or more")
    return int(min(seconds, 1e12) * 1000)


def _ms(name: str, moment: object) -> int:
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return -((EPOCH - moment) // timedelta(milliseconds=1))
    if isinstance(moment, int) and not isinstance(moment, bool) and -(2**63) <= moment < 2**63:
        return moment
    raise BadOption(name, moment, "it is a datetime with a time zone, or Unix time in ms")


def _statuses(status: Status | Collection[Status]) -> frozenset[Status]:
    wanted: set[str] = {status} if isinstance(status, str) else set(status)
    if not wanted <= EVERY_STATUS:
        raise BadOption("status", min(wanted - EVERY_STATUS), f"it is one of {', '.join(sorted(EVERY_STATUS))}")
    return EVERY_STATUS & wanted
