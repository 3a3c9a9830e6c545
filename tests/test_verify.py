"""verify() names each damage, of a real file as of any store, and nothing that is none."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from shutil import copyfile

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flowneer_async import (
    Damage,
    Run,
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreFailed,
    UnknownRun,
    Verified,
    Version,
    verify,
)
from flowneer_async.store import Lease
from flowneer_async.testing.chains import counting, new_run
from flowneer_async.versions import Head, Signal, grow
from flowneer_stores import EncryptedStore, MemoryStore, SignedStore, SqliteStore
from flowneer_stores.wrapper import Wrapper
from tests.support.states import Drawn, keep

LENGTH = 12


async def make(path: Path) -> None:
    async with SqliteStore(path) as store:
        for number, run_id in enumerate(("r", "s", "pruned")):
            await keep(store, Drawn(Random(number), LENGTH, run_id).versions)
        await store.drop("pruned", 3)
        root = counting("fork", 1)[0]
        root, head = grow(Head("fork"), root.body, True, 0, "step1", root.timestamp, "r@3")
        last, _ = grow(head, b"", False, 1, "step2", root.timestamp)
        lease = await store.create(replace(new_run("fork"), fork_of="r@3"), [root, last])
        assert lease is not None
        await store.release(lease, "completed")
        for number in range(3):
            await store.send("s", "go", b"%d" % number)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with four runs: "r" and "s" of twelve versions, a fork, and one that was pruned; "s" has signals."""
    path = tmp_path_factory.mktemp("verify") / "runs.db"
    asyncio.run(make(path))
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return anew(original, tmp_path)


def anew(original: Path, folder: Path) -> Path:
    """The file as it was, in another place."""
    for old in folder.glob("runs.db*"):
        old.unlink()
    return Path(copyfile(original, folder / "runs.db"))


def change(path: Path, *statements: str, **values: object) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement, values)
        db.commit()


async def verified(path: Path, run_id: str | None = None) -> Verified:
    async with SqliteStore(path) as store:
        return await store.verify(run_id)


async def test_what_is_whole_has_no_damage(path: Path) -> None:
    """All runs are counted, and the versions that are kept."""
    kept = await verified(path, "pruned")
    assert kept.damages == ()
    assert await verified(path) == Verified(4, 2 * LENGTH + 2 + kept.versions, ())
    assert 3 <= kept.versions < LENGTH


ROW = "run = (SELECT id FROM flowneer_runs WHERE run_id = '{}')"
R, S = ROW.format("r"), ROW.format("s")

