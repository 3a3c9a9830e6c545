"""How a run begins: a new one, one that goes on, one that is finished, or a fork."""

# A store of the user's may give anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from flowneer_async.differ import Mirror
from flowneer_async.encoding import Codec
from flowneer_async.entries import EntryJournal, resolve_entry
from flowneer_async.errors import (
    BadName,
    BadState,
    FlowChanged,
    ForeignRun,
    RunBusy,
    StateMissing,
    StateTypeUnknown,
)
from flowneer_async.journal import ChainJournal, Journal
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.state import DICT, Shape, named_types, shape_of
from flowneer_async.store import Lease, VersionedCheckpointStore, VersionStore
from flowneer_async.versions import (
    ROOT,
    Head,
    Run,
    Version,
    check_run_id,
    head_of,
    parse_version_id,
    resolved,
    version_id,
)

_TRIES = 3  # to claim a run whose owner is just finishing


@dataclass(frozen=True, slots=True)
class Opened:
    """A run that goes on at step number `position`, with `state`, kept by `journal`."""

    run_id: str
    position: int
    state: Any
    shape: Shape
    codec: Codec
    journal: Journal | None = None
    finished_at: str | None = None
    """The last version of a run that is complete already."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A version of a stored run, and the JSON of the state it stood for."""

    run: Run
    chain: Sequence[Version]
    texts: dict[str, bytes]

    @property
    def version(self) -> str:
        return self.chain[-1].id

    @property
    def passed(self) -> tuple[str, ...]:
        """The steps that were completed when it was made."""
        path, steps = self.chain[-1].path, self.run.steps
        return () if not path else steps[: steps.index(path) + 1] if path in steps else (path,)


class _Start(NamedTuple):
    """Where a run goes on from."""

    position: int
    mirror: Mirror
    state: object


@cache
def _codec(kind: type) -> Codec:
    return Codec(*named_types(kind))


