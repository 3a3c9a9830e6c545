"""Runs that come, are pruned, and go: every store, and a plain list of states, in lock step."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from flowneer_async import BadOption, Fenced, Lease, Run, RunBusy, Status, StoreError, Version, VersionStore
from flowneer_async.store import EVERY_STATUS, Due, RunFilter, resolve
from flowneer_async.testing.chains import EARLY, body_of, first_kept, new_run
from flowneer_async.versions import Head, grow, head_of
from tests.support.stores import KINDS, opened

RUNS = [f"run-{letter}" for letter in "abcd"]
Told: TypeAlias = tuple[str, object] | object
"""What a store answered: its value, or the type of its error and what that names."""

run_ids = st.sampled_from(RUNS)
statuses = st.sampled_from(sorted(EVERY_STATUS))
tags = st.dictionaries(st.sampled_from(["team", "ü'", ""]), st.sampled_from(["a", '"b', ""]), max_size=2)
times = st.integers(EARLY, EARLY + 9)
steps = st.lists(st.tuples(times, st.booleans()), max_size=4)
"""Versions to come: when each is made, and whether it is a keyframe."""
NOW, LATER = EARLY + 1000, 2 * EARLY
"""A time of a store's own clock, whichever, and one that will not come while these tests run."""
keys = st.sampled_from(["", "k", "ü'"])
wakes = st.none() | times | st.just(LATER)
engines = st.fixed_dictionaries(
    {"wake": wakes, "priority": st.integers(-1, 1), "key": keys, "begun": st.none() | times},
)
"""What is kept of a run for an engine."""
filters = st.builds(
    RunFilter,
    status=st.just(EVERY_STATUS) | st.frozensets(statuses),
    flow=st.none() | st.sampled_from(["flow", "other"]),
    tags=tags,
    owned=st.none() | st.booleans(),
    created_after=st.none() | times,
    created_before=st.none() | times,
    begun_after=st.none() | times,
    key=st.none() | keys,
    cancelling=st.none() | st.booleans(),
)


@dataclass
class Life:
    """A run from its creation until it is purged: its versions, those still kept, and how it stands."""

    run: Run
    versions: list[Version]
    owner: int | None
    """The number of the lease that is good for it."""
    signals: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])

    @property
    def first(self) -> int:
        return self.run.first

    @property
    def kept(self) -> list[Version]:
        return [version for version in self.versions if version.seq >= self.first]

    def grown(self, more: Sequence[tuple[int, bool]]) -> list[Version]:
        """Versions that come after its head."""
        kept = self.kept
        head = head_of(kept[kept[-1].base - kept[0].seq :]) if kept else Head(self.run.run_id)
        return grown(head, more)


def grown(head: Head, more: Sequence[tuple[int, bool]], fork_of: str | None = None) -> list[Version]:
    """Versions after this head; number n has the state {"n": n}."""
    versions: list[Version] = []
    for time, keyframe in more:
        seq = head.seq + 1
        origin = fork_of if seq == 0 else None
        version, head = grow(head, body_of(n=seq), keyframe or not seq, seq - 1, f"s{seq}" if seq else "", time, origin)
        versions.append(version)
    return versions


def plain(run: Run) -> Run:
    """What is the same in every store: no epoch, no owner's name, and no time of a store's own clock."""
    owner = None if run.owner is None else "somebody"
    return replace(run, epoch=0, owner=owner, updated=0, tags=dict(run.tags), wake=said(run.wake))


def said(wake: int | None) -> int | None:
    """A time at which to wake a run, as it was given; NOW where it is the store's own."""
    return NOW if wake is not None and EARLY + 9 < wake < LATER else wake


async def told(asked: Awaitable[object]) -> Told:
    """The answer, or the error."""
    try:
        return await asked
    except (StoreError, RunBusy, Fenced, BadOption) as error:
        return type(error).__name__


