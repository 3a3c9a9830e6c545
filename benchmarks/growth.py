"""How large the file becomes."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import orjson

from benchmarks.data import State, keyed, text
from benchmarks.figure import KB, MB, Figure, size
from benchmarks.flows import Change, change, row_of
from benchmarks.measure import Scale
from flowneer_async import FlowBuilder
from flowneer_stores import SqliteStore


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    flow = row_of(change, scale.steps)
    async for figure in _list(flow, scale):
        yield figure
    yield await _counter(flow, scale)


async def _list(flow: FlowBuilder[State], scale: Scale) -> AsyncIterator[Figure]:
    random = Random(1)
    closed, peak = await _run(flow, {"items": []}, lambda state: state["items"].append(_kilobyte(random)))
    each, most = closed / scale.steps, peak / scale.steps
    data = f"{size(KB)} of data"
    yield Figure("a list, 1 KB more a step", f"{size(each)} a step", data, each / KB, "≤ 1.3 KB", each <= 1.3 * KB)
    yield Figure("the same, peak of file and WAL", f"{size(most)} a step", data, most / KB)


async def _counter(flow: FlowBuilder[State], scale: Scale) -> Figure:
    state = keyed(Random(2), scale.megabyte)
    first = len(orjson.dumps(state))
    closed, _ = await _run(flow, state, _count)
    name = f"1 MB and a counter, {scale.steps:,} steps"
    return Figure(name, size(closed), f"{size(first)} of state", closed / first, "≤ 3 MB", closed <= 3 * MB)


async def _run(flow: FlowBuilder[State], state: State, do: Change) -> tuple[int, int]:
    """The bytes of the file once it is closed, and the most that all its files had while it was open."""
    with TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder, "bench.db")
        most = await _peak(flow, state, do, path)
        return _size(path), most


async def _peak(flow: FlowBuilder[State], state: State, do: Change, path: Path) -> int:
    files = (path, path.with_name(path.name + "-wal"))
    most = 0

    def do_and_look(state: State) -> None:
        nonlocal most
        do(state)
        most = max(most, sum(map(_size, files)))

    async with SqliteStore(path) as store:
        await flow.with_versioned_checkpoint(store).run(state, deps=do_and_look)
    return most


def _size(path: Path) -> int:
    return path.stat().st_size


def _kilobyte(random: Random) -> str:
    """A text that adds exactly 1 KB of JSON to a list: quotes and comma included."""
    found = text(random, KB)
    while len(orjson.dumps(found)) + 1 > KB:
        found = found[:-1]
    return found + "." * (KB - 1 - len(orjson.dumps(found)))


def _count(state: State) -> None:
    state["counter"] += 1