DAMAGES = {
    "missing": (f"DELETE FROM flowneer_versions WHERE {R} AND seq = 5", "r@5", "it is missing"),
    "several missing": (
        f"DELETE FROM flowneer_versions WHERE {R} AND seq BETWEEN 5 AND 7",
        "r@5",
        "it is missing, and 2 more up to number 7",
    ),
    "root missing": (f"DELETE FROM flowneer_versions WHERE {R} AND seq = 0", "r@0", "it is missing"),
    "head missing": (f"DELETE FROM flowneer_versions WHERE {R} AND seq = 11", None, "'r@11', which is missing"),
    "all missing": (f"DELETE FROM flowneer_versions WHERE {R}", None, "'r@0', which is missing"),
    "body": (f"UPDATE flowneer_versions SET body = x'00' WHERE {R} AND seq = 5", "r@5", "digest is not that of"),
    "digest": (f"UPDATE flowneer_versions SET digest = x'00' WHERE {R} AND seq = 5", "r@5", "digest is not that of"),
    "digest with more behind it": (
        f"UPDATE flowneer_versions SET digest = CAST(digest || zeroblob(16) AS BLOB) WHERE {R} AND seq = 5",
        "r@5",
        "digest is not that of",
    ),
    "parent digest": (
        f"UPDATE flowneer_versions SET parent_digest = x'00' WHERE {R} AND seq = 0",
        "r@0",
        "its parent digest is not the digest of the version before it",
    ),
    "unreadable": (
        f"UPDATE flowneer_versions SET path = CAST(x'ff' AS TEXT) WHERE {R} AND seq = 5",
        "r@5",
        "reading failed",
    ),
    "first": (
        "UPDATE flowneer_runs SET first = 1 WHERE run_id = 's'",
        "s@1",
        "it is the first version, and no keyframe",
    ),
    "first before": ("UPDATE flowneer_runs SET first = 0 WHERE run_id = 'pruned'", "pruned@0", "it is missing"),
    "steps": ("UPDATE flowneer_runs SET steps = '7' WHERE run_id = 'r'", None, "its steps are no list"),
    "tags": ("UPDATE flowneer_runs SET tags = '{' WHERE run_id = 'r'", None, "its tags are no mapping"),
    "status": ("UPDATE flowneer_runs SET status = 'x' WHERE run_id = 'r'", None, "its status is none"),
    "origin": (
        "UPDATE flowneer_runs SET fork_of = 'r@4' WHERE run_id = 'fork'",
        "fork@0",
        "a fork of r@3, and its run one of r@4",
    ),
    "no origin": ("UPDATE flowneer_runs SET fork_of = NULL WHERE run_id = 'fork'", "fork@0", "and its run one of None"),
    "signal": (f"DELETE FROM flowneer_signals WHERE {S} AND number = 2", None, "its signal number 2 is missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damage_is_named(path: Path, name: str) -> None:
    """With the version, or else the run, and what is wrong with it; it is the only one, and all runs are read."""
    statement, version, reason = DAMAGES[name]
    change(path, statement)
    found = await verified(path)
    (damage,) = found.damages
    assert damage.version == version
    assert reason in damage.reason
    assert f"{damage.version or f'run {damage.run_id}'}: {damage.reason}" == str(damage)
    assert (await verified(path, damage.run_id)).damages == (damage,)
    assert found.runs == 4


async def test_each_damage_of_each_run_is_named(path: Path) -> None:
    """One does not hide those after it, in the same run or in another."""
    change(path, f"UPDATE flowneer_versions SET body = x'00' WHERE ({R} OR {S}) AND seq IN (3, 7)")
    change(path, f"DELETE FROM flowneer_versions WHERE {R} AND seq = 9")
    change(path, "UPDATE flowneer_runs SET steps = '[' WHERE run_id IN ('fork', 's')")
    found = await verified(path)
    assert {str(damage.version) for damage in found.damages} == {"r@3", "r@7", "r@9", "s@3", "s@7", "None"}
    assert {damage.run_id for damage in found.damages if damage.version is None} == {"fork", "s"}
    assert (found.runs, len(found.damages)) == (4, 7)


def rechained(versions: Sequence[Version]) -> list[Version]:
    """The same versions with the digests that they should have."""
    head, made = Head(versions[0].run_id), list[Version]()
    for each in versions:
        head = head._replace(base=each.base)
        version, head = grow(
            head, each.body, each.is_keyframe, each.step_index, each.path, each.timestamp, each.fork_of
        )
        made.append(version)
    return made


@pytest.mark.parametrize(
    ("seq", "changes", "reason"),
    [
        (3, {"body": b"[]\n"}, "it cannot be folded (AttributeError)"),
        (3, {"body": b'{"del":["none"]}\n'}, "it cannot be folded (KeyError)"),
        (3, {"body": b'{"set":{"n":9}}\n1'}, "it cannot be folded (ValueError)"),
        (3, {"base": 1}, "its base is not the last keyframe"),
        (3, {"fork_of": "r@1"}, "it is the root of a fork, and not number 0"),
        (5, {"body": b'{"set":{"n":1}}\n{'}, "the value of 'n' is no JSON"),
    ],
)
async def test_what_a_bug_would_write_is_named(seq: int, changes: dict[str, object], reason: str) -> None:
    """Where the digests are right, what they are of is looked at."""
    versions = counting("r", 6)
    versions[seq] = versions[seq]._replace(**changes)  # type: ignore[arg-type]
    store = MemoryStore()
    await keep(store, rechained(versions))
    assert (await verify(store)).damages == (Damage("r", f"r@{seq}", reason),)


COLUMNS: dict[str, st.SearchStrategy[object]] = {
    **dict.fromkeys(
        ("run", "seq", "base", "step_index", "timestamp"), st.integers(-3, 15) | st.integers(-(2**63), 2**63 - 1)
    ),
    **dict.fromkeys(("fork_of", "path"), st.none() | st.text(max_size=5)),
    **dict.fromkeys(("body", "parent_digest", "digest"), st.binary(max_size=20)),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["r", "s", "fork", "pruned"]), st.integers(0, LENGTH - 1), st.sampled_from(list(COLUMNS)), st.data()
)
async def test_any_change_of_any_column_of_any_row_is_named(
    original: Path, tmp_path: Path, run_id: str, seq: int, column: str, data: st.DataObject
) -> None:
    """Whatever it is set to; and of the other runs nothing is said, unless the row was made one of theirs."""
    path = anew(original, tmp_path)
    value = data.draw(COLUMNS[column])
    with closing(sqlite3.connect(path)) as db:
        where = f"WHERE {ROW.format(run_id)} AND seq = ?"
        was = db.execute(f"SELECT {column} FROM flowneer_versions {where}", (seq,)).fetchone()
        assume(was is not None and was != (value,))
        try:
            db.execute(f"UPDATE flowneer_versions SET {column} = ? {where}", (value, seq))
        except sqlite3.IntegrityError:
            assume(False)
        db.commit()
    damages = (await verified(path)).damages
    assert run_id in {damage.run_id for damage in damages}
    if column != "run":
        assert {damage.run_id for damage in damages} == {run_id}
    if column not in ("run", "seq"):
        assert [damage.version for damage in damages] == [f"{run_id}@{seq}"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1), st.binary(min_size=1, max_size=300))
