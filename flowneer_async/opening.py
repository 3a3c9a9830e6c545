"""How a run begins: a new one, one that goes on, one that is finished, or a fork."""

# A store of the user's may give anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from inspect import isawaitable
from typing import Any, NamedTuple, cast

from flowneer_async.answers import Answer
from flowneer_async.cursor import decode, quoted, static
from flowneer_async.differ import Mirror
from flowneer_async.encoding import Codec
from flowneer_async.entries import EntryJournal, resolve_entry
from flowneer_async.errors import (
    BadName,
    BadOption,
    BadState,
    BrokenChain,
    FlowChanged,
    FlowneerError,
    ForeignRun,
    RunBusy,
    StateMissing,
    StateTypeUnknown,
)
from flowneer_async.finding import renamed, renamed_facts
from flowneer_async.journal import ChainJournal, Kept, MirrorJournal, root
from flowneer_async.memory import Memory, split
from flowneer_async.passed import before, check_known, check_passed
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.resuming import ResumePlan, done_in, planned
from flowneer_async.state import DICT, Shape, named_types, shape_of
from flowneer_async.store import Lease, VersionedCheckpointStore, VersionStore
from flowneer_async.versions import (
    ROOT,
    Head,
    Run,
    Snapshot,
    Status,
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
    """A run that goes on after the position `at`, with `state`, kept by `journal`."""

    run_id: str
    at: str
    state: Any
    shape: Shape
    codec: Codec
    memory: Memory
    journal: Kept | None = None
    step_index: int = ROOT
    finished_at: str | None = None
    """The last version of a run that is complete already."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A version of a stored run, and the JSON of the state it stood for."""

    run: Run
    chain: Sequence[Version]
    texts: dict[str, bytes]
    facts: dict[str, bytes]

    @property
    def version(self) -> str:
        return self.chain[-1].id

    @property
    def at(self) -> str:
        return self.chain[-1].path

    @property
    def step_index(self) -> int:
        return self.chain[-1].step_index


class _Start(NamedTuple):
    """What a run goes on from."""

    at: str
    mirror: Mirror
    memory: Memory
    state: object
    step_index: int = ROOT
    migrated: bool = False


@cache
def codec_of(kind: type, others: tuple[type, ...]) -> Codec:
    """What reads and writes states of this type, and of the others that may stand in it."""
    shapes, enums = named_types(kind)
    for other in others:
        more_shapes, more_enums = named_types(other)
        shapes, enums = {**more_shapes, **shapes}, {**more_enums, **enums}
    return Codec(shapes, enums)


class Opening:
    """Finds out how one call of `run` begins, and takes the lease that it needs."""

    def __init__(
        self,
        plan: Plan[Any],
        state: object,
        run_id: str | None,
        world: World,
        *,
        mirrors: bool = False,
        answer: Answer | None = None,
    ) -> None:
        self._plan, self._state, self._world = plan, state, world
        self._run_id = None if run_id is None else check_run_id(run_id)
        self._shape = self._shape_wanted()
        self._codec = codec_of(plan.state_type or self._shape.type, plan.schemas)
        self._mirrors, self._answer = mirrors or plan.goes_back, answer
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
        start = self._begun()
        journal = MirrorJournal(start.mirror, self._shape, start.memory) if self._mirrors else None
        return self._opened(run_id, start, journal)

    async def check_signal(self, run_id: str) -> None:
        """Raises UnknownRun, ForeignRun, StateTypeUnknown."""
        assert self._plan.store is not None
        self._checked(await self._plan.store.read(run_id))

    async def snapshot(self, version: str) -> Snapshot[Any]:
        """The state that a version of a run of this flow stood for; raises UnknownVersion, ForeignRun and the like."""
        store = self._plan.store
        assert store is not None
        run_id, _ = parse_version_id(version)
        stored = await self._stored(store, self._checked(await store.read(run_id)), version)
        return Snapshot(stored.step_index, self._build(Mirror(self._codec, stored.texts)))

    async def preview(self, run_id: str) -> ResumePlan:
        """What `open` would find; takes no lease. Raises UnknownRun."""
        store = self._plan.store
        assert store is not None
        run = await store.read(run_id)
        version = version_id(run_id, max(run.head, 0))
        try:
            stored = await self._stored(store, self._checked(run), version)
            done = await self._done(store, run, stored.at)
            if run.status == "completed":
                return ResumePlan(run_id, run.status, version, done)
            start = await self._start(stored)
        except FlowneerError as reason:
            return ResumePlan(run_id, run.status, version, reason=reason)
        found = ResumePlan(run_id, run.status, version)
        return planned(found, self._plan.body, done, start.memory, start.at)

    async def _done(self, store: VersionStore, run: Run, at: str) -> tuple[str, ...]:
        """The steps that a run has done, as far as its versions tell."""
        body, paths = self._plan.body, self._plan.paths
        found = done_in(paths, [renamed(body, version.path) for version in await store.versions(run.run_id)])
        if self._plan.keeps is None and not self._plan.skip_unchanged:
            return found
        passed = before(static(decode(at)), paths)  # among them steps that have made no version
        return tuple(path for path in paths if path in found or path in passed)

    async def abandon(self, status: Status) -> None:
        """Give back the lease of a run that did not come to begin."""
        if self._lease is not None and self._plan.store is not None:
            await self._plan.store.release(self._lease, status)

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

    def _opened(self, run_id: str, start: _Start, journal: Kept | None = None) -> Opened:
        return Opened(run_id, start.at, start.state, self._shape, self._codec, start.memory, journal)

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
        start = await self._start(origin)
        now, plan = self._world.now(), self._plan
        run = Run(run_id, plan.name, self._shape.type.__qualname__, plan.steps, created=now, updated=now)
        fork_of = None if origin is None else origin.version
        start.memory.begin_fork()
        if start.migrated:
            start.mirror.advance(self._shape.items(start.state))
        version, head = root(Head(run_id), start.mirror, start.memory, start.step_index, start.at, now, fork_of)
        self._lease = await store.create(run, (version,))
        if self._lease is None:
            return await self._go_on(store, run_id, origin)
        return self._opened(run_id, start, self._journal(store, self._lease, head, start))

    async def _go_on(self, store: VersionStore, run_id: str, origin: _Stored | None) -> Opened:
        for _ in range(_TRIES):
            run = self._checked(await store.read(run_id))
            try:
                return await self._go_on_from(store, run, origin)
            except RunBusy as busy:
                if busy.owner is not None:
                    raise
        raise RunBusy(run_id, None)

    async def _go_on_from(self, store: VersionStore, run: Run, origin: _Stored | None) -> Opened:
        if run.head < 0:
            raise BrokenChain(version_id(run.run_id, 0), version_id(run.run_id, 0))
        if origin is not None:
            await _check_fork(store, run.run_id, origin.version)
        stored = await self._stored(store, run, version_id(run.run_id, run.head))
        if run.status == "completed":
            mirror = Mirror(self._codec, stored.texts)
            if self._answer is not None:
                self._answer.give(run.run_id, Memory(self._codec), self._plan.body)
            done = _Start(stored.at, mirror, Memory(self._codec, stored.facts), self._build(mirror))
            return replace(self._opened(run.run_id, done), finished_at=stored.version)
        start = await self._start(stored)
        asking = None if self._answer is None else self._answer.give(run.run_id, start.memory, self._plan.body)
        # A migration is done when its version is stored, which also has the steps from there on: those of the run are
        # the ones that its versions before that were made by.
        keeps = start.migrated or start.memory.has("", "steps")
        self._lease = await store.claim(run if keeps else replace(run, steps=self._plan.steps))
        journal = self._journal(store, self._lease, head_of(stored.chain), start)
        if start.migrated:
            start.memory.put("", "steps", list(self._plan.steps), "steps")
            await journal.migrate(start.step_index, start.at, start.state)
            await journal.flush()
        if asking is not None:
            await journal.note(start.step_index, f"{asking}/@answer")
            await journal.flush()
        return replace(self._opened(run.run_id, start, journal), step_index=start.step_index)

    async def _start(self, stored: _Stored | None) -> _Start:
        """From a stored version, or else from the state given."""
        if stored is None:
            return self._begun()
        mirror = Mirror(self._codec, stored.texts)
        memory = Memory(self._codec, stored.facts)
        if self._plan.has_aliases:
            memory.become(renamed_facts(self._plan.body, stored.facts))
        start = _Start(stored.at, mirror, memory, self._build(mirror), stored.step_index)
        try:
            for at in (stored.at, *start.memory.positions()):
                check_passed(stored.run, self._plan.steps, at)
                check_known(stored.run, self._plan.body, self._plan.steps, at)
        except FlowChanged as change:
            if self._plan.migrate is None:
                raise
            return await self._migrated(start, change)
        if start.memory.has("", "steps"):
            start.memory.put("", "steps", list(self._plan.steps), "steps")
        return start

    async def _migrated(self, start: _Start, change: FlowChanged) -> _Start:
        """The start that the flow's own migration finds; raises FlowChanged where it names no step."""
        assert self._plan.migrate is not None
        answer = self._plan.migrate(start.state, change)
        name: object = await answer if isawaitable(answer) else answer
        body = self._plan.body
        if not isinstance(name, str) or (name and name not in body.steps):
            shown = name if isinstance(name, str) else f"a {type(name).__qualname__}"
            raise BadOption("migrate", shown, "it gives the name of a step of the flow, or ''") from change
        index = body.position[name] if name else ROOT
        start.memory.forget_positions()
        return start._replace(at=quoted(name), step_index=index, migrated=True)

    def _begun(self) -> _Start:
        mirror, state = Mirror(self._codec), self._given()
        if self._plan.store is not None or self._plan.entries is not None or self._mirrors:
            mirror.advance(self._shape.items(state))
        return _Start("", mirror, Memory(self._codec), state)

    async def _stored(self, store: VersionStore, run: Run, version: str) -> _Stored:
        """A version, with the names that the steps have now."""
        chain = await store.chain(version)
        texts, facts = split(resolved(version, chain))
        body = self._plan.body
        steps = Memory(self._codec, facts).get("", "steps")
        if steps is not None:
            # The steps at the last migration: what was stored of the run itself may be older, or newer.
            run = replace(run, steps=tuple(cast(list[str], steps)))
        if not self._plan.has_aliases:
            return _Stored(run, chain, texts, facts)
        last = chain[-1]._replace(path=renamed(body, chain[-1].path))
        run = replace(run, steps=tuple(renamed(body, path) for path in run.steps))
        return _Stored(run, (*chain[:-1], last), texts, facts)

    def _checked(self, run: Run) -> Run:
        if run.flow != self._plan.name:
            raise ForeignRun(run.run_id, run.flow, self._plan.name)
        if self._shape is DICT and run.state_type != DICT.type.__qualname__:
            raise StateTypeUnknown(run.state_type)
        return run

    def _build(self, mirror: Mirror) -> object:
        return self._shape.build({key: self._codec.load(text) for key, text in mirror.texts.items()})

    def _journal(self, store: VersionStore, lease: Lease, head: Head, start: _Start) -> ChainJournal:
        plan = self._plan
        return ChainJournal(plan, store, lease, head, start.mirror, start.memory, self._shape, self._world)

    # A store of two methods -------------------------------------------------------------------------------------------

    async def _open_entries(self, store: VersionedCheckpointStore) -> Opened:
        run_id = self._run_id or self._world.new_run_id()
        if self._plan.resumes is None:
            start = self._begun()
            journal = self._entry_journal(store, run_id, start)
            await journal.begin()
            return self._opened(run_id, start, journal)
        snapshot = await resolve_entry(store, self._plan.resumes)
        order = self._plan.body.order
        if snapshot.step_index >= len(order):
            raise FlowChanged(self._plan.resumes, [f"step number {snapshot.step_index}"], self._plan.paths)
        at = "" if snapshot.step_index < 0 else order[snapshot.step_index].quoted
        mirror = Mirror(self._codec)
        # Through JSON, so that the run works on a copy, and never on what the store holds.
        mirror.advance(snapshot.state)
        start = _Start(at, mirror, Memory(self._codec), self._build(mirror))
        return self._opened(run_id, start, self._entry_journal(store, run_id, start))

    def _entry_journal(self, store: VersionedCheckpointStore, run_id: str, start: _Start) -> EntryJournal:
        return EntryJournal(self._plan, store, run_id, self._plan.resumes, start.mirror, self._shape, self._world)


async def _check_fork(store: VersionStore, run_id: str, version: str) -> None:
    """Is the run of this id a fork of that version?"""
    (first,) = await store.chain(version_id(run_id, 0))
    if first.fork_of != version:
        raise BadName("fork", run_id, f"the run of this id is no fork of {version!r}")