class Opening:
    """Finds out how one call of `run` begins, and takes the lease that it needs."""

    def __init__(self, plan: Plan[Any], state: object, run_id: str | None, world: World) -> None:
        self._plan, self._state, self._world = plan, state, world
        self._run_id = None if run_id is None else check_run_id(run_id)
        self._shape = self._shape_wanted()
        self._codec = _codec(plan.state_type or self._shape.type)
        self._lease: Lease | None = None

    async def open(self) -> Opened:
        """Raises a StateError, RunError or StoreError; then nothing was begun, but `abandon` has to be called."""
        plan = self._plan
        if plan.entries is not None:
            return await self._open_entries(plan.entries)
        if plan.store is not None and plan.resumes is not None:
            return await self._resume(plan.store, plan.resumes)
        run_id = self._run_id or self._world.new_run_id()
        if plan.store is not None:
            return await self._begin(plan.store, run_id, None)
        return self._opened(run_id, 0, self._given())

    async def abandon(self) -> None:
        """Give back the lease of a run that did not come to begin."""
        if self._lease is not None and self._plan.store is not None:
            await self._plan.store.release(self._lease, "running")

    def _shape_wanted(self) -> Shape:
        wanted = None if self._plan.state_type is None else shape_of(self._plan.state_type)
        if self._state is None:
            return wanted or DICT
        given = shape_of(type(self._state))
        if wanted is not None and wanted.type is not given.type:
            raise BadState(type(self._state), f"flow {self._plan.name!r} works on {wanted.type.__qualname__}")
        if self._plan.resumes is not None:
            raise BadState(type(self._state), "a flow that resumes restores its own: call run() without one")
        return given

    def _given(self) -> object:
        if self._state is None:
            raise StateMissing(self._run_id)
        return self._state

    def _opened(self, run_id: str, position: int, state: object, journal: Journal | None = None) -> Opened:
        return Opened(run_id, position, state, self._shape, self._codec, journal)

    # A full store -----------------------------------------------------------------------------------------------------

    async def _resume(self, store: VersionStore, version: str) -> Opened:
        """The head of a run goes on as that run; any other version, or another run id, is a fork."""
        run_id, seq = parse_version_id(version)
        run = self._checked(await store.read(run_id))
        if self._run_id in (None, run_id) and seq == run.head:
            return await self._go_on(store, run_id, None)
        stored = await self._stored(store, run, version)
        if self._run_id == run_id:
            raise BadName("fork", run_id, f"it is the run that {version!r} is of, and has gone on from there")
        return await self._begin(store, self._run_id or self._world.new_run_id(), stored)

    async def _begin(self, store: VersionStore, run_id: str, origin: _Stored | None) -> Opened:
        """A new run, from the state given or as a fork; where the id is taken already, that run goes on."""
        if origin is None and self._run_id is not None and self._state is None:
            return await self._go_on(store, run_id, None)
        start = self._start(origin)
        now = self._world.now()
        plan = self._plan
        run = Run(run_id, plan.name, self._shape.type.__qualname__, plan.paths, created=now, updated=now)
        self._lease = await store.create(run)
        if self._lease is None:
            return await self._go_on(store, run_id, origin)
        return await self._with_root(store, self._lease, start, origin)

    async def _go_on(self, store: VersionStore, run_id: str, origin: _Stored | None) -> Opened:
        for _ in range(_TRIES):
            run = self._checked(await store.read(run_id))
            try:
                return await (self._go_on_from_nothing if run.head < 0 else self._go_on_from_head)(store, run, origin)
            except RunBusy as busy:
                if busy.owner is not None:
                    raise
        raise RunBusy(run_id, None)

    async def _go_on_from_nothing(self, store: VersionStore, run: Run, origin: _Stored | None) -> Opened:
        """The process that created the run died before it stored the root."""
        start = self._start(origin)
        self._lease = await store.claim(replace(run, steps=self._plan.paths))
        return await self._with_root(store, self._lease, start, origin)

    async def _go_on_from_head(self, store: VersionStore, run: Run, origin: _Stored | None) -> Opened:
        if origin is not None:
            await _check_fork(store, run.run_id, origin.version)
        stored = await self._stored(store, run, version_id(run.run_id, run.head))
        if run.status == "completed":
            state = self._build(Mirror(self._codec, stored.texts))
            done = self._opened(run.run_id, len(self._plan.order), state)
            return replace(done, finished_at=stored.version)
        start = self._start(stored)
        self._lease = await store.claim(replace(run, steps=self._plan.paths))
        journal = self._journal(store, self._lease, head_of(stored.chain), start.mirror)
        return self._opened(run.run_id, start.position, start.state, journal)

    async def _with_root(self, store: VersionStore, lease: Lease, start: _Start, origin: _Stored | None) -> Opened:
        journal = self._journal(store, lease, Head(lease.run_id), start.mirror)
        last = None if origin is None else origin.chain[-1]
        await (journal.begin(ROOT, "", None) if last is None else journal.begin(last.step_index, last.path, last.id))
        return self._opened(lease.run_id, start.position, start.state, journal)

    def _start(self, stored: _Stored | None) -> _Start:
        """From a stored version, or else from the state given."""
        if stored is not None:
            mirror = Mirror(self._codec, stored.texts)
            return _Start(self._position(stored), mirror, self._build(mirror))
        mirror, state = Mirror(self._codec), self._given()
        mirror.advance(self._shape.items(state))
        return _Start(0, mirror, state)

    async def _stored(self, store: VersionStore, run: Run, version: str) -> _Stored:
        chain = await store.chain(version)
        return _Stored(run, chain, resolved(version, chain))

    def _checked(self, run: Run) -> Run:
        if run.flow != self._plan.name:
            raise ForeignRun(run.run_id, run.flow, self._plan.name)
        if self._shape is DICT and run.state_type != DICT.type.__qualname__:
            raise StateTypeUnknown(run.state_type)
        return run

    def _position(self, stored: _Stored) -> int:
        """The index of the first step after those passed, which all have to be there still, in their order.

        Nor may one that was still to come stand before it now, for it would never be done.
        """
        paths, passed = self._plan.paths, stored.passed
        position = paths.index(passed[-1]) + 1 if passed and passed[-1] in paths else 0
        left = iter(paths)
        skipped = set(stored.run.steps).difference(passed).intersection(paths[:position])
        if skipped or not all(path in left for path in passed):
            raise FlowChanged(stored.run.run_id, passed, paths)
        return position

    def _build(self, mirror: Mirror) -> object:
        return self._shape.build({key: self._codec.load(text) for key, text in mirror.texts.items()})

    def _journal(self, store: VersionStore, lease: Lease, head: Head, mirror: Mirror) -> ChainJournal:
        return ChainJournal(self._plan, store, lease, head, mirror, self._shape, self._world)

    # A store of two methods -------------------------------------------------------------------------------------------

    async def _open_entries(self, store: VersionedCheckpointStore) -> Opened:
        run_id = self._run_id or self._world.new_run_id()
        mirror = Mirror(self._codec)
        journal = EntryJournal(self._plan, store, run_id, self._plan.resumes, mirror, self._shape, self._world)
        if self._plan.resumes is None:
            mirror.advance(self._shape.items(self._given()))
            await journal.begin()
            return self._opened(run_id, 0, self._given(), journal)
        snapshot = await resolve_entry(store, self._plan.resumes)
        position = snapshot.step_index + 1
        if position > len(self._plan.order):
            raise FlowChanged(self._plan.resumes, [f"step number {snapshot.step_index}"], self._plan.paths)
        # Through JSON, so that the run works on a copy, and never on what the store holds.
        mirror.advance(snapshot.state)
        return self._opened(run_id, position, self._build(mirror), journal)


async def _check_fork(store: VersionStore, run_id: str, version: str) -> None:
    """Is the run of this id a fork of that version?"""
    (root,) = await store.chain(version_id(run_id, 0))
    if root.fork_of != version:
        raise BadName("fork", run_id, f"the run of this id is no fork of {version!r}")
