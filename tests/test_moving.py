"""Runs are moved as they are, whole or not at all: from store to store, and through a file."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flowneer_async import (
    BadExport,
    BrokenChain,
    CorruptVersion,
    FlowBuilder,
    FlowError,
    HalfCopied,
    Lease,
    Run,
    RunBusy,
    RunExists,
    Signal,
    Status,
    StoreFailed,
    UnknownRun,
    UnknownVersion,
    Version,
    VersionStore,
    copy_run,
    export_run,
    import_run,
    verify,
)
from flowneer_async.exporting import Sums
from flowneer_async.testing.chains import counting, new_run, owned
from flowneer_stores import EncryptedStore, MemoryStore, SignedStore, SqliteStore
from flowneer_stores.wrapper import Wrapper
from tests.support import copy_child
from tests.support.states import Drawn
from tests.support.stores import KINDS, opened

State = dict[str, Any]


async def keep(store: VersionStore, versions: Sequence[Version], **fields: Any) -> None:
    """Store a run of these versions, with these fields."""
    status, error = fields.pop("status", "completed"), fields.pop("error", None)
    run = replace(new_run(versions[0].run_id if versions else "run"), **fields)
    lease = await store.create(run, versions[:1])
    assert lease is not None
    await store.append(lease, versions[1:])
    await store.release(lease, status, error, run.seal)


async def exported(store: VersionStore, run_id: str = "run") -> list[bytes]:
    return [line async for line in export_run(store, run_id)]


async def held(store: VersionStore, run_id: str = "run") -> tuple[Run, list[Version], list[Signal]]:
    """All that a store holds of a run, but for who owns it and when it was stored."""
    run = replace(await store.read(run_id), owner=None, epoch=0, updated=0)
    return run, list(await store.versions(run_id)), list(await store.signals(run_id))


async def no_run(store: VersionStore, run_id: str = "run") -> bool:
    try:
        await store.read(run_id)
    except UnknownRun:
        return True
    return False


# What is moved is the same ------------------------------------------------------------------------------------------

_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
_numbers = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=50, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.integers(0, 20),
    st.integers(1, 20),
    st.sampled_from(["running", "waiting", "completed", "failed", "cancelled"]),
    st.none() | st.text(max_size=5),
    st.dictionaries(_texts, _texts, max_size=3),
    st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=5)), max_size=4),
    st.binary(max_size=3),
    st.fixed_dictionaries(
        {"wake": st.none() | _numbers, "priority": _numbers, "key": _texts, "begun": st.none() | _numbers}
    ),
)
async def test_what_was_exported_is_imported_as_it_was(
    random: Random,
    length: int,
    kept: int,
    status: Status,
    error: str | None,
    tags: dict[str, str],
    signals: list[tuple[str, bytes]],
    seal: bytes,
    engine: dict[str, Any],
) -> None:
    """Every version, signal and field of any run, also of one that was pruned; and it exports to the same bytes."""
    one, other, third = MemoryStore(), MemoryStore(), MemoryStore()
    versions = Drawn(random, length).versions if length else []
    await keep(one, versions, status=status, error=error, tags=tags, seal=seal, **engine)
    await one.drop("run", kept)
    for name, payload in signals:
        await one.send("run", name, payload)
    lines = await exported(one)
    assert await import_run(other, lines) == "run"
    assert await held(other) == await held(one)
    assert await exported(other) == lines
    await copy_run("run", one, third)
    assert await held(third) == await held(one)
    assert (await third.read("run")).owner is None


def add(state: State) -> None:
    state["n"] = state.get("n", 0) + 1


def fail(state: State) -> None:
    if not state.get("calm"):
        raise ValueError


WAITING = FlowBuilder[State]("waiting").then(add).wait_for("go", into="got").then(add, name="last")
FAILING = FlowBuilder[State]("failing").then(add).then(fail).then(add, name="last")


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("of", KINDS)
async def test_a_run_goes_on_in_another_store(of: str, to: str, tmp_path: Path) -> None:
    """One that waits, one that has failed, and a fork: each as it would have in the store that it is from."""
    folders = [tmp_path / "of", tmp_path / "to"]
    for folder in folders:
        folder.mkdir()
    async with opened(of, folders[0]) as one, opened(to, folders[1]) as other:
        await WAITING.with_versioned_checkpoint(one).run({}, run_id="waits", tags={"team": "a"})
        with pytest.raises(FlowError):
            await FAILING.with_versioned_checkpoint(one).run({}, run_id="fails")
        with pytest.raises(FlowError):
            await FAILING.resume_from("fails@0", one).run(run_id="fork")
        await one.send("waits", "go", b'"first"', sent=7)
        for run_id in ("waits", "fails", "fork"):
            await copy_run(run_id, one, other)
            assert await held(other, run_id) == await held(one, run_id)
        for store in (one, other):
            result = await WAITING.with_versioned_checkpoint(store).run(run_id="waits")
            assert result.state == {"n": 2, "got": "first"}
        for run_id in ("fails", "fork"):
            with pytest.raises(FlowError):
                await FAILING.with_versioned_checkpoint(other).run(run_id=run_id)
            assert (await other.read(run_id)).head == (await one.read(run_id)).head
        assert (await verify(other)).damages == ()


@pytest.mark.parametrize("length", [1, 256, 257, 1000])
async def test_a_long_run_comes_in_parts(length: int) -> None:
    """It is stored in several transactions, and all of it is there in the end."""
    one, other = MemoryStore(), MemoryStore()
    await keep(one, counting("run", length, keyframes=range(0, length, 50)))
    await copy_run("run", one, other)
    assert await held(other) == await held(one)


async def test_a_run_moves_between_keys() -> None:
    """From one encrypted store to another, and into a signed one: what is read of them is the same."""
    inner = [MemoryStore() for _ in range(3)]
    one, other = (EncryptedStore(store, {"k": bytes([number]) * 32}) for number, store in enumerate(inner[:2]))
    signed = SignedStore(inner[2], bytes(32))
    await keep(one, Drawn(Random(1), 10).versions)
    await one.send("run", "go", b"1")
    for target in (other, signed):
        await copy_run("run", one, target)
        assert await held(target) == await held(one)
    raw = MemoryStore()
    await copy_run("run", inner[2], raw)
    assert await held(SignedStore(raw, bytes(32))) == await held(one)


async def test_an_owned_run_is_copied_as_far_as_it_had_come() -> None:
    """Its owner goes on undisturbed; nobody owns the copy, which can be taken."""
    one, other = MemoryStore(), MemoryStore()
    run = await owned(one, stored=3)
    await copy_run("run", one, other)
    await run.append(3, 5)
    copy = await other.read("run")
    assert (copy.head, copy.owner, copy.status) == (2, None, "running")
    await other.append(await other.claim(copy), run.versions[3:])


# What cannot be moved -----------------------------------------------------------------------------------------------


async def test_a_taken_id_is_refused() -> None:
    """What is there stays as it was, whether it is the same or not."""
    one, other = MemoryStore(), MemoryStore()
    await keep(one, counting("run", 600, keyframes=range(0, 600, 50)))
    lines = await exported(one)
    await keep(other, counting("run", 2))
    before = await held(other)
    for moving in (copy_run("run", one, other), import_run(other, lines)):
        with pytest.raises(RunExists) as caught:
            await moving
        assert caught.value.run_id == "run"
        assert await held(other) == before


async def test_an_unknown_run_is_not_copied() -> None:
    """It is named, and nothing is begun."""
    other = MemoryStore()
    with pytest.raises(UnknownRun):
        await copy_run("run", MemoryStore(), other)
    with pytest.raises(UnknownRun):
        await exported(MemoryStore())
    assert await no_run(other)


async def test_damage_is_not_moved() -> None:
    """It is named, and nothing is left of the copy."""
    versions = counting("run", 600, keyframes=range(0, 600, 50))
    damaged, holed, other = MemoryStore(), MemoryStore(), MemoryStore()
    for store in (damaged, holed):
        await keep(store, versions)
    rows = damaged._kept["run"].versions
    rows[500] = rows[500]._replace(body=b"x")
    del holed._kept["run"].versions[500]
    for store, error in ((damaged, CorruptVersion), (holed, BrokenChain)):
        with pytest.raises(error):
            await copy_run("run", store, other)
        with pytest.raises(error):
            await exported(store)
        assert await no_run(other)


async def test_a_run_that_is_pruned_meanwhile_is_not_half_moved() -> None:
    """The version that is gone is named; copied again, it is whole."""
    one, other = Pruned(), MemoryStore()
    await keep(one, counting("run", 2000, keyframes=range(0, 2000, 50)))
    for moving in (copy_run("run", one, other), exported(one)):
        one.asked = 0
        with pytest.raises(UnknownVersion):
            await moving
        assert await no_run(other)
    await copy_run("run", one, other)
    assert await held(other) == await held(one)


class Pruned(MemoryStore):
    """Is pruned before its second page is read."""

    asked = 0
    keep = 2000

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        self.asked += 1
        if self.asked == 2:
            self.keep -= 600
            await self.drop(run_id, self.keep)
        return await super().versions(run_id, first, last)


# What is cut off ----------------------------------------------------------------------------------------------------


class FailsAt(Wrapper):
    """Fails at one of the calls that write, before it is done."""

    at = calls = 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise StoreFailed("here", "writing", "of a test")

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        self._count()
        return await super().create(run, versions)

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        self._count()
        await super().append(lease, versions)

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        self._count()
        return await super().send(run_id, name, payload, sent)


async def source() -> MemoryStore:
    store = MemoryStore()
    await keep(store, counting("run", 700, keyframes=range(0, 700, 50)))
    await store.send("run", "go", b"1")
    await store.send("run", "go", b"2")
    return store


async def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Wherever the store refuses it; and the next one is whole."""
    one = await source()
    for at in range(1, 6):
        async with SqliteStore(tmp_path / f"{at}.db") as inner:
            other = FailsAt(inner)
            other.at = at
            with pytest.raises(StoreFailed):
                await copy_run("run", one, other)
            assert await no_run(inner)
            await copy_run("run", one, other)
            assert other.calls == at + 5
            assert await held(inner) == await held(one)


