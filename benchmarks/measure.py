"""How things are measured: two by turns, and what needs a process of its own in one."""

from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from time import perf_counter
from typing import TypeAlias, TypeVar

from benchmarks.figure import KB, MB, Pairs

T = TypeVar("T")
R = TypeVar("R")

Measure: TypeAlias = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    steps: int = 1_000
    many: int = 10_000
    flows: int = 200
    pooled: int = 64
    """Flows at once that share the connections to a server."""
    runs: int = 1_000
    """At work at the same time in one engine."""
    peers: int = 20
    """The same, where an engine of others is the peer."""
    sleeping: int = 100_000
    """Runs that nobody works on."""
    requests: int = 640
    connections: int = 32
    """Over so many connections at once requests come in."""
    megabyte: int = MB
    rounds: int = 5
    """At least so many of each figure."""
    seconds: float = 0.6
    """As many more rounds as this leaves time for."""


FULL = Scale()
QUICK = Scale(
    steps=5,
    many=50,
    flows=3,
    pooled=3,
    runs=3,
    peers=2,
    sleeping=20,
    requests=4,
    connections=2,
    megabyte=20 * KB,
    rounds=1,
    seconds=0.0,
)
"""The least that still goes through every line."""


async def by_turns(ours: Measure, peer: Measure, scale: Scale) -> Pairs:
    """Both by turns, A B A B …; each gives the seconds that it took. The first round only warms up."""
    await ours()
    await peer()
    pairs = Pairs([], [])
    end = perf_counter() + scale.seconds
    while len(pairs.ours) < scale.rounds or perf_counter() < end:
        pairs.ours.append(await ours())
        pairs.peer.append(await peer())
    return pairs


def timed(work: Callable[[], object]) -> float:
    """The seconds that one call takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


async def awaited(work: Awaitable[object]) -> float:
    """The same of something awaited."""
    start = perf_counter()
    await work
    return perf_counter() - start


def apart(work: Callable[[T], R], cases: Iterable[T], *, each_in_its_own: bool = False) -> list[R]:
    """`work` on each case in two other processes, or in a fresh one each: for what is not timed."""
    with ProcessPoolExecutor(2, get_context("spawn"), max_tasks_per_child=1 if each_in_its_own else None) as processes:
        return list(processes.map(work, cases))
