"""Processes that die at a chosen moment, and whether a flow lives through it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from flowneer_async.flow import FlowBuilder
from flowneer_async.runner import Result
from flowneer_async.store import Lease, VersionStore
from flowneer_async.versions import Run, Signal, Status, Version

S = TypeVar("S")


class Crash(BaseException):
    """The process dies here: no step and no store can catch it."""


class CrashingStore:
    """Another store, used by a process that dies at append number `at` (from 1), where a create with versions is one.

    It dies before anything is stored, or, with `stored=True`, just after. From then on every method raises Crash. The
    leases of the dead process are given back at once, as the leases of one on the same host are.
    """

    def __init__(self, store: VersionStore, at: int, *, stored: bool = False) -> None:
        self._store, self._left, self._stored = store, at, stored
        self._leases: dict[str, Lease] = {}
        self.crashed = False
        """Has it come to that?"""

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        store, dies = self._alive, bool(versions) and self._is_last()
        lease = None if dies and not self._stored else await store.create(run, versions)
        if lease is not None:
            self._leases[run.run_id] = lease
        if dies:
            await self._die()
        return lease

    async def claim(self, run: Run) -> Lease:
        lease = await self._alive.claim(run)
        self._leases[run.run_id] = lease
        return lease

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        store, dies = self._alive, self._is_last()
        if not dies or self._stored:
            await store.append(lease, versions)
        if dies:
            await self._die()

    async def release(self, lease: Lease, status: Status, error: str | None = None) -> None:
        await self._alive.release(lease, status, error)

    async def read(self, run_id: str) -> Run:
        return await self._alive.read(run_id)

    async def chain(self, version: str) -> Sequence[Version]:
        return await self._alive.chain(version)

    async def versions(self, run_id: str) -> Sequence[Version]:
        return await self._alive.versions(run_id)

    async def send(self, run_id: str, name: str, payload: bytes) -> Signal:
        return await self._alive.send(run_id, name, payload)

    async def signals(self, run_id: str) -> Sequence[Signal]:
        return await self._alive.signals(run_id)

    @property
    def _alive(self) -> VersionStore:
        if self.crashed:
            raise Crash
        return self._store

    def _is_last(self) -> bool:
        """Count one more append: does the process die at it?"""
        self._left -= 1
        return not self._left

    async def _die(self) -> None:
        self.crashed = True
        for lease in self._leases.values():
            await self._store.release(lease, "running")
        raise Crash


async def crash_everywhere(flow: FlowBuilder[S], state: Callable[[], S], store: VersionStore, **options: Any) -> int:
    """Let a run of `flow` crash before and after each version that it stores, go on, and end as one that never crashed.

        crashes = await crash_everywhere(report, lambda: {"url": "https://example.org"}, MemoryStore())

    `state` makes the initial state, once for each run; `options` are those of `with_versioned_checkpoint`. Gives the
    number of crashes; raises AssertionError where a run ended otherwise.
    """
    expected = await flow.with_versioned_checkpoint(store, **options).run(state(), run_id="no-crash")
    crashes = 0
    for stored in (False, True):
        at = 1
        while await _crashes(flow, state, CrashingStore(store, at, stored=stored), f"crash-{at}-{stored}", options):
            result = await flow.with_versioned_checkpoint(store, **options).run(state(), run_id=f"crash-{at}-{stored}")
            _compare(result, expected, f"{'after' if stored else 'before'} version {at - 1} was stored")
            at, crashes = at + 1, crashes + 1
    return crashes


async def _crashes(
    flow: FlowBuilder[S], state: Callable[[], S], store: CrashingStore, run_id: str, options: dict[str, Any]
) -> bool:
    with suppress(Crash):
        await flow.with_versioned_checkpoint(store, **options).run(state(), run_id=run_id)
    return store.crashed


def _compare(result: Result[S], expected: Result[S], moment: str) -> None:
    if result.state != expected.state:
        # No values: a state may hold a secret, and a test's output is read by many.
        raise AssertionError(f"after a crash just {moment}, run {result.run_id!r} ended with another state")
