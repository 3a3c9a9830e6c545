"""Resolving a version of a long chain, beside loading the same state from one row."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import aiosqlite
import orjson

from benchmarks import bare
from benchmarks.chains import RUN, SHAPES, build
from benchmarks.data import State
from benchmarks.figure import Figure, Pairs, times
from benchmarks.measure import Scale, apart, awaited, by_turns
from flowneer_async.versions import version_id
from flowneer_stores import SqliteStore

MOST = 3


async def figures(scale: Scale) -> AsyncIterator[Figure]:
    with TemporaryDirectory(prefix="bench-") as folder:
        paths = [Path(folder, f"{number}.db") for number in range(len(SHAPES))]
        apart(partial(build, scale), list(zip(SHAPES, paths, strict=True)))
        for name, path in zip(SHAPES, paths, strict=True):
            async with SqliteStore(path) as store:
                async for figure in _of_chain(name, store, path, scale):
                    yield figure


async def _of_chain(name: str, store: SqliteStore, path: Path, scale: Scale) -> AsyncIterator[Figure]:
    """The head of a short chain, that of a long one, and its dearest version: the last before a keyframe."""
    for seq in (scale.steps, scale.many):
        yield times(f"{name}, {seq:,} versions", await _measured(store, seq, path, scale), MOST)
    base = (await store.chain(version_id(RUN, scale.many)))[0].seq
    if base:
        yield times(f"{name}, just before a keyframe", await _measured(store, base - 1, path, scale), MOST)


async def _measured(store: SqliteStore, seq: int, path: Path, scale: Scale) -> Pairs:
    version = version_id(RUN, seq)
    state = (await store.resolve(version)).state
    async with bare.opened(path.with_suffix(f".{seq}")) as db:
        await db.execute(bare.INSERT, (0, 0, orjson.dumps(state)))
        assert await _load(db) == state
        return await by_turns(lambda: awaited(store.resolve(version)), lambda: awaited(_load(db)), scale)


async def _load(db: aiosqlite.Connection) -> State:
    ((body,),) = await db.execute_fetchall("SELECT body FROM rows WHERE run = 0 AND seq = 0")
    state: State = orjson.loads(body)
    return state