class KeptRuns(RuleBasedStateMachine):
    """Whatever is stored, dropped and purged, every store answers as the model does."""

    kinds: Sequence[str] = KINDS

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Life] = {}
        """By id, in the order they were stored."""
        self.leases: list[tuple[str, tuple[Lease, ...]]] = []
        """All that were ever given, each by every store."""
        self.read: list[tuple[str, int, tuple[Run, ...]]] = []
        """Runs as they were read some time ago, and what the number of the next lease was then."""
        self.changes = Counter[str]()
        """How often a run was created, claimed or released: who read it before that cannot claim it."""
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.stores = self.loop.run(self.open())

    async def open(self) -> tuple[VersionStore, ...]:
        return tuple(
            [await self.stack.enter_async_context(opened(kind, Path(self.folder.name))) for kind in self.kinds]
        )

    def teardown(self) -> None:
        self.loop.run(self.stack.aclose())
        self.loop.close()
        self.folder.cleanup()

    def every(self, ask: Callable[[VersionStore, int], Awaitable[object]]) -> list[Told]:
        """What each store answers."""
        return [self.loop.run(told(ask(store, number))) for number, store in enumerate(self.stores)]

    def all_say(self, expected: Told, ask: Callable[[VersionStore, int], Awaitable[object]]) -> None:
        """Every store answers that."""
        assert self.every(ask) == [expected] * len(self.stores)

    # What changes a run -----------------------------------------------------------------------------------------------

    @rule(
        run_id=run_ids,
        more=steps,
        flow=st.sampled_from(["flow", "other"]),
        tags=tags,
        created=times,
        fork=run_ids,
        status=st.sampled_from(["running", "waiting"]),
        engine=engines,
    )
    def create(
        self,
        run_id: str,
        more: list[tuple[int, bool]],
        flow: str,
        tags: dict[str, str],
        created: int,
        fork: str,
        status: Status,
        engine: dict[str, Any],
    ) -> None:
        """A new run, with some versions; a fork where there is one to fork from. Nothing, where the id is taken.

        One that waits is nobody's.
        """
        origin = self.model[fork].kept[0].id if fork in self.model and self.model[fork].kept else None
        run = replace(new_run(run_id), flow=flow, tags=tags, created=created, fork_of=origin, status=status, **engine)
        versions = grown(Head(run_id), more, origin)
        self.store(run, versions)

    @rule(origin=run_ids, run_id=run_ids)
    def copy(self, origin: str, run_id: str) -> None:
        """A run that was pruned, stored anew under its own id once it was purged: its numbers stay."""
        life = self.model.get(origin)
        if life is not None and life.kept and life.owner is None:
            self.purge(origin)
            self.store(replace(life.run, status="running", error=None), life.kept)

    def store(self, run: Run, versions: list[Version]) -> None:
        leases = self.every(lambda store, _: store.create(run, versions))
        if run.run_id in self.model:
            assert leases == [None] * len(leases)
            return
        self.owned(run.run_id, leases)
        owner = None if run.status == "waiting" else len(self.leases) - 1
        self.model[run.run_id] = Life(replace(run, cancelling=False), list(versions), owner)

    def owned(self, run_id: str, leases: list[Told]) -> None:
        given = tuple(lease for lease in leases if isinstance(lease, Lease))
        assert len(given) == len(leases)
        self.leases.append((run_id, given))
        self.changes[run_id] += 1

    @rule(run_id=run_ids)
    def look(self, run_id: str) -> None:
        """Read a run, to claim it some time."""
        runs = tuple(run for run in self.every(lambda store, _: store.read(run_id)) if isinstance(run, Run))
        if run_id in self.model:
            self.read.append((run_id, self.changes[run_id], runs))

    @precondition(lambda self: self.read)
    @rule(data=st.data(), begun=times)
    def claim(self, data: st.DataObject, begun: int) -> None:
        """A run as it was read just now, or long ago, is claimed if nobody has owned it since."""
        run_id, changes, runs = data.draw(st.sampled_from(self.read[-4:]))
        claims = self.every(lambda store, number: store.claim(replace(runs[number], begun=begun)))
        life = self.model.get(run_id)
        if life is None:
            assert claims == ["UnknownRun"] * len(claims)
        elif life.owner is not None or changes != self.changes[run_id]:
            assert claims == ["RunBusy"] * len(claims)
        else:
            self.owned(run_id, claims)
            life.owner, life.run = len(self.leases) - 1, replace(life.run, status="running", error=None)
            began = begun if life.run.begun is None else life.run.begun
            is_new = life.run.cancelling and not runs[0].cancelling
            life.run = replace(life.run, begun=began, wake=life.run.wake if is_new else None, cancelling=is_new)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), more=steps, skipped=st.sampled_from([0, 0, 0, 1]))
    def append(self, data: st.DataObject, more: list[tuple[int, bool]], skipped: int) -> None:
        """By whichever lease; with `skipped`, what does not follow the head."""
        number = data.draw(st.integers(max(0, len(self.leases) - 5), len(self.leases) - 1))
        run_id, leases = self.leases[number]
        life = self.model.get(run_id)
        versions = grown(Head(run_id), more)[skipped:] if life is None else life.grown(more)[skipped:]
        if life is None:
            expected = "UnknownRun"
        elif life.owner != number:
            expected = "Fenced"
        else:
            expected = "VersionConflict" if skipped and versions else None
        if versions:  # of nothing, a store may say so or not
            self.all_say(expected, lambda store, each: store.append(leases[each], versions))
        if life is not None and expected is None:
            life.versions += versions

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), status=statuses, error=st.none() | st.just("why"), wake=wakes)
    def release(self, data: st.DataObject, status: Status, error: str | None, wake: int | None) -> None:
        """By whichever lease: it is nothing where the lease is over, or the run."""
        number = data.draw(st.integers(max(0, len(self.leases) - 5), len(self.leases) - 1))
        run_id, leases = self.leases[number]
        self.all_say(None, lambda store, each: store.release(leases[each], status, error, b"", wake))
        life = self.model.get(run_id)
        if life is not None and life.owner == number:
            came, is_open = life.run.wake, status in ("running", "waiting")
            kept = {"running": came, "waiting": wake if came is None else came}.get(status)
            cancelling = is_open and life.run.cancelling
            life.owner = None
            life.run = replace(life.run, status=status, error=error, wake=kept, cancelling=cancelling)
            self.changes[run_id] += 1

    @rule(run_id=run_ids, name=st.sampled_from(["go", "ü"]), payload=st.binary(max_size=3), sent=times)
    def send(self, run_id: str, name: str, payload: bytes, sent: int) -> None:
        """A signal, in whichever state the run is."""
        signals = self.every(lambda store, _: store.send(run_id, name, payload, sent))
        assert signals == [signals[0]] * len(signals)
        if run_id in self.model:
            self.model[run_id].signals.append((name, payload))
            life = self.model[run_id]
            if life.run.status != "waiting" or life.run.begun is not None:
                self.wake(life)
        else:
            assert signals[0] == "UnknownRun"

    @rule(run_id=run_ids)
    def ask_cancel(self, run_id: str) -> None:
        """Of a run that is not over."""
        life = self.model.get(run_id)
        if life is None:
            self.all_say("UnknownRun", lambda store, _: store.ask_cancel(run_id))
            return
        is_open = life.run.status in ("running", "waiting")
        self.all_say(is_open, lambda store, _: store.ask_cancel(run_id))
        if is_open:
            life.run = replace(life.run, cancelling=True)
            self.wake(life)

    def wake(self, life: Life) -> None:
        if life.run.status in ("running", "waiting"):
            life.run = replace(life.run, wake=NOW)

    @rule(run_id=run_ids, keep=st.integers(0, 6), since=st.none() | times)
    def drop(self, run_id: str, keep: int, since: int | None) -> None:
        """Whoever owns it: what is not to be kept goes, and is counted once."""
        life = self.model.get(run_id)
        if life is None:
            self.all_say("UnknownRun", lambda store, _: store.drop(run_id, keep, since))
            return
        first = first_kept(life.kept, keep, since) if life.kept else life.first
        self.all_say(first - life.first, lambda store, _: store.drop(run_id, keep, since))
        life.run = replace(life.run, first=first)

    @rule(run_id=run_ids)
    def purge(self, run_id: str) -> None:
        """Where nobody owns it, it is gone."""
        life = self.model.get(run_id)
        expected = "UnknownRun" if life is None else None if life.owner is None else "RunBusy"
        self.all_say(expected, lambda store, _: store.purge(run_id))
        if life is not None and expected is None:
            del self.model[run_id]

    # What asks --------------------------------------------------------------------------------------------------------

    @rule(wanted=filters, limit=st.integers(1, 4))
    def find(self, wanted: RunFilter, limit: int) -> None:
        """Page by page, the newest first; and counted."""
        lives = [life for life in reversed(self.model.values()) if fits(life, wanted)]
        expected = [expected_run(life) for life in lives]
        self.all_say(expected, lambda store, _: found(store, wanted, limit))
        self.all_say(Counter(run.status for run in expected), lambda store, _: store.count(wanted))

    @rule(
        flows=st.frozensets(st.sampled_from(["flow", "other", "none"])),
        busy=st.frozensets(keys),
        limit=st.integers(0, 4),
    )
    def due(self, flows: frozenset[str], busy: frozenset[str], limit: int) -> None:
        """In their order; of those that were woken by the store's own clock, that clock knows it."""
        lives = [life for life in self.model.values() if life.run.flow in flows and life.run.key not in busy]
        expected = sorted((-life.run.priority, since) for life in lives if (since := due_since(life)) is not None)
        for runs in [self.loop.run(due(store, Due(flows, busy), limit)) for store in self.stores]:
            assert [(-run.priority, 0 if run.status == "running" else said(run.wake)) for run in runs] == expected[
                :limit
            ]
            known = [plain(run) for run in runs]
            assert known == [expected_run(self.model[run.run_id]) for run in runs]
            rows = [(-run.priority, run.wake, list(self.model).index(run.run_id)) for run in runs]
            waiting = [row for row, run in zip(rows, runs, strict=True) if run.status == "waiting"]
            assert waiting == sorted(waiting)

    @rule(run_id=run_ids, seq=st.integers(-1, 12), last=st.none() | st.integers(0, 12))
    def look_back(self, run_id: str, seq: int, last: int | None) -> None:
        """Any version of any run, and some of them."""
        life = self.model.get(run_id)
        kept = [] if life is None else life.kept
        states = [{"n": version.seq} for version in kept if version.seq == seq]
        self.all_say(states[0] if states else "UnknownVersion", lambda store, _: state(store, f"{run_id}@{seq}"))
        some = [each for each in kept if max(0, seq) <= each.seq <= (1000 if last is None else last)]
        expected = "UnknownRun" if life is None else some
        self.all_say(expected, lambda store, _: listed(store.versions(run_id, max(0, seq), last)))

    @invariant()
    def every_run_is_what_the_model_says(self) -> None:
        """Its fields, its versions, the first and the last of them whole, and its signals."""
        for run_id in RUNS:
            life = self.model.get(run_id)
            if life is None:
                self.all_say("UnknownRun", lambda store, _, run_id=run_id: store.read(run_id))
                continue
            ends = [{"n": version.seq} for version in (*life.kept[:1], *life.kept[-1:])]
            whole = expected_run(life), life.kept, ends, life.signals
            self.all_say(whole, lambda store, _, run_id=run_id: everything(store, run_id))


