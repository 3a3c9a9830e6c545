"""How a run begins: a new one, one that goes on, one that is finished, or a fork."""

# A store of the user's may give anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from flowneer_async.answers import Answer
from flowneer_async.chain import ChainJournal, root
from flowneer_async.control import End
from flowneer_async.differ import Mirror
from flowneer_async.encoding import Codec
from flowneer_async.entries import EntryJournal, resolve_entry
from flowneer_async.errors import (
    BadName,
    BadState,
    BrokenChain,
    FlowChanged,
    RunBusy,
    StateMissing,
    StoreNeeded,
    UnknownRun,
)
from flowneer_async.journal import Kept
from flowneer_async.keeping import NO_TAGS, checked_tags
from flowneer_async.memory import Memory
from flowneer_async.plan import Plan
from flowneer_async.policy import World
from flowneer_async.reading import Reading, Start, Stored
from flowneer_async.state import DICT, Shape, shape_of
from flowneer_async.store import Lease, VersionedCheckpointStore, VersionStore
from flowneer_async.unkept import MirrorJournal
from flowneer_async.versions import (
    ROOT,
    Head,
    Run,
    check_run_id,
    head_of,
    parse_version_id,
    version_id,
)

_TRIES = 3  # to claim a run whose owner is just finishing


class Order(NamedTuple):
    """How a new run is wanted: how urgently, sharing a limit with whom, and when; at once where `wake` is None."""

    priority: int = 0
    key: str = ""
    wake: int | None = None


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
    run: Run | None = None
    """What the store had of it, before it was taken."""


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
        tags: Mapping[str, str] = NO_TAGS,
    ) -> None:
        self._plan, self._state, self._world, self._tags = plan, state, world, checked_tags(tags)
        self._run_id = None if run_id is None else check_run_id(run_id)
        self._reading = Reading(plan, self._shape_wanted())
        self._shape, self._codec = self._reading.shape, self._reading.codec
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

    async def begin(self, order: Order) -> Opened | None:
        """A new run, which is owned where it is to begin at once; None where its id is taken. Raises as `open` does."""
        plan, origin = self._plan, None
        if plan.store is None:
            raise StoreNeeded("begin", self._run_id or "")
        if plan.resumes is not None:
            run_id, _ = parse_version_id(plan.resumes)
            origin = await self._reading.stored(plan.store, await self._reading.run(plan.store, run_id), plan.resumes)
        opened = await self._create(plan.store, self._run_id or self._world.new_run_id(), origin, order)
        if opened is None or opened.journal is None:
            return opened
        # On a state of its own: whoever has asked for the run does not wait for its end, and may change theirs.
        return replace(opened, state=self._reading.build(opened.journal.before))

    async def abandon(self, end: End) -> None:
        """Give back the lease of a run that did not come to begin."""
        if self._lease is not None and self._plan.store is not None:
            await self._plan.store.release(self._lease, end.status, end.error, wake=end.wake)

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

    def _opened(self, run_id: str, start: Start, journal: Kept | None = None) -> Opened:
        return Opened(run_id, start.at, start.state, self._shape, self._codec, start.memory, journal)

    # A full store -----------------------------------------------------------------------------------------------------

    async def _resume(self, store: VersionStore, version: str) -> Opened:
        """The head of a run goes on as that run; any other version, or another run id, is a fork."""
        run_id, seq = parse_version_id(version)
        if self._run_id is not None and self._run_id != run_id and await _is_fork(store, self._run_id, version):
            return await self._go_on(store, self._run_id, None)  # whatever has become of that version meanwhile
        run = await self._reading.run(store, run_id)
        if self._run_id in (None, run_id) and seq == run.head:
            return await self._go_on(store, run_id, None)
        stored = await self._reading.stored(store, run, version)
        if self._run_id == run_id:
            raise BadName("fork", run_id, f"it is the run that {version!r} is of, and has gone on from there")
        return await self._begin(store, self._run_id or self._world.new_run_id(), stored)

    async def _begin(self, store: VersionStore, run_id: str, origin: Stored | None) -> Opened:
        """A new run, from the state given or as a fork; where the id is taken already, that run goes on."""
        if origin is None and self._run_id is not None and self._state is None:
            return await self._go_on(store, run_id, None)
        return await self._create(store, run_id, origin, Order()) or await self._go_on(store, run_id, origin)

    async def _create(self, store: VersionStore, run_id: str, origin: Stored | None, order: Order) -> Opened | None:
        start = self._begun() if origin is None else await self._reading.start(origin)
        now, plan = self._world.now(), self._plan
        fork_of = None if origin is None else origin.version
        run = Run(
            run_id,
            plan.name,
            self._shape.type.__qualname__,
            plan.steps,
            "running" if order.wake is None else "waiting",
            created=now,
            updated=now,
            fork_of=fork_of,
            tags=self._tags,
            wake=order.wake,
            priority=order.priority,
            key=order.key,
            begun=now if order.wake is None else None,
        )
        start.memory.begin_fork()
        if start.migrated:
            start.mirror.advance(self._shape.items(start.state))
        version, head = root(Head(run_id), start.mirror, start.memory, start.step_index, start.at, now, fork_of)
        lease = await store.create(run, (version,))
        if lease is None:
            return None
        if order.wake is not None:  # and nobody's until then
            return replace(self._opened(run_id, start), run=run)
        self._lease = lease
        return replace(self._opened(run_id, start, self._journal(store, lease, head, start)), run=run)

    async def _go_on(self, store: VersionStore, run_id: str, origin: Stored | None) -> Opened:
        for _ in range(_TRIES):
            run = await self._reading.run(store, run_id)
            try:
                return await self._go_on_from(store, run, origin)
            except RunBusy as busy:
                if busy.owner is not None:
                    raise
        raise RunBusy(run_id, None)

    async def _go_on_from(self, store: VersionStore, run: Run, origin: Stored | None) -> Opened:
        if run.head < 0:
            raise BrokenChain(version_id(run.run_id, 0), version_id(run.run_id, 0))
        if origin is not None and run.fork_of != origin.version:
            raise BadName("fork", run.run_id, f"the run of this id is no fork of {origin.version!r}")
        stored = await self._reading.stored(store, run, version_id(run.run_id, run.head))
        if run.status == "completed":
            mirror = Mirror(self._codec, stored.texts)
            if self._answer is not None:
                self._answer.give(run.run_id, Memory(self._codec), self._plan.body)
            done = Start(stored.at, mirror, Memory(self._codec, stored.facts), self._reading.build(mirror))
            return replace(self._opened(run.run_id, done), finished_at=stored.version, run=run)
        start = await self._reading.start(stored)
        asking = None if self._answer is None else self._answer.give(run.run_id, start.memory, self._plan.body)
        # A migration is done when its version is stored, which also has the steps from there on: those of the run are
        # the ones that its versions before that were made by.
        keeps = start.migrated or start.memory.has("", "steps")
        begun = self._world.now() if run.begun is None else run.begun
        claimed = replace(run, begun=begun, steps=run.steps if keeps else self._plan.steps)
        self._lease = await store.claim(claimed)
        await self._check_head(store, run)
        journal = self._journal(store, self._lease, head_of(stored.chain), start)
        if start.migrated:
            await journal.migrate(start.step_index, start.at, start.state)
            await journal.flush()
        if asking is not None:
            await journal.note(start.step_index, f"{asking}/@answer")
            await journal.flush()
        return replace(self._opened(run.run_id, start, journal), step_index=start.step_index, run=run)

    async def _check_head(self, store: VersionStore, run: Run) -> None:
        """An owner whose lease had lapsed may have stored more between our look and the claim: then look again."""
        if run.owner is not None and (await store.read(run.run_id)).head != run.head:
            await self.abandon(End("running"))
            self._lease = None
            raise RunBusy(run.run_id, None)

    def _begun(self) -> Start:
        mirror, state = Mirror(self._codec), self._given()
        if self._plan.store is not None or self._plan.entries is not None or self._mirrors:
            mirror.advance(self._shape.items(state))
        return Start("", mirror, Memory(self._codec), state)

    def _journal(self, store: VersionStore, lease: Lease, head: Head, start: Start) -> ChainJournal:
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
        start = Start(at, mirror, Memory(self._codec), self._reading.build(mirror))
        return self._opened(run_id, start, self._entry_journal(store, run_id, start))

    def _entry_journal(self, store: VersionedCheckpointStore, run_id: str, start: Start) -> EntryJournal:
        return EntryJournal(self._plan, store, run_id, self._plan.resumes, start.mirror, self._shape, self._world)


async def _is_fork(store: VersionStore, run_id: str, version: str) -> bool:
    """Is there a run of this id, and is it a fork of that version?"""
    try:
        return (await store.read(run_id)).fork_of == version
    except UnknownRun:
        return False