@pytest.mark.parametrize(("kind", "step"), [("memory", 1), ("sqlite", 7)])
async def test_a_copy_that_is_cancelled_leaves_all_or_nothing(kind: str, step: int, tmp_path: Path) -> None:
    """After each turn of the loop at which it can be cancelled."""
    one, ends, turns = await source(), set[bool](), 0
    async with opened(kind, tmp_path) as other:
        while True:
            task = asyncio.create_task(copy_run("run", one, other))
            for _ in range(turns):
                await asyncio.sleep(0)
                if turns > 400:
                    await asyncio.wait({task}, timeout=0.001)
            task.cancel()
            (done,) = await asyncio.gather(task, return_exceptions=True)
            gone = await no_run(other)
            ends.add(gone)
            if not gone:
                assert await held(other) == await held(one)
                await other.purge("run")
            if done is None:
                break
            turns += step
    assert ends == {True, False}


@pytest.mark.parametrize("at", ["append", "send"])
async def test_a_copy_whose_process_was_killed_is_no_run(tmp_path: Path, at: str) -> None:
    """It is not run, copied or exported, whoever asks; the next copy takes its place."""
    paths = [tmp_path / "one.db", tmp_path / "other.db"]
    async with SqliteStore(paths[0]) as one:
        await keep(one, counting("run", 700, keyframes=range(0, 700, 50)), flow="failing", state_type="dict")
        await one.send("run", "go", b"1")
    child = subprocess.Popen(
        [sys.executable, copy_child.__file__, *map(str, paths), at], stdout=subprocess.PIPE, env=_env()
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"here\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    async with SqliteStore(paths[0]) as one, SqliteStore(paths[1]) as other:
        half = await other.read("run")
        assert half.head > 0
        with pytest.raises(HalfCopied):
            await FAILING.with_versioned_checkpoint(other).run(run_id="run")
        with pytest.raises(HalfCopied):
            await FAILING.resume_from("run@0", other).run(run_id="fork")
        with pytest.raises(HalfCopied):
            await exported(other)
        with pytest.raises(HalfCopied):
            await copy_run("run", other, MemoryStore())
        assert (await other.read("run")).head == half.head
        await copy_run("run", one, other)
        assert await held(other) == await held(one)


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


async def test_of_two_that_copy_a_run_one_does() -> None:
    """The other is told that it goes on, or is there."""
    one, other = await source(), MemoryStore()
    done = await asyncio.gather(*(copy_run("run", one, other) for _ in range(3)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in done) in (["NoneType", "RunBusy", "RunBusy"],)
    assert await held(other) == await held(one)
    with pytest.raises(RunExists):
        await copy_run("run", one, other)
    assert RunBusy in {type(each) for each in done}


# Files that are not what was exported -------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0), st.integers(1, 255))
async def test_a_changed_byte_is_found_in_its_line(at: int, flip: int) -> None:
    """Whichever it is; and nothing of the run is stored."""
    lines = await exported(await short())
    whole = bytearray(b"".join(lines))
    at %= len(whole)
    assume(whole[at] != ord("\n"))
    whole[at] ^= flip
    assume(whole[at] != ord("\n"))
    number = bytes(whole[:at]).count(b"\n") + 1
    store = MemoryStore()
    with pytest.raises(BadExport, match=f"line {number} ") as caught:
        await import_run(store, bytes(whole).splitlines(keepends=True))
    assert caught.value.line == number
    assert await no_run(store)


@settings(max_examples=100, deadline=None)
@given(st.data())
async def test_lines_that_are_lost_moved_or_added_are_found(data: st.DataObject) -> None:
    """The first line that is not the one that was there is named."""
    lines = await exported(await short())
    numbers = st.integers(0, len(lines) - 1)
    at, what, other = (
        data.draw(numbers),
        data.draw(st.sampled_from(["lost", "cut", "twice", "moved"])),
        data.draw(numbers),
    )
    if what == "lost":
        changed = lines[:at] + lines[at + 1 :]
    elif what == "cut":
        changed = [*lines[:at], lines[at][: data.draw(st.integers(1, len(lines[at]) - 2))]]
    elif what == "twice":
        changed = [*lines[: at + 1], lines[other], *lines[at + 1 :]]
    else:
        changed = list(lines)
        changed[at], changed[other] = changed[other], changed[at]
    assume(changed != lines)
    first = next(
        (n for n, (a, b) in enumerate(zip(lines, changed, strict=False)) if a != b), min(len(lines), len(changed))
    )
    store = MemoryStore()
    with pytest.raises(BadExport) as caught:
        await import_run(store, changed)
    assert caught.value.line == first + 1
    assert await no_run(store)


async def short() -> MemoryStore:
    store = MemoryStore()
    await keep(store, Drawn(Random(3), 6).versions, tags={"team": "a"})
    await store.send("run", "go", b"\xff")
    await store.send("run", "go", b"1")
    return store


def summed(lines: Sequence[dict[str, Any]]) -> list[bytes]:
    """Lines with the sums that belong to them."""
    sums, made = Sums(), list[bytes]()
    for line in lines:
        text = orjson.dumps({key: value for key, value in line.items() if key != "sum"})[:-1]
        made.append(text + b',"sum":"' + sums.of(text) + b'"}\n')
    return made


def put(at: int, **fields: object) -> Callable[[list[Any]], object]:
    return lambda lines: lines[at].update(fields)


@pytest.mark.parametrize(
    ("line", "change", "reason"),
    [
        (1, put(0, number=2), "it is of format 2, this release knows 1"),
        (1, put(0, format="x"), "it is of format"),
        (1, lambda lines: lines[0]["run"].update(run_id="a b"), "it is not what an export"),
        (1, lambda lines: lines[0]["run"].update(status="x"), "it is not what an export"),
        (1, lambda lines: lines[0]["run"].update(tags=[1]), "it is not what an export"),
        (1, lambda lines: lines[0]["run"].update(steps=[1]), "it is not what an export"),
        (1, lambda lines: lines[0]["run"].update(wake="1"), "it is not what an export"),
        (1, lambda lines: lines[0]["run"].update(priority=None), "it is not what an export"),
        (1, lambda lines: lines[0]["run"].update(key=1), "it is not what an export"),
        (1, lambda lines: lines[0]["run"].pop("begun"), "it is not what an export"),
        (1, lambda lines: lines.pop(0), "it is not what an export"),
        (3, put(2, seq="1"), "it is not what an export"),
        (3, put(2, seq=True), "it is not what an export"),
        (3, put(2, body=7), "it is not what an export"),
        (3, put(2, digest="xy"), "it is not what an export"),
        (3, put(2, timestamp=7), "its digest is not that of its content"),
        (3, put(2, fork_of="r@1"), "its digest is not that of its content"),
        (3, lambda lines: lines.pop(2), "which is missing"),
        (2, lambda lines: lines.pop(1), "which is missing"),
        (10, lambda lines: lines[0]["run"].update(head=9), "it does not follow"),
        (10, put(9, versions=5), "it does not follow"),
        (10, put(9, signals=1), "it does not follow"),
        (8, lambda lines: lines.pop(7), "it does not follow"),
        (11, lambda lines: lines.append(lines[9]), "it does not follow"),
        (3, lambda lines: lines.insert(2, lines[0]), "it is not what an export"),
        (10, lambda lines: lines.pop(), "it is missing, and with it the end"),
        (1, lambda lines: lines.clear(), "it does not say which run"),
    ],
)
async def test_lines_that_make_no_run_are_refused(
    line: int, change: Callable[[list[Any]], object], reason: str
) -> None:
    """Also where their sums are right: what does not fit is named, and nothing is stored."""
    lines = [orjson.loads(line) for line in await exported(await short())]
    assert len(lines) == 10
    change(lines)
    store = MemoryStore()
    with pytest.raises(BadExport) as caught:
        await import_run(store, summed(lines))
    assert (caught.value.line, reason in caught.value.reason) == (line, True), caught.value
    assert await no_run(store)


@pytest.mark.parametrize("status", ["waiting", "completed"])
async def test_what_a_release_without_an_engine_has_exported_is_imported(status: Status) -> None:
    """Its runs began when they were created; when one that waits is to be woken is not known: it is looked at once."""
    one, other = MemoryStore(), MemoryStore()
    await keep(one, Drawn(Random(3), 6).versions, status=status)
    lines = [orjson.loads(line) for line in await exported(one)]
    for field in ("wake", "priority", "key", "begun"):
        del lines[0]["run"][field]
    await import_run(other, summed(lines))
    run = await one.read("run")
    wake = run.created if status == "waiting" else None
    assert (await held(other))[0] == replace(run, epoch=0, updated=0, begun=run.created, wake=wake)


async def test_lines_may_come_from_a_file_or_from_afar(tmp_path: Path) -> None:
    """An open file is lines; so is what comes a line at a time, and their ends may be gone."""
    one = await short()
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(await exported(one)))
    stores = [MemoryStore() for _ in range(3)]
    with path.open("rb") as file:
        await import_run(stores[0], file)
    await import_run(stores[1], export_run(one, "run"))
    await import_run(stores[2], path.read_bytes().splitlines())
    for store in stores:
        assert await held(store) == await held(one)


async def test_an_import_that_is_cut_off_leaves_nothing() -> None:
    """Where the lines end in an error of their own, it is raised."""
    lines, store = await exported(await source()), MemoryStore()

    async def broken() -> AsyncIterator[bytes]:
        for line in lines[:500]:
            yield line
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await import_run(store, broken())
    assert await no_run(store)
