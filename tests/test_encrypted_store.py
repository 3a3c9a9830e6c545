import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from sqlite3 import connect
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async import (
    BadOption,
    BrokenChain,
    Context,
    CorruptSignal,
    CorruptVersion,
    Fenced,
    FlowBuilder,
    Lease,
    NotEncrypted,
    StoreFailed,
    UnknownKey,
    Version,
    VersionConflict,
)
from flowneer_async.testing import StoreContract
from flowneer_async.testing.chains import counting, new_run, owned
from flowneer_async.versions import checked
from flowneer_stores import EncryptedStore, MemoryStore, SqliteStore
from flowneer_stores.keys import Keys
from tests.support.tampering import (
    BODIES,
    RUNS,
    fill,
    flip,
    flipped,
    flips,
    kept_signals,
    kept_versions,
    rehashed,
    relinked,
)

KEYS = {"old": bytes(range(16)), "new": bytes(range(32))}


class TestEncryptedMemoryStore(StoreContract):
    def make_store(self, tmp_path: Path) -> EncryptedStore:
        return EncryptedStore(MemoryStore(), KEYS)


class TestEncryptedSqliteStore(StoreContract):
    def make_store(self, tmp_path: Path) -> EncryptedStore:
        return EncryptedStore(SqliteStore(tmp_path / "runs.db"), KEYS, current="new")


async def filled() -> tuple[MemoryStore, EncryptedStore, dict[str, list[Version]]]:
    """Two runs through an encrypted store, and what was stored."""
    inner = MemoryStore()
    store = EncryptedStore(inner, KEYS)
    return inner, store, await fill(store)


def check_stored_chain(rows: Sequence[Version]) -> None:
    """What is stored is a chain of its own, which anybody can check."""
    for row in rows:
        checked(row.id, rows[row.base : row.seq + 1])
    for row, after in pairwise(rows):
        assert not after.is_keyframe or after.parent_digest == row.digest


def each_field() -> st.SearchStrategy[Version]:
    """Any version with number 0 that is a keyframe."""
    digests = st.binary(max_size=40)
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    return st.builds(
        lambda *rest: Version("run", 0, 0, *rest),
        *(st.none() | text, st.integers(-1, 2**53), text, st.integers(0, 2**53), st.binary(max_size=200)),
        *(digests, digests),
    )


@given(each_field(), st.lists(st.binary(max_size=50), max_size=3))
def test_what_is_read_is_what_was_written(version: Version, payloads: list[bytes]) -> None:
    """Every field of a version, whatever it is, and every payload."""

    async def main() -> None:
        store = EncryptedStore(MemoryStore(), KEYS)
        await store.create(new_run(), [version])
        sent = [await store.send("run", "go", payload) for payload in payloads]
        assert [signal.payload for signal in sent] == payloads
        assert list(await store.versions("run")) == list(await store.chain("run@0")) == [version]
        assert list(await store.signals("run")) == sent

    asyncio.run(main())


async def test_what_is_stored_is_a_chain_of_its_own() -> None:
    """Without any key its numbers and digests can be checked: over appends, keyframes and two kinds of stores."""
    inner, _, _ = await filled()
    for run_id in RUNS:
        check_stored_chain(await inner.versions(run_id))


async def test_nothing_of_a_state_is_stored_as_it_is(tmp_path: Path) -> None:
    """Neither keys nor values, nor the digests of them, nor payloads are in the file."""

    def step(state: dict[str, object]) -> None:
        state["password-field"] = "correct horse battery staple"

    flow = FlowBuilder("flow").start_with(step).then(step, name="again")
    async with EncryptedStore(SqliteStore(tmp_path / "runs.db"), KEYS) as store:
        await flow.with_versioned_checkpoint(store).run({"card-field": "4111 1111"}, run_id="r")
        await store.send("r", "go", b'"a secret answer"')
        secrets = [version.digest for version in await store.versions("r")]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (b"password", b"horse", b"card-field", b"4111", b"secret answer", *secrets):
        assert secret not in stored
    assert b"again" in stored, "the names of steps are not hidden: had they been compressed, say, this test saw nothing"


