"""Long chains of several shapes, each made by a run that saves behind itself, as fast as it can."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.data import State, keyed, text, tree
from benchmarks.flows import Change, change, row_of, small_state
from benchmarks.measure import Scale
from flowneer_stores import SqliteStore

RUN = "chain"


@dataclass(frozen=True, slots=True)
class Shape:
    """A state, of a given size where it does not grow, and what each step does to it."""

    state: Callable[[Random, int], State]
    change: Callable[[State, Random], None]

    def changes(self, random: Random) -> Change:
        return lambda state: self.change(state, random)


def build(scale: Scale, case: tuple[str, Path]) -> None:
    """A file with a chain of the named shape in it."""
    name, path = case
    asyncio.run(_run(SHAPES[name], scale, path))


async def _run(shape: Shape, scale: Scale, path: Path) -> None:
    random = Random(1)
    flow = row_of(change, scale.many)
    async with SqliteStore(path) as store:
        kept = flow.with_versioned_checkpoint(store, durability="async")
        await kept.run(shape.state(random, scale.megabyte), run_id=RUN, deps=shape.changes(random))


def _small(_random: Random, _size: int) -> State:
    return small_state()


def _empty(_random: Random, _size: int) -> State:
    return {"items": [], "text": ""}


def _count(state: State, _random: Random) -> None:
    state["counter"] += 1


def _append(state: State, random: Random) -> None:
    state["items"].append(_entry(state, random))


def _put_first(state: State, random: Random) -> None:
    state["items"].insert(0, _entry(state, random))


def _entry(state: State, random: Random) -> State:
    """About 100 bytes of JSON."""
    return {"id": len(state["items"]), "name": text(random, 40), "price": random.random()}


def _restock(state: State, random: Random) -> None:
    shops = random.choice(list(state["regions"].values()))["shops"]
    random.choice(random.choice(list(shops.values()))["stock"]["items"])["stock"] += 1


def _say(state: State, random: Random) -> None:
    state["text"] += text(random, 90)


def _nothing(_state: State, _random: Random) -> None:
    pass


SHAPES = {
    "a small counter": Shape(_small, _count),
    "1 MB and a counter": Shape(keyed, _count),
    "a list that grows": Shape(_empty, _append),
    "a list that grows at its front": Shape(_empty, _put_first),
    "a number deep in 1 MB": Shape(lambda random, size: {"regions": tree(random, size)}, _restock),
    "a text that grows": Shape(_empty, _say),
    "markers only": Shape(_small, _nothing),
}
