"""The contract of due."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from random import Random
from typing import get_args

import pytest

from flowneer_async.store import Due, VersionStore
from flowneer_async.testing.chains import EARLY, counting, new_run, owned
from flowneer_async.versions import Run, Status

LATE = 100 * EARLY
"""A Unix time in ms that no store's own clock will show."""

_FLOW = Due(frozenset({"flow"}))
_ODD = ["", " ", "a'b", 'a"b', "[0]", "%", "_", "a,b", "null", "1", "ü€😀", "A", "a", "\n\t", "'; DROP TABLE runs --"]
"""Keys that mean something elsewhere."""


async def _stored(store: VersionStore, run: Run, status: Status, wake: int | None) -> None:
    """A run that nobody works on, and is to be woken then."""
    lease = await store.create(replace(run, wake=wake))
    assert lease is not None
    await store.release(lease, status, wake=wake)


async def _waits(store: VersionStore, run_id: str, wake: int = EARLY, priority: int = 0, key: str = "") -> None:
    run = replace(new_run(run_id), status="waiting", wake=wake, priority=priority, key=key)
    assert await store.create(run, counting(run_id, 1)) is not None


async def _ids(store: VersionStore, wanted: Due = _FLOW, limit: int = 1000) -> list[str]:
    return [run.run_id for run in await store.due(wanted, limit)]


async def _mixed(store: VersionStore) -> list[Run]:
    """Runs that differ in all that they are due by, in the order they were stored."""
    kinds = list(product(get_args(Status), (None, EARLY, EARLY + 1, LATE), (0, 7, -7), ("", "key"), ("flow", "other")))
    Random(5).shuffle(kinds)
    for number, (status, wake, priority, key, flow) in enumerate(kinds):
        run = replace(new_run(f"run-{number}"), priority=priority, key=key, flow=flow)
        if status == "running" and wake is None:
            await store.create(run)  # somebody works on it
        else:
            await _stored(store, run, status, wake)
    return [await store.read(f"run-{number}") for number in range(len(kinds))]


def _expected(runs: Sequence[Run], wanted: Due) -> list[Run]:
    """What a store has to give, said once more."""
    of = [run for run in runs if run.flow in wanted.flows and run.key not in wanted.busy]
    left = [(-run.priority, 0, row, run) for row, run in enumerate(of) if run.status == "running" and not run.owner]
    woken = [
        (-run.priority, run.wake, row, run)
        for row, run in enumerate(of)
        if run.status == "waiting" and run.wake is not None and run.wake < LATE
    ]
    return [run for *_, run in sorted([*left, *woken], key=lambda each: each[:3])]


class DueContract:
    """The runs that somebody should go on with are given, the most urgent ones first, and no others."""

    async def test_the_runs_that_are_due_are_given_in_their_order(self, store: VersionStore) -> None:
        """Of the flows that are meant and no busy key: by priority, those left behind first, then by when to wake."""
        runs = await _mixed(store)
        flows = [frozenset[str](), *map(frozenset, (["flow"], ["other"], ["flow", "other", "none"]))]
        for of, busy in product(flows, map(frozenset[str], ([], ["key"], [""], ["", "key", "none"]))):
            wanted = Due(of, busy)
            expected = _expected(runs, wanted)
            for limit in (0, 1, 2, 7, len(expected), 1000):
                assert list(await store.due(wanted, limit)) == expected[:limit], (wanted, limit)

    async def test_an_empty_store_has_nothing_to_do(self, store: VersionStore) -> None:
        """Whatever is asked for."""
        assert list(await store.due(_FLOW, 10)) == []
        assert list(await store.due(Due(frozenset(), frozenset({"key"})), 0)) == []

    async def test_runs_that_are_due_are_whole(self, store: VersionStore) -> None:
        """Every field is that of the run when it is read."""
        run = replace(new_run(), status="waiting", wake=EARLY, priority=7, key="ü'", fork_of="a@1", tags={"a": "b"})
        await store.create(replace(run, first=3, seal=b"\0\xff"), counting("run", 5, keyframes=(0, 3))[3:])
        assert list(await store.due(_FLOW, 10)) == [await store.read("run")]

    async def test_great_and_small_priorities_come_in_order(self, store: VersionStore) -> None:
        """As numbers, not as texts."""
        for priority in (9, 10, -9, -10, 0, 2**53, -(2**53)):
            await _waits(store, f"run{priority}", priority=priority)
        expected = (2**53, 10, 9, 0, -9, -10, -(2**53))
        assert await _ids(store) == [f"run{priority}" for priority in expected]

    async def test_any_text_is_a_key(self, store: VersionStore) -> None:
        """A busy key is that one and no other, however similar; a run without one has the empty key."""
        for number, key in enumerate(_ODD):
            await _waits(store, f"run-{number}", key=key)
        for number, key in enumerate(_ODD):
            ids = await _ids(store, replace(_FLOW, busy=frozenset({key})))
            assert ids == [f"run-{other}" for other in range(len(_ODD)) if other != number], key
            assert (await store.read(f"run-{number}")).key == key

    async def test_a_run_is_due_until_it_is_claimed(self, store: VersionStore) -> None:
        """And again when it was given back, or put down until a time that has come."""
        await _waits(store, "run")
        ends: Sequence[tuple[Status, int | None]] = [("running", None), ("waiting", EARLY), ("waiting", LATE)]
        for status, wake in ends:
            assert await _ids(store) == ["run"]
            lease = await store.claim(replace(await store.read("run"), begun=EARLY))
            assert await _ids(store) == []
            await store.release(lease, status, wake=wake)
        assert await _ids(store) == []
        await store.send("run", "go", b"1")
        assert await _ids(store) == ["run"]
        await store.purge("run")
        assert await _ids(store) == []

    async def test_whoever_asks_again_and_again_comes_to_each_run_once(self, store: VersionStore) -> None:
        """Many that take what is due at once share it, and each run is claimed by one of them."""
        for number in range(40):
            await _waits(store, f"run-{number}", priority=number % 3)
        taken = list[str]()

        async def take() -> None:
            while runs := await store.due(_FLOW, 3):
                claims = await asyncio.gather(*map(store.claim, runs), return_exceptions=True)
                taken.extend(
                    run.run_id for run, got in zip(runs, claims, strict=True) if not isinstance(got, Exception)
                )

        await asyncio.gather(*(take() for _ in range(4)))
        assert sorted(taken) == sorted(f"run-{number}" for number in range(40))

    async def test_runs_are_due_while_others_are_stored(self, store: VersionStore) -> None:
        """Whoever asks finds all that were there before."""
        for number in range(10):
            await _waits(store, f"run-{number}")
        asked = await asyncio.gather(
            *(_ids(store) for _ in range(5)),
            *(owned(store, f"new-{number}") for number in range(10)),
        )
        assert all(ids == [f"run-{number}" for number in range(10)] for ids in asked if isinstance(ids, list))

    @pytest.mark.parametrize("flow", ["FLOW", "flo", "flow ", "", "%", "flow', 'other", '["flow"]'])
    async def test_a_run_of_another_flow_is_not_due(self, store: VersionStore, flow: str) -> None:
        """However similar its name is."""
        await _waits(store, "run")
        assert await _ids(store, Due(frozenset({flow}))) == []
