"""Runs and rows of versions to give to a store."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

from flowneer_async.differ import diff
from flowneer_async.store import Lease, VersionStore
from flowneer_async.versions import Head, Run, Version, grow

EARLY = 1_000_000_000_000
"""A Unix time in ms before any that a store's own clock may show."""


def body_of(**state: object) -> bytes:
    """The body of a keyframe of this state."""
    made = diff({}, state)
    return b"" if made is None else made.encode()


def new_run(run_id: str = "run") -> Run:
    """A run that no store has yet."""
    return Run(run_id, "flow", "dict", ("one", "two"), created=EARLY, updated=EARLY)


def chain_of(
    run_id: str,
    bodies: Sequence[bytes],
    keyframes: Sequence[int] = (0,),
    times: Iterable[int] | None = None,
    fork_of: str | None = None,
) -> list[Version]:
    """Versions with these bodies, from the root on, made at these times; a fork's root says where it comes from."""
    versions: list[Version] = []
    head = Head(run_id)
    for seq, (body, time) in enumerate(zip(bodies, times or count(EARLY), strict=False)):
        path, origin = (f"step{seq}", None) if seq else ("", fork_of)
        version, head = grow(head, body, seq in keyframes, seq - 1, path, time, origin)
        versions.append(version)
    return versions


def counting(
    run_id: str,
    length: int,
    keyframes: Sequence[int] = (0,),
    times: Iterable[int] | None = None,
    fork_of: str | None = None,
) -> list[Version]:
    """A chain whose version number n has the state {"n": n}."""
    return chain_of(run_id, [body_of(n=number) for number in range(length)], keyframes, times, fork_of)


@dataclass
class Owned:
    """A run that was created in `store`, and the first `stored` versions of it, of `length` that fit one another."""

    store: VersionStore
    lease: Lease
    versions: list[Version] = field(default_factory=list[Version])

    async def append(self, begin: int, end: int) -> None:
        """Append versions number `begin` up to `end`, that one left out."""
        await self.store.append(self.lease, self.versions[begin:end])


async def owned(store: VersionStore, run_id: str = "run", length: int = 6, stored: int = 1) -> Owned:
    """A new run with versions of which some are stored."""
    lease = await store.create(new_run(run_id))
    assert lease is not None
    run = Owned(store, lease, counting(run_id, length))
    if stored:
        await run.append(0, stored)
    return run


def first_kept(versions: Sequence[Version], keep: int, since: int | None = None) -> int:
    """The number of the first of these versions that `drop` leaves: all that can be told without a store."""
    numbers = [version.seq for version in versions[-max(1, keep) :]]
    numbers += [version.seq for version in versions if since is not None and version.timestamp >= since]
    return next(version.base for version in versions if version.seq == min(numbers))