async def test_the_same_state_is_stored_as_something_else_each_time() -> None:
    """Of two runs, or at two versions of one, so that nobody sees which are equal."""
    inner = MemoryStore()
    store = EncryptedStore(inner, KEYS)
    for run_id in RUNS:
        await owned(store, run_id, length=3, stored=3)
        await store.send(run_id, "go", b"1")
        await store.send(run_id, "go", b"1")
    tails = [row.body[-20:] for run_id in RUNS for row in await inner.versions(run_id)]
    tails += [signal.payload[-20:] for run_id in RUNS for signal in await inner.signals(run_id)]
    assert len(set(tails)) == len(tails)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_nonce_belongs_to_what_is_encrypted(one: bytes, other: bytes) -> None:
    """Two processes that were forked from one, and store different versions of one number, use different nonces."""

    async def stored(body: bytes) -> Version:
        inner = MemoryStore()
        (root,) = counting("run", 1)
        await EncryptedStore(inner, {"k": KEYS["new"]}).create(new_run(), [root._replace(body=body)])
        return (await inner.versions("run"))[0]

    async def main() -> None:
        nonces = [(await stored(body)).body[3:15] for body in (one, other)]
        assert (nonces[0] == nonces[1]) == (one == other)

    asyncio.run(main())


@pytest.mark.parametrize("recompute", [list, rehashed], ids=["as they are", "made to fit"])
@given(flip=flips())
def test_no_flipped_bit_goes_unseen(
    recompute: Callable[[Sequence[Version]], list[Version]], flip: tuple[int, str, int]
) -> None:
    """Of any field of any row that is stored, even if all digests are then computed anew."""
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
        with pytest.raises((CorruptVersion, BrokenChain, NotEncrypted, UnknownKey)):
            await store.versions("one")

    asyncio.run(main())


@given(st.lists(st.tuples(st.sampled_from(RUNS), st.integers(0, 7)), min_size=1, max_size=9), st.booleans())
def test_rows_are_good_in_their_place_only(picked: list[tuple[str, int]], relink: bool) -> None:
    """Moved, swapped, doubled, left out, or of another run, and linked anew: refused, or the chain up to there."""

    async def main() -> None:
        inner, store, stored = await filled()
        rows = [kept_versions(inner, run_id)[at] for run_id, at in picked]
        kept_versions(inner, "one")[:] = relinked(rows, "one") if relink else rows
        try:
            given = list(await store.versions("one"))
        except (CorruptVersion, BrokenChain):
            return
        run_id, first = picked[0]
        assert given == stored[run_id][first : first + len(given)]
        assert relink is False or (run_id, first) == ("one", 0)

    asyncio.run(main())


@pytest.mark.parametrize("at", range(1, 8))
async def test_a_version_is_good_under_its_own_parent_only(at: int) -> None:
    """Not after the versions that another run of that id had once, however well they are linked to it."""
    inner, store, _ = await filled()
    once = MemoryStore()
    await fill(EncryptedStore(once, KEYS), BODIES[::-1])
    rows = kept_versions(inner, "one")
    rows[:] = rehashed([*kept_versions(once, "one")[:at], *rows[at:]])
    with pytest.raises(CorruptVersion) as caught:
        await store.versions("one")
    assert caught.value.version == f"one@{at}"


def test_each_run_has_keys_of_its_own() -> None:
    """What is sealed for one run opens for no other; so the limit of a key is one of a run."""
    keys = Keys({"k": KEYS["new"]})
    sealed = keys.seal("one", b"secret", b"place")
    assert keys.open("one", sealed, b"place", "version", "one@0") == b"secret"
    for run_id, bound in (("two", b"place"), ("one", b"other")):
        with pytest.raises(ValueError, match="changed or moved"):
            keys.open(run_id, sealed, bound, "version", "one@0")


