"""The contract of every method under cancellation."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias, cast

import anyio
import pytest

from flowneer_async.errors import UnknownRun
from flowneer_async.flow import FlowBuilder
from flowneer_async.store import Due, Lease, RunFilter, VersionStore, resolve
from flowneer_async.testing.chains import counting, new_run, owned

_TURNS = (0, 1, 2, 3, 4, 5, 6, 8, 12, 20, 50, 200)
"""Turns of the event loop after which to cancel: at every await of a method, and while another thread works for it."""

_Work: TypeAlias = Coroutine[Any, Any, object]
Cancel: TypeAlias = Callable[[_Work, int], Awaitable[object]]
"""Cancels work after so many turns, and gives what it returned if it was done by then."""


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def by_task(work: _Work, turns: int) -> object:
    """Cancel the task that does `work`."""
    task = asyncio.ensure_future(work)
    await _turns(turns)
    task.cancel()
    await asyncio.wait({task})
    return None if task.cancelled() else task.result()


async def by_scope(work: _Work, turns: int) -> object:
    """Cancel the scope that `work` is done in."""
    result: object = None

    async def wait() -> None:
        nonlocal result
        result = await work

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await _turns(turns)
        group.cancel_scope.cancel()
    work.close()  # it may never have begun
    return result


class CancellingContract:
    """Whenever a method is cancelled: it is done as a whole or not at all, and the store works on."""

    @pytest.fixture(params=[by_task, by_scope])
    def cancel(self, request: pytest.FixtureRequest) -> Cancel:
        """Both ways to cancel."""
        return cast(Cancel, request.param)

    async def test_create(self, store: VersionStore, cancel: Cancel) -> None:
        """A run that was stored for nobody is not owned by anybody."""
        for turns in _TURNS:
            run_id = f"run-{turns}"
            lease = await cancel(store.create(new_run(run_id)), turns) or await store.create(new_run(run_id))
            if lease is None:
                await store.claim(await store.read(run_id))

    async def test_create_of_a_run_that_waits(self, store: VersionStore, cancel: Cancel) -> None:
        """It is stored with its first versions, or not at all, and is nobody's."""
        for turns in _TURNS:
            run, versions = replace(new_run(f"run-{turns}"), status="waiting"), counting(f"run-{turns}", 3)
            await cancel(store.create(run, versions), turns)
            await store.create(run, versions)
            lease = await store.claim(await store.read(run.run_id))
            assert list(await store.versions(run.run_id)) == versions
            await store.release(lease, "completed")

    async def test_create_with_versions(self, store: VersionStore, cancel: Cancel) -> None:
        """A run that was stored has its first versions, all of them, and whoever takes it goes on after them."""
        for turns in _TURNS:
            run, versions = new_run(f"run-{turns}"), counting(f"run-{turns}", 4)
            lease = await cancel(store.create(run, versions[:3]), turns) or await store.create(run, versions[:3])
            if lease is None:
                lease = await store.claim(await store.read(run.run_id))
            assert list(await store.versions(run.run_id)) == versions[:3]
            await store.append(cast(Lease, lease), versions[3:])

    async def test_claim(self, store: VersionStore, cancel: Cancel) -> None:
        """A lease that was taken for nobody does not lock others out."""
        for turns in _TURNS:
            run = await owned(store, f"run-{turns}")
            await store.release(run.lease, "failed")
            lease = await cancel(store.claim(await store.read(f"run-{turns}")), turns)
            if lease is None:
                lease = await store.claim(await store.read(f"run-{turns}"))
            await store.append(cast(Lease, lease), run.versions[1:3])

    async def test_append(self, store: VersionStore, cancel: Cancel) -> None:
        """All versions of an append are there, or none, and the same lease goes on."""
        for turns in _TURNS:
            run = await owned(store, f"run-{turns}")
            await cancel(store.append(run.lease, run.versions[1:4]), turns)
            stored = len(await store.versions(f"run-{turns}"))
            assert stored in (1, 4)
            await run.append(stored, 6)
            assert list(await store.versions(f"run-{turns}")) == run.versions

    async def test_release(self, store: VersionStore, cancel: Cancel) -> None:
        """The run is free with its new status, or as it was; a second release ends the matter."""
        for turns in _TURNS:
            run = await owned(store, f"run-{turns}")
            await cancel(store.release(run.lease, "failed", "why"), turns)
            read = await store.read(f"run-{turns}")
            assert (read.status, read.error, read.owner is None) in (("failed", "why", True), ("running", None, False))
            await store.release(run.lease, "failed", "why")
            assert (await store.read(f"run-{turns}")).status == "failed"

    async def test_send(self, store: VersionStore, cancel: Cancel) -> None:
        """A signal is kept as it was sent, or not at all, and the next one has the next number."""
        await store.create(new_run())
        for turns in _TURNS:
            before = list(await store.signals("run"))
            await cancel(store.send("run", "go", b"%d" % turns), turns)
            added = list(await store.signals("run"))[len(before) :]
            assert [(signal.name, signal.payload) for signal in added] in ([], [("go", b"%d" % turns)])
            assert (await store.send("run", "next", b"1")).number == len(before) + len(added) + 1

    async def test_ask_cancel(self, store: VersionStore, cancel: Cancel) -> None:
        """The run is to be cancelled, and woken, or it is as it was; who owns it goes on."""
        for turns in _TURNS:
            run = await owned(store, f"run-{turns}")
            await cancel(store.ask_cancel(f"run-{turns}"), turns)
            read = await store.read(f"run-{turns}")
            assert read.cancelling == (read.wake is not None)
            await run.append(1, 3)
            assert await store.ask_cancel(f"run-{turns}") is True

    async def test_drop(self, store: VersionStore, cancel: Cancel) -> None:
        """All that was to be dropped is gone, or nothing, and the run goes on."""
        for turns in _TURNS:
            run = await owned(store, f"run-{turns}", stored=0)
            run.versions = counting(f"run-{turns}", 8, keyframes=(0, 4))
            await run.append(0, 6)
            await cancel(store.drop(f"run-{turns}", 1), turns)
            first = (await store.read(f"run-{turns}")).first
            assert first in (0, 4)
            assert list(await store.versions(f"run-{turns}")) == run.versions[first:6]
            await run.append(6, 8)
            assert await store.drop(f"run-{turns}", 1) == 4 - first
            assert list(await store.chain(f"run-{turns}@7")) == run.versions[4:]

    async def test_purge(self, store: VersionStore, cancel: Cancel) -> None:
        """The run is gone with all it had, or as it was."""
        for turns in _TURNS:
            run = await owned(store, f"run-{turns}", stored=3)
            signal = await store.send(f"run-{turns}", "go", b"1")
            await store.release(run.lease, "completed")
            await cancel(store.purge(f"run-{turns}"), turns)
            with suppress(UnknownRun):
                assert (await store.read(f"run-{turns}")).status == "completed"
                assert list(await store.versions(f"run-{turns}")) == run.versions[:3]
                assert list(await store.signals(f"run-{turns}")) == [signal]
                await store.purge(f"run-{turns}")
            assert await store.create(new_run(f"run-{turns}")) is not None
            assert not await store.versions(f"run-{turns}")
            assert not await store.signals(f"run-{turns}")

    async def test_reading(self, store: VersionStore, cancel: Cancel) -> None:
        """A read that was given up does not disturb the next one."""
        run = await owned(store, stored=6)
        for turns in _TURNS:
            for reading in (store.read("run"), store.chain("run@5"), store.versions("run"), store.signals("run")):
                await cancel(reading, turns)
            for asking in (store.find(RunFilter(), 10), store.count(RunFilter()), store.due(Due(frozenset()), 10)):
                await cancel(asking, turns)
            assert list(await store.chain("run@5")) == run.versions

    async def test_a_run(self, store: VersionStore, cancel: Cancel) -> None:
        """A cancelled run is free at once, its chain is whole, and it goes on to the same end."""

        async def step(state: dict[str, Any]) -> None:
            await asyncio.sleep(0)
            state["n"] += 1

        flow = (
            FlowBuilder[dict[str, Any]]("flow")
            .start_with(step)
            .then(step, name="again")
            .with_versioned_checkpoint(store)
        )
        for turns in (*_TURNS, 400, 800):
            run_id = f"run-{turns}"
            await cancel(flow.run({"n": 0}, run_id=run_id), turns)
            with suppress(UnknownRun):
                assert (await store.read(run_id)).owner is None
            result = await flow.run({"n": 0}, run_id=run_id)
            assert (result.state, result.version) == ({"n": 2}, f"{run_id}@2")
            assert (await resolve(store, f"{run_id}@1")).state == {"n": 1}