def fits(life: Life, wanted: RunFilter) -> bool:
    run = life.run
    return (
        run.status in wanted.status
        and wanted.flow in (None, run.flow)
        and wanted.tags.items() <= run.tags.items()
        and wanted.owned in (None, life.owner is not None)
        and (wanted.created_after is None or run.created >= wanted.created_after)
        and (wanted.created_before is None or run.created < wanted.created_before)
        and (wanted.begun_after is None or (run.begun is not None and run.begun >= wanted.begun_after))
        and wanted.key in (None, run.key)
        and wanted.cancelling in (None, run.cancelling)
    )


def due_since(life: Life) -> int | None:
    """When somebody should have gone on with a run; None where nobody should yet."""
    if life.run.status == "running":
        return 0 if life.owner is None else None
    wake = life.run.wake
    return wake if life.run.status == "waiting" and wake is not None and wake <= NOW else None


def expected_run(life: Life) -> Run:
    head = life.versions[-1].seq if life.versions else -1
    return plain(replace(life.run, head=head, owner=None if life.owner is None else "somebody"))


async def found(store: VersionStore, wanted: RunFilter, limit: int) -> list[Run]:
    runs, after = list[Run](), None
    while True:
        page = await store.find(wanted, limit, after)
        runs += map(plain, page.runs)
        assert len(page.runs) == limit or page.next is None
        if page.next is None:
            return runs
        after = page.next