def test_the_id_of_a_key_is_part_of_what_is_sealed() -> None:
    """Nobody makes of it another one, even of the same key."""
    keys = Keys({"a": KEYS["new"], "b": KEYS["new"]})
    sealed = keys.seal("one", b"secret", b"place")
    with pytest.raises(ValueError, match="changed or moved"):
        keys.open("one", sealed[:2] + b"b" + sealed[3:], b"place", "version", "one@0")


@pytest.mark.parametrize("fork_of", ["other@1", None])
async def test_a_fork_is_of_the_run_that_it_was_made_of(fork_of: str | None) -> None:
    """The root of a fork cannot be hung under another version, nor be made no fork."""
    inner = MemoryStore()
    store = EncryptedStore(inner, KEYS)
    (root,) = counting("run", 1)
    await store.create(new_run(), [root._replace(fork_of="other@7")])
    kept_versions(inner, "run")[:] = rehashed([kept_versions(inner, "run")[0]._replace(fork_of=fork_of)])
    with pytest.raises(CorruptVersion) as caught:
        await store.chain("run@0")
    assert caught.value.version == "run@0"


async def test_keys_are_changed_by_adding_a_new_one() -> None:
    """What is new is encrypted with the current key, what is old is read with its own, as long as that is given."""
    inner = MemoryStore()
    run = await owned(EncryptedStore(inner, {"a": KEYS["old"]}), length=4, stored=2)
    both = EncryptedStore(inner, {"a": KEYS["old"], "b": KEYS["new"]}, current="b")
    await both.append(run.lease, run.versions[2:])
    assert list(await both.versions("run")) == run.versions
    assert [row.body[2:3] for row in await inner.versions("run")] == [b"a", b"a", b"b", b"b"]
    for keys, lost in (({"b": KEYS["new"]}, ("a", "run@0")), ({"a": KEYS["old"]}, ("b", "run@2"))):
        with pytest.raises(UnknownKey) as caught:
            await EncryptedStore(inner, keys).versions("run")
        assert (caught.value.key_id, caught.value.name) == lost


async def test_another_key_of_that_id_opens_nothing() -> None:
    """Neither a version nor a signal."""
    inner, _, _ = await filled()
    store = EncryptedStore(inner, {"old": KEYS["new"]})
    with pytest.raises(CorruptVersion, match="its key is another one"):
        await store.chain("one@0")
    with pytest.raises(CorruptSignal, match="signal 1 of run 'one'"):
        await store.signals("one")


async def test_what_is_not_encrypted_is_refused() -> None:
    """Whoever can write could otherwise bring in a state, or a signal, without any key."""
    inner = MemoryStore()
    await fill(inner)
    store = EncryptedStore(inner, KEYS)
    with pytest.raises(NotEncrypted, match="version 'one@0' is not encrypted"):
        await store.versions("one")
    with pytest.raises(NotEncrypted, match="signal '1 of one' is not encrypted"):
        await store.signals("one")


async def test_a_marker_that_is_not_encrypted_is_refused() -> None:
    """It has no body at all, and says that a step was completed."""
    inner = MemoryStore()
    await owned(inner)
    kept_versions(inner, "run")[:] = rehashed([kept_versions(inner, "run")[0]._replace(body=b"")])
    with pytest.raises(NotEncrypted):
        await EncryptedStore(inner, KEYS).versions("run")


