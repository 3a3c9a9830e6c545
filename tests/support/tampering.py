"""What somebody can do who writes to the database itself, done to a MemoryStore."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from flowneer_async import Run, Signal, Version, VersionStore
from flowneer_async.testing.chains import chain_of, new_run
from flowneer_async.versions import digest_of
from flowneer_stores import MemoryStore

RUNS = ("one", "two")
BODIES = [b'{"set":{"n":1}}\n%d' % number for number in range(8)]
KEYFRAMES = (0, 3, 6)
_DIGEST = 16


def kept_versions(store: MemoryStore, run_id: str) -> list[Version]:
    """The rows of a run, to be changed."""
    return store._kept[run_id].versions


def kept_signals(store: MemoryStore, run_id: str) -> list[Signal]:
    """The signals of a run, to be changed."""
    return store._kept[run_id].signals


def change_run(store: MemoryStore, run_id: str, /, **fields: Any) -> None:
    """Write something else over what is known of a run."""
    kept = store._kept[run_id]
    kept.run = replace(kept.run, **fields)


def kept_run(store: MemoryStore, run_id: str) -> Run:
    """What is known of a run, as it is stored."""
    return store._kept[run_id].run


async def fill(store: VersionStore, bodies: Sequence[bytes] = BODIES) -> dict[str, list[Version]]:
    """Two runs with eight versions and two signals each, through a store; gives what was stored, by run id."""
    stored = {run_id: chain_of(run_id, bodies, KEYFRAMES) for run_id in RUNS}
    for run_id, versions in stored.items():
        lease = await store.create(new_run(run_id), versions[:1])
        assert lease is not None
        await store.append(lease, versions[1:2])
        await store.append(lease, versions[2:])
        for name in ("go", "go"):
            await store.send(run_id, name, b"1")
        await store.release(lease, "completed")
    return stored


def relinked(rows: Sequence[Version], run_id: str) -> list[Version]:
    """These rows as a chain of the run that looks right: numbers, keyframes and unkeyed digests are made anew."""
    made = list[Version]()
    digest, base = b"", 0
    for seq, row in enumerate(rows):
        base = seq if row.is_keyframe or not made else base
        place = (run_id, seq, base, *row[3:7])
        parent_digest = digest if base == seq else b""
        digest = digest_of(digest, *place, row.body)
        made.append(Version(*place, row.body, parent_digest, digest + row.digest[_DIGEST:]))
    return made


def rehashed(rows: Sequence[Version]) -> list[Version]:
    """The same rows, with unkeyed digests that fit what they hold now."""
    made, digest = list[Version](), b""
    for row in rows:
        parent_digest, before = (digest if row.is_keyframe else row.parent_digest), digest
        digest = digest_of(before, *row[:8])
        made.append(row._replace(parent_digest=parent_digest, digest=digest + row.digest[_DIGEST:]))
    return made


@st.composite
def flips(draw: st.DrawFn, length: int = len(BODIES)) -> tuple[int, str, int]:
    """Which row, which field of it, and which bit."""
    return draw(st.integers(0, length - 1)), draw(st.sampled_from(Version._fields)), draw(st.integers(0, 10**6))


def flipped(row: Version, field: str, bit: int) -> Version:
    """The row with one bit of a field changed."""
    return row._replace(**{field: flip(getattr(row, field), bit)})


def flip(value: Any, bit: int) -> Any:
    """The same value but for one bit; something where there was nothing."""
    if value is None:
        return "one@0"
    if isinstance(value, int):
        return value ^ 1 << bit % 48
    if not value:
        return type(value)(b"\1") if isinstance(value, bytes) else "\1"
    if isinstance(value, str):
        at = bit // 8 % len(value)
        return value[:at] + chr(ord(value[at]) ^ 1 << bit % 3) + value[at + 1 :]
    at = bit // 8 % len(value)
    return value[:at] + bytes([value[at] ^ 1 << bit % 8]) + value[at + 1 :]
