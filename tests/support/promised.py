"""What a store has promised: of each run what has to be stored, at any point of the log of `power_child.py`."""

import asyncio
import pickle
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import orjson

from flowneer_async import Signal, Status, UnknownRun, Version, VersionStore
from flowneer_async.versions import fold
from flowneer_stores import SqliteStore
from tests.support.disk import Record


class Asked(NamedTuple):
    """Request number `number` has been made."""

    number: int


class Done(NamedTuple):
    """It was acknowledged, and this became of the run: what the store was asked, and with what."""

    number: int
    method: str
    run_id: str
    data: Any


class Held(NamedTuple):
    """All that a store has of a run."""

    status: Status
    versions: tuple[Version, ...]
    signals: tuple[Signal, ...] = ()


class Moment(NamedTuple):
    """What became of a run, by a request made at one line of the log and acknowledged at another."""

    asked: int
    done: int
    held: Held | None


_STORE = ("create", "append")

Promises = Mapping[str, list[Moment]]


def promises(log: Iterable[Record]) -> Promises:
    """The moments of every run, in order: each is possible once it was asked for, and sure once acknowledged."""
    moments: dict[str, list[Moment]] = {}
    asked: dict[int, int] = {}
    for place, record in enumerate(log):
        if record.kind != b"N":
            continue
        match pickle.loads(record.data):
            case Asked(number):
                asked[number] = place
            case Done(number) as done:
                of_run = moments.setdefault(done.run_id, [Moment(-1, -1, None)])
                of_run.append(Moment(asked.pop(number), place, _next(of_run[-1].held, done)))
    assert not asked
    return moments


def done_in(log: Iterable[Record]) -> Iterator[Done]:
    """Every request that was acknowledged in this part of a log."""
    notes = (pickle.loads(record.data) for record in log if record.kind == b"N")
    return (note for note in notes if isinstance(note, Done))


def acknowledged(log: Iterable[Record]) -> set[Version]:
    """Every version that was."""
    return {version for done in done_in(log) if done.method in _STORE for version in done.data}


def _next(held: Held | None, done: Done) -> Held | None:
    if done.method == "create":
        return Held("running", done.data)
    if done.method in ("refuse", "purge"):
        return held if done.method == "refuse" else None
    assert held is not None
    match done.method:
        case "claim":
            return held._replace(status="running")
        case "append":
            return held._replace(versions=held.versions + done.data)
        case "release":
            return held._replace(status=done.data)
        case "send":
            return held._replace(signals=(*held.signals, done.data))
        case _:
            first = held.versions[-done.data].base if done.data < len(held.versions) else 0
            return held._replace(versions=tuple(version for version in held.versions if version.seq >= first))


async def lost(store: SqliteStore, promised: Promises, place: int) -> int:
    """How many requests that were acknowledged before this line of the log a store has forgotten.

    What it has of each run has to be what it had at some moment, with no request in it that was not yet made.
    """
    forgotten = 0
    found = await asyncio.gather(*(held_of(store, run_id) for run_id in promised))
    for (run_id, moments), held in zip(promised.items(), found, strict=True):
        possible = [number for number, moment in enumerate(moments) if moment.asked < place and moment.held == held]
        assert possible, f"{run_id} is as it never was"
        forgotten += max(0, sum(moment.done < place for moment in moments) - 1 - possible[-1])
        if held:
            assert (await store.resolve(held.versions[-1].id)).state == state_of(held.versions)
    return forgotten


async def held_of(store: VersionStore, run_id: str) -> Held | None:
    """What a store has of a run."""
    try:
        run = await store.read(run_id)
    except UnknownRun:
        return None
    versions = tuple(await store.versions(run_id))
    assert (run.first, run.head) == (versions[0].seq, versions[-1].seq)
    return Held(run.status, versions, tuple(await store.signals(run_id)))


@cache
def state_of(versions: tuple[Version, ...]) -> dict[str, object]:
    """The last state in a row of versions."""
    return {key: orjson.loads(text) for key, text in fold(versions).items()}