@given(st.integers(0, 10**6))
def test_a_signal_is_what_was_sent(bit: int) -> None:
    """Neither changed, nor under another name, nor of another run, nor twice; nor is it a body, or a body one."""

    async def main() -> None:
        inner, store, _ = await filled()
        first, second = kept_signals(inner, "one")
        body = kept_versions(inner, "one")[0].body
        other = replace(kept_signals(inner, "two")[1], run_id="one")
        for forged in (
            [first, replace(first, number=2)],
            [first, other],
            [replace(first, name="stop"), second],
            [replace(first, payload=flip(first.payload, bit)), second],
            [replace(first, payload=first.payload[:10]), second],
            [replace(first, payload=body), second],
        ):
            kept_signals(inner, "one")[:] = forged
            with pytest.raises((CorruptSignal, NotEncrypted, UnknownKey)):
                await store.signals("one")
        kept_versions(inner, "one")[:] = rehashed([kept_versions(inner, "one")[0]._replace(body=first.payload)])
        with pytest.raises(CorruptVersion):
            await store.versions("one")

    asyncio.run(main())


class Unheard(MemoryStore):
    """A store whose next append is stored, or not, and fails."""

    stores = True

    def __init__(self) -> None:
        super().__init__()
        self.fails = 0

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        if self.stores or not self.fails:
            await super().append(lease, versions)
        if self.fails:
            self.fails -= 1
            raise StoreFailed("a test", "append", "the answer never came")


@pytest.mark.parametrize("stores", [True, False])
async def test_after_an_append_that_failed_the_head_is_read(stores: bool) -> None:
    """Whether it was stored or not, the next one is stored on the digest that is there."""
    inner = Unheard()
    inner.stores = stores
    run = await owned(EncryptedStore(inner, KEYS), length=6, stored=2)
    inner.fails = 1
    with pytest.raises(StoreFailed):
        await run.append(2, 4)
    await run.append(4 if stores else 2, 6)
    assert list(await run.store.versions("run")) == run.versions
    check_stored_chain(await inner.versions("run"))


async def test_many_processes_write_one_chain() -> None:
    """Each that takes the run over goes on from the head as it is stored; one that has lost it writes nothing."""
    inner = MemoryStore()
    versions = counting("run", 8, keyframes=(0, 5))
    store = EncryptedStore(inner, KEYS)
    lease = await store.create(new_run(), versions[:1])
    for begin in range(1, 8):
        assert lease is not None
        await EncryptedStore(inner, KEYS).release(lease, "running")
        store = EncryptedStore(inner, KEYS)
        stale, lease = lease, await store.claim(await store.read("run"))
        with pytest.raises(Fenced):
            await store.append(stale, versions[begin : begin + 1])
        await store.append(lease, versions[begin : begin + 1])
    assert list(await store.versions("run")) == versions
    check_stored_chain(await inner.versions("run"))


async def test_an_append_whose_parent_is_not_there_is_refused_as_any_store_does() -> None:
    """It names the head, and of a lease that is lost it says that."""
    store = EncryptedStore(MemoryStore(), KEYS)
    run = await owned(store, stored=2)
    with pytest.raises(VersionConflict) as caught:
        await run.append(4, 5)
    assert (caught.value.version, caught.value.head) == ("run@4", "run@1")
    with pytest.raises(Fenced):
        await store.append(Lease("run", run.lease.epoch + 1), run.versions[4:5])


@pytest.mark.parametrize("first", range(8))
async def test_any_part_of_a_chain_can_be_read(first: int) -> None:
    """A page that begins within the chain, and one of a run whose first versions were dropped."""
    _, store, stored = await filled()
    for last in range(first - 1, 9):
        assert list(await store.versions("one", first, last)) == stored["one"][first : last + 1]
    assert await store.drop("one", 3) == 3
    assert list(await store.versions("one", first)) == stored["one"][max(first, 3) :]


async def test_what_a_row_builds_on_has_to_be_there() -> None:
    """A hole is named by what is missing."""
    inner, store, _ = await filled()
    del kept_versions(inner, "one")[4]
    with pytest.raises(BrokenChain) as caught:
        await store.versions("one")
    assert (caught.value.version, caught.value.missing) == ("one@5", "one@4")


