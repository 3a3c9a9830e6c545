"""Moving a run from one store to another, or out of a store as lines of JSON, and into one again."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeAlias

from flowneer_async.errors import (
    BadExport,
    BrokenChain,
    CorruptVersion,
    HalfCopied,
    RunBusy,
    RunExists,
    StoreError,
    UnknownVersion,
)
from flowneer_async.exporting import End, Reader, Writer
from flowneer_async.links import Links
from flowneer_async.paging import pages
from flowneer_async.shield import complete
from flowneer_async.store import Lease, VersionStore
from flowneer_async.versions import HALF, Run, Signal, Version, is_half, version_id

Part: TypeAlias = Run | Version | Signal | End

_MOST_ROWS = 256
_MOST_BYTES = 4_000_000


async def copy_run(run_id: str, source: VersionStore, target: VersionStore) -> None:
    """Copy a run as it is stored, with its versions and signals, from one store to another, where it goes on as here.

    A run that somebody owns is copied as far as it had come. Nobody owns the copy, and its epoch is the target's. All
    of it comes into the target, or nothing: a copy that was cut off by the death of its process cannot be run, and is
    replaced by the next one. Raises UnknownRun, RunExists, RunBusy (another copy is being made), CorruptVersion,
    BrokenChain, and UnknownVersion where the run was pruned meanwhile.
    """
    run = await _stored(source, run_id)
    async with _Arrival(target, run) as arrival, aclosing(_versions(source, run)) as versions:
        async for version in versions:
            await arrival.add(version)
        await arrival.end(await source.signals(run_id))


async def export_run(store: VersionStore, run_id: str) -> AsyncGenerator[bytes, None]:
    """A run as lines of JSON, each with its line end, from which `import_run` makes the same run.

    Raises UnknownRun, CorruptVersion, BrokenChain, and UnknownVersion where the run was pruned meanwhile.
    """
    run = await _stored(store, run_id)
    writer, links = Writer(), Links(run_id, run.first, run)
    yield writer.write(run)
    async with aclosing(_versions(store, run)) as versions:
        async for version in versions:
            _check(links, version)
            yield writer.write(version)
    signals = await store.signals(run_id)
    for signal in signals:
        yield writer.write(signal)
    yield writer.write(End(run.head + 1 - run.first, len(signals)))


async def import_run(store: VersionStore, lines: Iterable[bytes] | AsyncIterable[bytes]) -> str:
    """Make the run that `export_run` has written, also an open binary file, and give its id; all of it, or nothing.

    Raises BadExport, which names the line that was changed, is missing or does not fit, RunExists and RunBusy.
    """
    reader = Reader()
    async with aclosing(_parts(reader, lines)) as parts:
        run = await anext(parts, None)
        if not isinstance(run, Run):
            raise BadExport(1, "it does not say which run this is")
        async with _Arrival(store, run) as arrival:
            await _arrive(arrival, reader, parts)
    return run.run_id


async def _parts(reader: Reader, lines: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncGenerator[Part, None]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield reader.read(line)
    else:
        for line in lines:
            yield reader.read(line)


async def _arrive(arrival: "_Arrival", reader: Reader, parts: AsyncGenerator[Part, None]) -> None:
    signals: list[Signal] = []
    end: End | None = None
    async for part in parts:
        if isinstance(part, Version) and not signals and end is None:
            try:
                await arrival.add(part)
            except (CorruptVersion, BrokenChain) as error:
                raise reader.bad(str(error)) from error
        elif isinstance(part, Signal) and part.number == len(signals) + 1 and end is None:
            signals.append(part)
        elif isinstance(part, End) and part == (arrival.versions, len(signals)) and arrival.is_whole and end is None:
            end = part
        else:
            raise reader.bad("it does not follow the line before it")
    if end is None:
        raise BadExport(reader.number + 1, "it is missing, and with it the end")
    await arrival.end(signals)


async def _stored(store: VersionStore, run_id: str) -> Run:
    run = await store.read(run_id)
    if is_half(run):
        raise HalfCopied(run_id)
    return run


async def _versions(store: VersionStore, run: Run) -> AsyncGenerator[Version, None]:
    """The versions of a run up to the head that it had, all of them."""
    expected = run.first
    async with aclosing(pages(store, run.run_id, run.first, run.head)) as found:
        async for page in found:
            if page[0].seq != expected:
                break
            for version in page:
                yield version
            expected = page[-1].seq + 1
    if expected <= run.head:
        missing = version_id(run.run_id, expected)
        pruned = (await store.read(run.run_id)).first > expected
        raise UnknownVersion(missing) if pruned else BrokenChain(version_id(run.run_id, run.head), missing)


def _check(links: Links, version: Version) -> None:
    if version.seq != links.expected:
        raise BrokenChain(version.id, version_id(version.run_id, links.expected))
    reason = links.check(version)
    if reason is not None:
        raise CorruptVersion(version.id, reason)


class _Arrival:
    """A run that comes into a store: half a copy, until all of it is there."""

    def __init__(self, store: VersionStore, run: Run) -> None:
        self._store, self._run = store, run
        self._links = Links(run.run_id, run.first, run)
        self._rows: list[Version] = []
        self._bytes = 0
        self._lease: Lease | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lease is not None:
            await complete(self._undo(self._lease))

    @property
    def versions(self) -> int:
        """How many versions have come."""
        return self._links.expected - self._run.first

    @property
    def is_whole(self) -> bool:
        """Are these all versions?"""
        return self._links.expected == self._run.head + 1

    async def add(self, version: Version) -> None:
        """The next version; raises CorruptVersion, BrokenChain where it is not."""
        _check(self._links, version)
        self._rows.append(version)
        self._bytes += len(version.body)
        if len(self._rows) >= _MOST_ROWS or self._bytes >= _MOST_BYTES:
            await self._store_rows()

    async def end(self, signals: Sequence[Signal]) -> None:
        """Nothing more comes but these: from now on it is a run."""
        lease, run = await self._store_rows(), self._run
        for signal in signals:
            await self._store.send(run.run_id, signal.name, signal.payload, signal.sent)
        self._lease = None
        await complete(self._store.release(lease, run.status, run.error, run.seal))

    async def _store_rows(self) -> Lease:
        rows, self._rows, self._bytes = self._rows, [], 0
        if self._lease is None:
            # A lease that comes when nobody waits for it any more is given back, too.
            await complete(self._begin(rows))
        elif rows:
            await self._store.append(self._lease, rows)
        assert self._lease is not None
        return self._lease

    async def _begin(self, rows: Sequence[Version]) -> None:
        half = replace(self._run, status="failed", error=None, seal=HALF)
        self._lease = await self._store.create(half, rows)
        if self._lease is None and is_half(await self._store.read(half.run_id)):
            await self._store.purge(half.run_id)  # it was left behind, or it is owned, and RunBusy
            self._lease = await self._store.create(half, rows)
        if self._lease is None:
            raise RunExists(half.run_id)

    async def _undo(self, lease: Lease) -> None:
        with suppress(StoreError, RunBusy):  # then half a copy is left, which is none to be run
            await self._store.release(lease, "failed", None, HALF)
            if is_half(await self._store.read(lease.run_id)):
                await self._store.purge(lease.run_id)
