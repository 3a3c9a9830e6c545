"""Stored runs of a flow, as the flow reads them: which it knows, what their states were, and where they stand."""

# A migration of the user's may give anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from inspect import isawaitable
from typing import Any, NamedTuple

from flowneer_async.cursor import decode, quoted, static
from flowneer_async.differ import Mirror
from flowneer_async.encoding import Codec
from flowneer_async.errors import BadOption, FlowChanged, FlowneerError, ForeignRun, HalfCopied, StateTypeUnknown
from flowneer_async.events import Waiting
from flowneer_async.finding import renamed, renamed_facts
from flowneer_async.memory import Memory, split, steps_in
from flowneer_async.passed import before, check_known, check_passed
from flowneer_async.plan import Plan
from flowneer_async.resuming import ResumePlan, done_in, planned, waits_in
from flowneer_async.state import DICT, Shape, named_types, shape_of
from flowneer_async.store import VersionStore
from flowneer_async.versions import ROOT, Run, Snapshot, Version, is_half, parse_version_id, resolved, version_id


@dataclass(frozen=True, slots=True)
class Stored:
    """A version of a stored run, and the JSON of the state it stood for."""

    run: Run
    chain: Sequence[Version]
    texts: dict[str, bytes]
    facts: dict[str, bytes]

    @property
    def version(self) -> str:
        """The id of the version."""
        return self.chain[-1].id

    @property
    def at(self) -> str:
        """Its position."""
        return self.chain[-1].path

    @property
    def step_index(self) -> int:
        """The number of the last step of the outermost body that was done then."""
        return self.chain[-1].step_index


class Start(NamedTuple):
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


class Reading:
    """What a flow makes of the runs in a store."""

    def __init__(self, plan: Plan[Any], shape: Shape | None = None) -> None:
        self._plan = plan
        self.shape = shape or (DICT if plan.state_type is None else shape_of(plan.state_type))
        self.codec = codec_of(plan.state_type or self.shape.type, plan.schemas)

    async def run(self, store: VersionStore, run_id: str) -> Run:
        """A run of this flow; raises UnknownRun, ForeignRun, StateTypeUnknown."""
        return self._checked(await store.read(run_id))

    async def stored(self, store: VersionStore, run: Run, version: str) -> Stored:
        """A version, with the names that the steps have now."""
        chain = await store.chain(version)
        texts, facts = split(resolved(version, chain))
        body = self._plan.body
        steps = steps_in(facts)
        if steps is not None:
            # The steps at the last migration: what was stored of the run itself may be older, or newer.
            run = replace(run, steps=steps)
        if not self._plan.has_aliases:
            return Stored(run, chain, texts, facts)
        last = chain[-1]._replace(path=renamed(body, chain[-1].path))
        run = replace(run, steps=tuple(renamed(body, path) for path in run.steps))
        return Stored(run, (*chain[:-1], last), texts, facts)

    def _checked(self, run: Run) -> Run:
        if run.flow != self._plan.name:
            raise ForeignRun(run.run_id, run.flow, self._plan.name)
        if is_half(run):
            raise HalfCopied(run.run_id)
        if self.shape is DICT and run.state_type != DICT.type.__qualname__:
            raise StateTypeUnknown(run.state_type)
        return run

    def build(self, mirror: Mirror) -> object:
        """A state of the flow's type."""
        return self.shape.build({key: self.codec.load(text) for key, text in mirror.texts.items()})

    async def start(self, stored: Stored) -> Start:
        """What a run goes on from; raises FlowChanged where it does not fit the flow, and no migration helps."""
        mirror = Mirror(self.codec, stored.texts)
        memory = Memory(self.codec, stored.facts)
        if self._plan.has_aliases:
            memory.become(renamed_facts(self._plan.body, stored.facts))
        start = Start(stored.at, mirror, memory, self.build(mirror), stored.step_index)
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

    async def _migrated(self, start: Start, change: FlowChanged) -> Start:
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
        start.memory.put("", "steps", list(self._plan.steps), "steps")
        return start._replace(at=quoted(name), step_index=index, migrated=True)

    async def snapshot(self, store: VersionStore, version: str) -> Snapshot[Any]:
        """The state that a version of a run of this flow stood for; raises UnknownVersion, ForeignRun and the like."""
        run_id, _ = parse_version_id(version)
        stored = await self.stored(store, await self.run(store, run_id), version)
        return Snapshot(stored.step_index, self.build(Mirror(self.codec, stored.texts)))

    async def waits(self, store: VersionStore, run_id: str) -> tuple[Waiting, ...]:
        """What a run of this flow waits for; raises UnknownRun, ForeignRun and the like."""
        run = await self.run(store, run_id)
        stored = await self.stored(store, run, version_id(run_id, run.head))
        memory = Memory(self.codec, renamed_facts(self._plan.body, stored.facts))
        return tuple(waits_in(self._plan.body, memory))

    async def preview(self, store: VersionStore, run_id: str) -> ResumePlan:
        """What going on with a run would do, or why it cannot; raises UnknownRun."""
        run = await store.read(run_id)
        version = version_id(run_id, max(run.head, 0))
        try:
            stored = await self.stored(store, self._checked(run), version)
            done = await self._done(store, run, stored.at)
            if run.status == "completed":
                return ResumePlan(run_id, run.status, version, done)
            start = await self.start(stored)
        except FlowneerError as reason:
            return ResumePlan(run_id, run.status, version, reason=reason)
        found = ResumePlan(run_id, run.status, version)
        return planned(found, self._plan.body, done, start.memory, start.at)

    async def _done(self, store: VersionStore, run: Run, at: str) -> tuple[str, ...]:
        """The steps that a run has done, as far as its versions tell."""
        body, paths = self._plan.body, self._plan.paths
        found = done_in(paths, [renamed(body, version.path) for version in await store.versions(run.run_id)])
        if self._plan.keeps is None and not self._plan.skip_unchanged and not run.first:
            return found
        passed = before(static(decode(at)), paths)  # among them steps whose versions were not made, or were pruned
        return tuple(path for path in paths if path in found or path in passed)