BAD: list[tuple[dict[str, bytes], str | None]] = [
    ({}, None),
    ({"k": b"short"}, None),
    ({"k": b"k" * 33}, None),
    ({"": KEYS["new"]}, None),
    ({"k" * 256: KEYS["new"]}, None),
    (KEYS, "other"),
]


@pytest.mark.parametrize(("keys", "current"), BAD)
def test_bad_keys_are_refused_and_not_shown(keys: dict[str, bytes], current: str | None) -> None:
    """At once, and not when the first version is to be stored."""
    with pytest.raises(BadOption) as caught:
        EncryptedStore(MemoryStore(), keys, current=current)
    assert not any(repr(key)[2:-1] in str(caught.value) for key in keys.values())


def test_without_the_extra_the_error_names_it() -> None:
    """The other stores work without it."""
    code = """
import sys
sys.modules["cryptography"] = sys.modules["cryptography.exceptions"] = None
import flowneer_stores
flowneer_stores.SignedStore(flowneer_stores.MemoryStore(), bytes(16))
try:
    flowneer_stores.EncryptedStore
except flowneer_stores.memory.Fenced.__base__.__base__ as error:
    print(error)
"""
    path = [f"sys.path.insert(0, {entry!r})" for entry in reversed(sys.path) if entry]
    ran = subprocess.run(
        [sys.executable, "-c", "import sys\n" + "\n".join(path) + "\n" + code], capture_output=True, text=True
    )
    assert (
        ran.stdout + ran.stderr
        == "EncryptedStore needs the extra 'encryption': pip install 'flowneer-async[encryption]'\n"
    )


async def test_a_flow_goes_on_from_what_is_encrypted(tmp_path: Path) -> None:
    """A run that failed goes on in another process, and is forked from a version; its root is a keyframe there too."""
    fails = [True]

    def step(state: dict[str, int]) -> None:
        state["n"] += 1
        if state["n"] == 3 and fails:
            raise ValueError(fails.pop())

    steps = FlowBuilder[dict[str, int]]("flow").start_with(step)
    for number in range(3):
        steps = steps.then(step, name=f"step {number}")
    with pytest.raises(Exception, match="step 1"):
        async with EncryptedStore(SqliteStore(tmp_path / "runs.db"), KEYS) as store:
            await steps.with_versioned_checkpoint(store).run({"n": 0}, run_id="r")
    async with EncryptedStore(SqliteStore(tmp_path / "runs.db"), KEYS) as store:
        flow = steps.with_versioned_checkpoint(store)
        assert (await flow.run(run_id="r")).state == {"n": 4}
        assert (await flow.resume_from("r@2", store).run(run_id="fork")).state == {"n": 4}
        assert (await store.resolve("r@1")).state == {"n": 1}


async def test_a_transaction_stores_ciphertext_too(tmp_path: Path) -> None:
    """The version that is committed with the user's rows is as any other, and so is one after a rollback."""
    path = tmp_path / "runs.db"
    fails = [True]

    async def book(state: dict[str, int], ctx: Context) -> None:
        async with ctx.transaction() as connection:
            await cast(Any, connection).execute("INSERT INTO booked VALUES (1)")
        state["n"] = 1
        if fails:
            raise ValueError(fails.pop())

    flow = FlowBuilder[dict[str, int]]("flow").start_with(book, retries=1).then(lambda state: None, name="after")
    inner = SqliteStore(path)
    async with EncryptedStore(inner, KEYS) as store:
        with closing(connect(path)) as db:
            db.execute("CREATE TABLE booked (n)")
        result = await flow.with_versioned_checkpoint(store).run({"n": 0}, run_id="r")
        assert (result.state, (await store.resolve("r@1")).state) == ({"n": 1}, {"n": 1})
        check_stored_chain(await inner.versions("r"))
    with closing(connect(path)) as db:
        assert db.execute("SELECT count(*) FROM booked").fetchone() == (1,)
