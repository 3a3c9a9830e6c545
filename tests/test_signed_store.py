import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from sqlite3 import connect
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async import (
    BadOption,
    BrokenChain,
    Context,
    CorruptVersion,
    FlowBuilder,
    FlowError,
    Forged,
    Lease,
    Run,
    RunBusy,
    RunFilter,
    Status,
    StoreFailed,
    UnknownRun,
    UnknownVersion,
    Version,
    VersionStore,
)
from flowneer_async.moving import copy_run
from flowneer_async.store import resolve
from flowneer_async.testing import CrashingStore, StoreContract
from flowneer_async.testing.chains import counting, new_run, owned
from flowneer_async.testing.crashes import Crash, How
from flowneer_async.verifying import verify
from flowneer_async.versions import checked
from flowneer_stores import EncryptedStore, MemoryStore, SignedStore, SqliteStore
from tests.support.tampering import (
    RUNS,
    change_run,
    fill,
    flip,
    flipped,
    flips,
    kept_run,
    kept_signals,
    kept_versions,
    rehashed,
    relinked,
)

KEY = bytes(range(32))
Stored = dict[str, list[Version]]
Relink = Callable[[Sequence[Version]], list[Version]]


class TestSignedMemoryStore(StoreContract):
    def make_store(self, tmp_path: Path) -> SignedStore:
        return SignedStore(MemoryStore(), KEY)


class TestSignedSqliteStore(StoreContract):
    def make_store(self, tmp_path: Path) -> SignedStore:
        return SignedStore(SqliteStore(tmp_path / "runs.db"), KEY, on_head=lambda version, signature: None)


async def filled() -> tuple[MemoryStore, SignedStore, Stored]:
    """Two runs through a signed store, and what was stored."""
    inner = MemoryStore()
    store = SignedStore(inner, KEY)
    return inner, store, await fill(store)


async def read_wholly(store: VersionStore, run_id: str) -> None:
    """Read and check all that there is of a run."""
    await store.signals(run_id)
    versions = await store.versions(run_id)
    await store.read(run_id)
    for version in versions:
        checked(version.id, versions[version.base : version.seq + 1])