async def due(store: VersionStore, wanted: Due, limit: int) -> Sequence[Run]:
    return await store.due(wanted, limit)


async def listed(asked: Awaitable[Sequence[Version]]) -> list[Version]:
    return list(await asked)


async def state(store: VersionStore, version: str) -> dict[str, object]:
    return (await resolve(store, version)).state


async def everything(store: VersionStore, run_id: str) -> object:
    versions = await listed(store.versions(run_id))
    states = [await state(store, version.id) for version in (*versions[:1], *versions[-1:])]
    signals = [(signal.name, signal.payload) for signal in await store.signals(run_id)]
    return plain(await store.read(run_id)), versions, states, signals


def checked(kinds: Sequence[str], examples: int, *more: Phase) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        phases=[Phase.reuse, Phase.generate, *more],
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(type("KeptRuns", (KeptRuns,), {"kinds": kinds}), settings=chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_dropped_and_purged_a_store_answers_as_the_model_does(kind: str) -> None:
    """Some random lives of a few runs."""
    checked([kind], 5 if kind == "postgres" else 20)


@pytest.mark.torture
def test_whatever_is_dropped_and_purged_for_long_every_store_answers_as_the_model_does() -> None:
    """Many random lives, and the shortest of those that fail."""
    checked(KINDS, 1000, Phase.shrink)
