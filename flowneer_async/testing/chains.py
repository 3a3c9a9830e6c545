"""Runs and rows of versions to give to a store."""

from collections.abc import Sequence
from dataclasses import dataclass, field

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


def chain_of(run_id: str, bodies: Sequence[bytes], keyframes: Sequence[int] = (0,)) -> list[Version]:
    """Versions with these bodies, from the root on."""
    versions: list[Version] = []
    head = Head(run_id)
    for seq, body in enumerate(bodies):
        version, head = grow(head, body, seq in keyframes, seq - 1, f"step{seq}" if seq else "", EARLY + seq)
        versions.append(version)
    return versions


def counting(run_id: str, length: int, keyframes: Sequence[int] = (0,)) -> list[Version]:
    """A chain whose version number n has the state {"n": n}."""
    return chain_of(run_id, [body_of(n=number) for number in range(length)], keyframes)


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