@given(st.data())
def test_what_is_read_is_what_was_written(data: st.DataObject) -> None:
    """Every field of a version and of a run, and every payload."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    number = st.integers(0, 2**53)
    rest = data.draw(st.tuples(st.none() | text, number, text, number, *[st.binary(max_size=40)] * 3))
    tags = data.draw(st.dictionaries(text, text, max_size=3))
    names = data.draw(st.lists(text, max_size=3))
    run = Run("run", names[0] if names else "", "dict", tuple(names), fork_of=rest[0], tags=tags, seal=rest[4])
    payloads = data.draw(st.lists(st.binary(max_size=50), max_size=3))

    async def main() -> None:
        plain, signed = MemoryStore(now=lambda: 7), SignedStore(MemoryStore(now=lambda: 7), KEY)
        for store in (plain, signed):
            await store.create(run, [Version("run", 0, 0, *rest)])
            for payload in payloads:
                await store.send("run", "go", payload, 1)
        assert await signed.read("run") == await plain.read("run")
        assert await signed.find(RunFilter(), 10) == await plain.find(RunFilter(), 10)
        assert list(await signed.versions("run")) == await plain.versions("run") == await signed.chain("run@0")
        assert list(await signed.signals("run")) == list(await plain.signals("run"))

    asyncio.run(main())


@pytest.mark.parametrize("recompute", [list, rehashed], ids=["as they are", "made to fit"])
@given(flip=flips())
def test_no_flipped_bit_goes_unseen(recompute: Relink, flip: tuple[int, str, int]) -> None:
    """Of any field of any row that is stored, even if all unkeyed digests are then computed anew."""
    at, field, bit = flip

    async def main() -> None:
        inner, store, _ = await filled()
        rows = kept_versions(inner, "one")
        before = list(rows)
        rows[at] = flipped(rows[at], field, bit)
        rows[:] = recompute(rows)
        if rows == before:
            assert recompute is rehashed
            return
        with pytest.raises(Forged) as caught:
            await store.versions("one")
        assert (caught.value.kind, caught.value.name) == ("version", rows[at].id) or recompute is rehashed

    asyncio.run(main())


@given(st.lists(st.tuples(st.sampled_from(RUNS), st.integers(0, 7)), min_size=1, max_size=9), st.booleans())
def test_rows_are_good_in_their_place_only(picked: list[tuple[str, int]], relink: bool) -> None:
    """Moved, swapped, doubled, left out, or of another run, and linked anew: no version of the run is another state."""

    async def main() -> None:
        inner, store, stored = await filled()
        rows = [kept_versions(inner, run_id)[at] for run_id, at in picked]
        kept_versions(inner, "one")[:] = relinked(rows, "one") if relink else rows
        for version in stored["one"]:
            with suppress(Forged, CorruptVersion, BrokenChain, UnknownVersion):
                chain = checked(version.id, await store.chain(version.id))
                assert chain[-1] == version
        if rows != kept_versions((await filled())[0], "one"):
            with pytest.raises((Forged, CorruptVersion, BrokenChain)):
                await read_wholly(store, "one")

    asyncio.run(main())


SAID: list[dict[str, Any]] = [
    {"status": "running"},
    {"status": "failed"},
    {"error": "ValueError"},
    {"flow": "other"},
    {"state_type": "Other"},
    {"steps": ("one",)},
    {"steps": ("two", "one")},
    {"tags": {}},
    {"tags": {"user": "ada", "paid": "no"}},
    {"fork_of": "other@1"},
    {"created": 1},
    {"run_id": "two"},
    {"seal": b""},
    {"seal": b"\0" * 41},
]


@pytest.mark.parametrize("said", SAID, ids=str)
async def test_what_is_said_of_a_run_is_signed(said: dict[str, Any]) -> None:
    """Nobody makes a run another one, one in another status, or one with other tags."""
    inner = MemoryStore()
    store = SignedStore(inner, KEY)
    lease = await store.create(replace(new_run("one"), tags={"user": "ada"}), counting("one", 3))
    assert lease is not None
    await store.release(lease, "completed")
    change_run(inner, "one", **said)
    with pytest.raises(Forged) as caught:
        await store.read("one")
    assert (caught.value.kind, caught.value.name) == ("run", said.get("run_id", "one"))
    with pytest.raises(Forged):
        await store.find(RunFilter(), 10)
    with pytest.raises(Forged):
        await store.claim(replace(kept_run(inner, "one"), run_id="one"))


@given(st.integers(0, 41 * 8 - 1))
def test_no_flipped_bit_of_a_seal_goes_unseen(bit: int) -> None:
    """Whichever it is."""

    async def main() -> None:
        inner, store, _ = await filled()
        change_run(inner, "one", seal=flip(kept_run(inner, "one").seal, bit))
        with pytest.raises(Forged):
            await store.read("one")

    asyncio.run(main())


@pytest.mark.parametrize("left", range(8))
async def test_a_tail_that_was_cut_off_is_missed(left: int) -> None:
    """The run was sealed with the head that it had."""
    inner, store, _ = await filled()
    del kept_versions(inner, "one")[left:]
    with pytest.raises(Forged, match=f"its last version was number 7, and is number {left - 1}"):
        await store.read("one")


async def test_a_tail_of_an_earlier_run_of_that_id_is_not_taken_for_this_one() -> None:
    """Its rows have good signatures, and chain among themselves; but the head that was sealed is another one."""
    inner = MemoryStore()
    store = SignedStore(inner, KEY)
    old = [*counting("one", 3), *[version._replace(timestamp=1) for version in counting("one", 6, (0, 3))[3:]]]
    tails = list[list[Version]]()
    for versions in (old, counting("one", 6, (0, 3))):
        lease = await store.create(new_run("one"), rehashed(versions))
        assert lease is not None
        await store.release(lease, "completed")
        tails.append(kept_versions(inner, "one")[3:])
        if versions is old:
            await store.purge("one")
    kept_versions(inner, "one")[3:] = tails[0]
    assert (await resolve(store, "one@5")).state == {"n": 5}, "or this test tampers with something else"
    with pytest.raises(Forged, match="its version number 5 is not the one that it had"):
        await store.read("one")


async def test_an_older_seal_does_not_fit_a_longer_run() -> None:
    """The status that a run had ended with belongs to the head that it had then."""
    inner = MemoryStore()
    store = SignedStore(inner, KEY)
    run = await owned(store, "one", length=6, stored=3)
    await store.release(run.lease, "failed", "ValueError")
    failed = kept_run(inner, "one")
    await store.append(await store.claim(await store.read("one")), run.versions[3:])
    change_run(inner, "one", status="failed", error="ValueError", seal=failed.seal)
    with pytest.raises(Forged, match="its last version was number 2, and is number 5"):
        await store.read("one")


@pytest.mark.parametrize("key", [b"", b"k" * 15, b"k" * 65])
def test_a_bad_key_is_refused_and_not_shown(key: bytes) -> None:
    """It is neither too short to be secret nor longer than what is used of it."""
    with pytest.raises(BadOption, match="from 16 to 64 bytes") as caught:
        SignedStore(MemoryStore(), key)
    assert "kkk" not in str(caught.value)


@pytest.mark.parametrize("signs", [False, True], ids=["not signed", "with another key"])
async def test_what_others_have_stored_is_refused(signs: bool) -> None:
    """A run, a version and a signal."""
    inner = MemoryStore()
    await fill(SignedStore(inner, KEY[::-1]) if signs else inner)
    store = SignedStore(inner, KEY)
    for read, kind in (
        (store.read("one"), "run"),
        (store.versions("one"), "version"),
        (store.chain("one@4"), "version"),
        (store.signals("one"), "signal"),
    ):
        with pytest.raises(Forged) as caught:
            await read
        assert caught.value.kind == kind


@given(st.integers(0, 10**6))
def test_a_signal_is_what_was_sent(bit: int) -> None:
    """Neither changed, nor under another name, nor of another run, nor twice; nor made by somebody."""

    async def main() -> None:
        inner, store, _ = await filled()
        first, second = kept_signals(inner, "one")
        other = replace(kept_signals(inner, "two")[1], run_id="one")
        for forged in (
            [first, replace(first, number=2)],
            [first, other],
            [first, replace(second, name="stop")],
            [first, replace(second, payload=flip(second.payload, bit))],
            [first, replace(second, payload=second.payload[:20])],
            [first, replace(second, payload=b"1")],
        ):
            kept_signals(inner, "one")[:] = forged
            with pytest.raises(Forged, match="signal '2 of one'"):
                await store.signals("one")

    asyncio.run(main())


class Witness:
    """Keeps the last head of each run, and may fail."""

    def __init__(self) -> None:
        self.heads: list[tuple[str, bytes]] = []
        self.failure: Exception | None = None

    def tell(self, version: str, signature: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self.heads.append((version, signature))

    async def tell_later(self, version: str, signature: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        self.tell(version, signature)


@pytest.mark.parametrize("tell", [Witness.tell, Witness.tell_later])
async def test_a_witness_is_told_of_each_head_when_it_is_stored(
    tell: Callable[[Witness, str, bytes], Awaitable[None] | None],
) -> None:
    """One of several that came together is the head; and what it was told can be checked."""
    witness, inner = Witness(), MemoryStore()
    store = SignedStore(inner, KEY, on_head=lambda version, signature: tell(witness, version, signature))
    lease = await store.create(new_run("one"), counting("one", 2))
    assert lease is not None
    await store.append(lease, counting("one", 3)[2:])
    await store.append(lease, counting("one", 6)[3:])
    await store.append(lease, [])
    assert [version for version, _ in witness.heads] == ["one@1", "one@2", "one@5"]
    for version, signature in witness.heads:
        await store.check_head(version, signature)


async def test_a_run_that_was_put_back_as_a_whole_is_known_by_a_witness_only() -> None:
    """All of it was true once: the key says so, and the witness does not."""
    witness, inner = Witness(), MemoryStore()
    store = SignedStore(inner, KEY, on_head=witness.tell)
    run = await owned(store, "one", length=6, stored=3)
    await store.release(run.lease, "waiting")
    earlier, rows = kept_run(inner, "one"), list(kept_versions(inner, "one"))
    lease = await store.claim(await store.read("one"))
    await store.append(lease, run.versions[3:])
    await store.release(lease, "completed")
    await store.check_head(*witness.heads[-1])
    change_run(inner, "one", **{name: getattr(earlier, name) for name in ("status", "error", "seal", "epoch")})
    kept_versions(inner, "one")[:] = rows
    assert (await store.read("one")).status == "waiting"
    with pytest.raises(Forged, match="it had version 'one@5', and its last one is number 2"):
        await store.check_head(*witness.heads[-1])


async def test_a_head_that_another_version_has_replaced_is_no_head() -> None:
    """Nor is one that was pruned, of which no one can tell; nor one of a run that is not there."""
    witness = Witness()
    store = SignedStore(MemoryStore(), KEY, on_head=witness.tell)
    stored = await fill(store)
    await store.check_head(*witness.heads[2])
    with pytest.raises(Forged, match="its version number 7 is not the one that it had"):
        await store.check_head("one@7", witness.heads[-1][1])
    assert await store.drop("one", 1) == 6
    with pytest.raises(UnknownVersion):
        await store.check_head(*witness.heads[1])
    with pytest.raises(UnknownRun):
        await store.check_head("three@0", witness.heads[0][1])
    assert len(stored["one"]) == 8


async def test_no_step_goes_on_without_its_witness() -> None:
    """What the witness raises fails the run, which goes on later with all that was stored."""
    witness = Witness()
    store = SignedStore(MemoryStore(), KEY, on_head=witness.tell)

    def step(state: dict[str, object]) -> None:
        witness.failure = StoreFailed("the witness", "telling", "it is gone")

    flow = FlowBuilder("flow").start_with(step).with_versioned_checkpoint(store)
    with pytest.raises(StoreFailed, match="it is gone"):
        await flow.run({}, run_id="r")
    assert (await store.read("r")).head == 1
    witness.failure = None
    assert (await flow.run({}, run_id="r")).status == "completed"


async def test_a_run_whose_first_head_could_not_be_told_is_nobodys() -> None:
    """It is stored, and whoever comes next may take it."""
    witness = Witness()
    store = SignedStore(MemoryStore(), KEY, on_head=witness.tell)
    witness.failure = StoreFailed("the witness", "telling", "it is gone")
    with pytest.raises(StoreFailed):
        await store.create(new_run("one"), counting("one", 2))
    run = await store.read("one")
    assert (run.head, run.owner) == (1, None)
    await store.claim(run)


async def test_a_witness_hears_the_end_of_what_it_is_told() -> None:
    """A cancellation waits until it has heard of what was stored."""
    heard = list[str]()
    telling = asyncio.Event()

    async def on_head(version: str, signature: bytes) -> None:
        telling.set()
        for _ in range(5):
            await asyncio.sleep(0)
        heard.append(version)

    store = SignedStore(MemoryStore(), KEY, on_head=on_head)
    run = await owned(store, "one", length=3)
    heard.clear()
    telling.clear()
    task = asyncio.create_task(run.append(1, 3))
    await telling.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == ["one@2"]
    await store.release(run.lease, "cancelled")
    assert (await store.read("one")).status == "cancelled"


async def drive(store: VersionStore) -> None:
    """A flow of a few steps, one of which fails at first; on a run that is there or not."""
    fails = [True]

    def step(state: dict[str, int]) -> None:
        state["n"] += 1
        if state["n"] == 3 and fails:
            raise ValueError(fails.pop())

    flow = FlowBuilder[dict[str, int]]("flow").start_with(step)
    for number in range(4):
        flow = flow.then(step, name=f"step {number}")
    kept = flow.with_versioned_checkpoint(store)
    with suppress(Exception):
        await kept.run({"n": 0}, run_id="r")
    result = await kept.run({"n": 0}, run_id="r")
    assert (result.state, result.status) == ({"n": 5}, "completed")


@pytest.mark.parametrize("how", ["before", "after", "unheard"])
async def test_nothing_that_went_wrong_is_taken_for_a_forgery(how: How) -> None:
    """Wherever the database goes away, what it has is good, and the run goes on to its end."""
    died = 0
    for at in range(1, 40):
        inner = MemoryStore()
        crashing = CrashingStore(inner, at, how)
        try:
            await drive(SignedStore(crashing, KEY))
        except (Crash, FlowError, StoreFailed, RunBusy):
            died += 1
        if not crashing.crashed:
            await crashing.die()
        store = SignedStore(inner, KEY)
        with suppress(UnknownRun):
            await store.read("r")
            await store.versions("r")
        await drive(store)
        assert (await store.read("r")).status == "completed"
        if not crashing.reached:
            break
    assert died > 5


class Unheard(MemoryStore):
    """A store whose next append is stored, and fails."""

    fails = False

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        await super().append(lease, versions)
        if self.fails:
            raise StoreFailed("a test", "append", "the answer never came")


async def test_what_was_stored_unheard_is_sealed_with_the_rest() -> None:
    """The head of a run that is given back after an append that failed is what is stored."""
    inner = Unheard()
    store = SignedStore(inner, KEY)
    run = await owned(store, "one", stored=2)
    inner.fails = True
    with pytest.raises(StoreFailed):
        await run.append(2, 4)
    await store.release(run.lease, "failed")
    assert (await store.read("one")).head == 3
    del kept_versions(inner, "one")[3:]
    with pytest.raises(Forged):
        await store.read("one")


async def test_a_tail_that_is_cut_off_while_the_run_is_owned_is_not_sealed() -> None:
    """The owner knows what it has stored."""
    inner = Unheard()
    store = SignedStore(inner, KEY)
    run = await owned(store, "one", stored=4)
    inner.fails = True
    with pytest.raises(StoreFailed):
        await run.append(4, 5)
    del kept_versions(inner, "one")[2:]
    with pytest.raises(Forged, match="it had version number 3, and has 1"):
        await store.release(run.lease, "failed")


async def test_a_run_whose_last_version_is_forged_cannot_be_claimed() -> None:
    """Even one that came after the run was sealed: nobody goes on from it."""
    inner = MemoryStore()
    store = SignedStore(inner, KEY)
    await owned(store, "one", stored=4)
    change_run(inner, "one", owner=None)
    rows = kept_versions(inner, "one")
    rows[:] = rehashed([*rows[:3], rows[3]._replace(body=rows[2].body)])
    with pytest.raises(Forged, match="version 'one@3'"):
        await store.claim(await store.read("one"))


class Late(MemoryStore):
    """A store that lost the line: what an append brought is stored with the next claim or release only."""

    late: tuple[Lease, Sequence[Version]] | None = None
    is_cut = False

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        if self.is_cut:
            self.late, self.is_cut = (lease, versions), False
            raise StoreFailed("a test", "append", "the line is cut")
        await super().append(lease, versions)

    async def claim(self, run: Run) -> Lease:
        await self.arrive()
        return await super().claim(run)

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> None:
        await self.arrive()
        await super().release(lease, status, error, seal, wake)

    async def arrive(self) -> None:
        if self.late is not None:
            late, self.late = self.late, None
            await self.append(*late)


async def test_what_is_stored_late_is_no_forgery() -> None:
    """The head that is sealed after an append that failed may not be the last one."""
    inner = Late()
    store = SignedStore(inner, KEY)
    run = await owned(store, "one", stored=2)
    inner.is_cut = True
    with pytest.raises(StoreFailed):
        await run.append(2, 4)
    await store.release(run.lease, "failed")
    assert ((await store.read("one")).head, (await store.read("one")).status) == (3, "failed")


async def test_what_the_owner_before_has_stored_at_the_last_moment_is_sealed_too() -> None:
    """Its lease had lapsed, and it went on until the run was claimed."""
    inner = Late()
    store = SignedStore(inner, KEY)
    run = await owned(store, "one", stored=2)
    inner.late = run.lease, [SignedStore(inner, KEY)._signer.sign_version(version) for version in run.versions[2:4]]
    change_run(inner, "one", owner=None)
    lease = await store.claim(await store.read("one"))
    await store.release(lease, "waiting")
    assert (await store.read("one")).head == 3
    del kept_versions(inner, "one")[3:]
    with pytest.raises(Forged):
        await store.read("one")


async def test_another_process_may_give_the_lease_back() -> None:
    """It learns from the store what is to be sealed; a lease that is not good any more changes nothing."""
    inner = MemoryStore()
    run = await owned(SignedStore(inner, KEY), "one", stored=3)
    store = SignedStore(inner, KEY)
    await store.release(Lease("one", run.lease.epoch + 1), "failed")
    assert (await store.read("one")).status == "running"
    await store.release(run.lease, "waiting")
    await store.release(run.lease, "failed")
    assert (await store.read("one")).status == "waiting"


@pytest.mark.parametrize(
    "stacked",
    [
        lambda inner: SignedStore(EncryptedStore(inner, {"k": KEY}), KEY),
        lambda inner: EncryptedStore(SignedStore(inner, KEY), {"k": KEY}),
        lambda inner: SignedStore(SignedStore(inner, KEY), KEY[::-1]),
    ],
    ids=["what is signed is encrypted", "what is encrypted is signed", "two signatures"],
)
async def test_stores_can_be_put_around_one_another(stacked: Callable[[VersionStore], VersionStore]) -> None:
    """In either order: what was stored comes back, and a forgery is found."""
    inner = MemoryStore()
    store = stacked(inner)
    stored = await fill(store)
    await drive(store)
    for run_id in RUNS:
        assert list(await store.versions(run_id)) == stored[run_id]
        assert len(await store.signals(run_id)) == 2
    kept_versions(inner, "one")[5] = kept_versions(inner, "two")[5]._replace(run_id="one")
    with pytest.raises((Forged, CorruptVersion)):
        await store.versions("one")
    change_run(inner, "one", status="waiting")
    with pytest.raises(Forged):
        await store.read("one")


async def test_verify_names_each_forgery_and_goes_on() -> None:
    """Two of four runs are forged in what is said of them, and one in a version; the store inside sees none."""
    inner = MemoryStore()
    store = SignedStore(inner, KEY)
    for number in range(4):
        run = await owned(store, f"run-{number}", stored=6)
        await store.release(run.lease, "completed")
    change_run(inner, "run-3", status="failed")
    change_run(inner, "run-1", tags={"user": "eve"})
    rows = kept_versions(inner, "run-0")
    rows[:] = rehashed([*rows[:4], rows[4]._replace(body=rows[3].body), rows[5]])
    found = await store.verify()
    assert [damage.version or damage.run_id for damage in found.damages] == ["run-3", "run-1", "run-0@4", "run-0@5"]
    assert found.runs == 4
    assert (await inner.verify()).damages == ()


async def test_a_run_is_copied_from_any_kind_of_store_to_any_other() -> None:
    """So an old store comes to be signed or encrypted, and a key is changed; the last copy is as the first one was."""
    inner = MemoryStore()
    stored = await fill(inner)
    stores: list[VersionStore] = [
        inner,
        SignedStore(MemoryStore(), KEY),
        SignedStore(MemoryStore(), KEY[::-1]),
        EncryptedStore(MemoryStore(), {"a": KEY}),
        EncryptedStore(MemoryStore(), {"b": KEY[::-1]}),
        SignedStore(EncryptedStore(MemoryStore(), {"b": KEY}), KEY),
        MemoryStore(),
    ]
    for source, target in pairwise(stores):
        await copy_run("one", source, target)
        assert list(await target.versions("one")) == stored["one"]
        assert list(await target.signals("one")) == list(await inner.signals("one"))
        assert (await target.read("one")).status == "completed"
        assert (await verify(target)).damages == ()


FORGERIES = {
    "UPDATE flowneer_runs SET status = 'completed'": "run 'r'",
    'UPDATE flowneer_runs SET tags = \'{"user":"eve"}\'': "run 'r'",
    "DELETE FROM flowneer_versions WHERE seq = 5; UPDATE flowneer_runs SET last = 4": "run 'r'",
    "UPDATE flowneer_versions SET step_index = 3 WHERE seq = 2": "version 'r@2'",
    "UPDATE flowneer_signals SET name = 'stop'": "signal '1 of r'",
}


@pytest.mark.parametrize("sql", FORGERIES)
async def test_a_forgery_in_a_file_is_named(sql: str, tmp_path: Path) -> None:
    """With a real file and SQL, as somebody would do it."""
    path = tmp_path / "runs.db"
    async with SignedStore(SqliteStore(path), KEY) as store:
        run = await owned(store, "r", stored=6)
        await store.send("r", "go", b"1")
        await store.release(run.lease, "failed")
    with closing(connect(path)) as db:
        db.executescript(sql + ";")
    async with SignedStore(SqliteStore(path), KEY) as store:
        with pytest.raises(Forged) as caught:
            await read_wholly(store, "r")
    assert f"{caught.value.kind} {caught.value.name!r}" == FORGERIES[sql]


async def test_a_witness_is_told_of_what_a_transaction_has_committed(tmp_path: Path) -> None:
    """Not before, and of nothing that was rolled back."""
    witness = Witness()
    heads_inside = list[int]()
    fails = [True]

    async def book(state: dict[str, int], ctx: Context) -> None:
        async with ctx.transaction():
            heads_inside.append(len(witness.heads))
        state["n"] += 1
        if fails:
            raise ValueError(fails.pop())

    flow = FlowBuilder[dict[str, int]]("flow").start_with(book, retries=1)
    async with SignedStore(SqliteStore(tmp_path / "runs.db"), KEY, on_head=witness.tell) as store:
        await flow.with_versioned_checkpoint(store).run({"n": 1}, run_id="r")
        assert ([version for version, _ in witness.heads], heads_inside) == (["r@0", "r@1"], [1, 1])
        await store.check_head(*witness.heads[-1])
        assert (await store.read("r")).status == "completed"