async def test_a_file_that_is_overwritten_raises_nothing(original: Path, tmp_path: Path, at: int, junk: bytes) -> None:
    """Wherever the damage is, if the file can be opened at all then verify comes to its end."""
    path = anew(original, tmp_path)
    with path.open("r+b") as file:
        file.seek(4096 + at % (path.stat().st_size - 4396))
        file.write(junk)
    try:
        store = await SqliteStore(path).__aenter__()
    except StoreError:
        return
    try:
        await store.verify()
    finally:
        await store.__aexit__(None, None, None)


async def created(store: MemoryStore, versions: Sequence[Version]) -> Lease:
    lease = await store.create(new_run(), versions)
    assert lease is not None
    return lease


class Busy(MemoryStore):
    """Does something before each thing that it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], Awaitable[None]] | None = None

    async def read(self, run_id: str) -> Run:
        await self._meanwhile()
        return await super().read(run_id)

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        await self._meanwhile()
        return await super().versions(run_id, first, last)

    async def signals(self, run_id: str) -> Sequence[Signal]:
        await self._meanwhile()
        return await super().signals(run_id)

    async def _meanwhile(self) -> None:
        before, self.before = self.before, None
        if before is not None:
            await before()
        self.before = before


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
async def test_what_goes_on_meanwhile_is_no_damage(random: Random) -> None:
    """Runs that are appended to, pruned, purged and made anew between any two looks at them."""
    store, length = Busy(), 700
    chains = [counting("run", length, keyframes=range(0, length, each)) for each in (10, 15)]
    lease = await created(store, chains[0][:500])

    async def meanwhile() -> None:
        nonlocal lease
        what = random.choice(("append", "append", "drop", "drop", "send", "purge", "anew", "", ""))
        try:
            head = (await store.read("run")).head
            if what == "append":
                await store.append(lease, chains[0][head + 1 : head + 1 + random.choice((1, 30))])
            elif what == "drop":
                await store.drop("run", random.randrange(1, 400))
            elif what == "send":
                await store.send("run", "go", b"1")
            elif what in ("purge", "anew") and len(chains) == 2:
                del chains[0]
                await store.release(lease, "completed")
                await store.purge("run")
                if what == "anew":
                    lease = await created(store, chains[0][:300])
        except UnknownRun:
            pass

    store.before = meanwhile
    assert (await verify(store)).damages == ()


async def test_an_unknown_run_is_no_damage_but_an_error() -> None:
    """Whoever names a run wants that one."""
    with pytest.raises(UnknownRun):
        await verify(MemoryStore(), "none")


class Failing(MemoryStore):
    """Cannot give the versions in `bad`, nor list its runs if `lists` is False."""

    bad: Sequence[int] = ()
    lists = True
    error: StoreError = StoreFailed("here", "reading", "of a test")

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        found = await super().versions(run_id, first, last)
        if any(version.seq in self.bad for version in found):
            raise self.error
        return found

    async def find(self, *args: object) -> object:  # type: ignore[override]
        if not self.lists:
            raise self.error
        return await super().find(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [(0,), (149,), (3, 4, 100), tuple(range(150))])
async def test_versions_that_cannot_be_read_are_found_one_by_one(bad: tuple[int, ...]) -> None:
    """They are named, and all others are read; none is called missing."""
    store = Failing()
    await keep(store, counting("run", 150, keyframes=(0, 50)))
    store.bad = bad
    found = await verify(store)
    assert [damage.version for damage in found.damages] == [f"run@{seq}" for seq in bad]
    assert found.versions == 150 - len(bad)


async def test_a_list_that_cannot_be_read_is_named() -> None:
    """Which runs there are is then not known."""
    store = Failing()
    await keep(store, counting("run", 3))
    store.lists = False
    (damage,) = (await verify(store)).damages
    assert (damage.run_id, damage.version) == (None, None)
    assert str(damage).startswith("the list of runs: the runs from here on cannot be listed")


@pytest.mark.parametrize("error", [StoreBusy("here", 5), StoreClosed("here")])
async def test_a_store_that_cannot_be_asked_is_not_called_damaged(error: StoreError) -> None:
    """What is said of it then would not be true."""
    store = Failing()
    await keep(store, counting("run", 3))
    store.bad, store.error = (1,), error
    with pytest.raises(type(error)):
        await verify(store)


@pytest.mark.parametrize("wrap", [lambda s: EncryptedStore(s, {"k": bytes(32)}), lambda s: SignedStore(s, bytes(32))])
async def test_what_a_wrapper_stores_is_verified_without_its_key(wrap: Callable[[MemoryStore], Wrapper]) -> None:
    """Digests and numbers are those of what is stored; a damage is named from without as from within."""
    inner = MemoryStore()
    await keep(wrap(inner), Drawn(Random(1), LENGTH).versions)
    assert await verify(inner) == await verify(wrap(inner)) == Verified(1, LENGTH, ())
    rows = inner._kept["run"].versions
    rows[5] = rows[5]._replace(body=rows[5].body + b"x")
    for store in (inner, wrap(inner)):
        assert [damage.version for damage in (await verify(store)).damages] == ["run@5"]


async def test_runs_whose_rows_are_damaged_do_not_hide_others(tmp_path: Path) -> None:
    """Wherever in the list they stand, first, last, or one after the other."""
    path, count = tmp_path / "runs.db", 120
    async with SqliteStore(path) as store:
        for number in range(count):
            await keep(store, counting(f"run-{number}", 2))
    bad = [0, 5, 6, 99, 100, 118, 119]
    for number in bad:
        change(path, "UPDATE flowneer_runs SET tags = '7' WHERE run_id = :run", run=f"run-{number}")
    found = await verified(path)
    assert {damage.run_id for damage in found.damages} == {f"run-{number}" for number in bad}
    assert (found.runs, found.versions, len(found.damages)) == (count, 2 * count, len(bad))


async def test_a_page_is_small_where_states_are_large() -> None:
    """So that what is in memory at a time does not grow with the chain."""
    asked: list[int] = []

    class Counting(MemoryStore):
        async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
            found = await super().versions(run_id, first, last)
            asked.append(sum(len(version.body) for version in found))
            return found

    store = Counting()
    big = [version.body + b" " * 100_000 for version in counting("run", 400)]
    head, versions = Head("run"), list[Version]()
    for body in big:
        version, head = grow(head, body.replace(b'"n":', b'"n":10000', 1), not head.seq + 1, 0, "", 1)
        versions.append(version)
    await created(store, versions)
    await verify(store)
    assert max(asked[1:]) <= 4_000_000 < sum(asked)
