"""The differ, beside one serialisation of the same state."""

from collections.abc import AsyncIterator
from random import Random

import orjson

from benchmarks.data import State, keyed, records
from benchmarks.figure import Figure, Pairs, times
from benchmarks.flows import Change
from benchmarks.measure import Scale, by_turns, timed
from flowneer_async.differ import Mirror
from flowneer_async.encoding import JSON


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    keys = keyed(Random(1), scale.megabyte)
    yield times("1 MB in 20 keys, a counter changed", await _measured(keys, _count, scale), 1.2)
    big: State = {"records": records(Random(2), scale.megabyte)}
    random = Random(3)
    anywhere = await _measured(big, lambda state: _restock(state, random), scale)
    yield times("one number in a 1 MB value, anywhere", anywhere, 1.5)
    yield times("the same, in the middle", await _measured(big, _restock_middle, scale))


async def _measured(state: State, change: Change, scale: Scale) -> Pairs:
    mirror = Mirror(JSON)
    mirror.advance(state)

    async def ours() -> float:
        change(state)
        return timed(lambda: mirror.advance(state))

    async def peer() -> float:
        return timed(lambda: orjson.dumps(state))

    return await by_turns(ours, peer, scale)


def _count(state: State) -> None:
    state["counter"] += 1


def _restock(state: State, random: Random) -> None:
    random.choice(state["records"])["stock"] += 1


def _restock_middle(state: State) -> None:
    # The farthest from both ends, hence the worst place.
    state["records"][len(state["records"]) // 2]["stock"] += 1
