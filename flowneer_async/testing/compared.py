"""What a run left behind, and whether it is what one without a crash leaves."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowneer_async.cursor import decode, encode
from flowneer_async.finding import node_at, steps_along
from flowneer_async.memory import SIGN, split
from flowneer_async.plan import Plan
from flowneer_async.steps import Batch, Parallel, Task, Wait
from flowneer_async.testing.effects import Effects
from flowneer_async.testing.lives import End, Trial
from flowneer_async.versions import Version, resolved


@dataclass(frozen=True, slots=True)
class Traces:
    """How a run ended, its last state as JSON, what it still remembers, and the steps that its versions are of."""

    end: End
    state: Mapping[str, bytes]
    facts: frozenset[str]
    steps: Counter[str]


async def traces(trial: Trial[Any], end: End) -> Traces:
    """Read a run, version by version; raises BrokenChain, CorruptVersion, AssertionError."""
    run = await trial.store.read(trial.run_id)
    assert run.owner is None, "it has ended, and is still owned"
    assert run.status == end.status, f"it ended as {end.status}, and is stored as {run.status}"
    versions = await trial.store.versions(trial.run_id)
    state, facts = dict[str, bytes](), dict[str, bytes]()
    for version in versions:
        before = facts
        state, facts = split(resolved(version.id, await trial.store.chain(version.id)))
        moved = [key for key in facts if key.endswith(f"{SIGN}until") and before.get(key, facts[key]) != facts[key]]
        assert not moved, f"a time to wait until was set anew: {_readable(moved)}"
    _check_signals(trial, versions)
    left = _out_of_place(facts, versions[-1].path) if end.status == "completed" else ()
    assert not left, f"it is complete, and still remembers {_readable(left)}"
    return Traces(end, state, frozenset(facts), _steps(versions))


def _check_signals(trial: Trial[Any], versions: Sequence[Version]) -> None:
    """A signal is used once: no more steps have come to their end, but for those with a timeout, than signals."""
    body = trial.flow._plan.body  # pyright: ignore[reportPrivateUsage]
    nodes = [node_at(body, version.path) for version in versions[1:] if not _is_mark(version)]
    used = Counter(node.signal for node in nodes if isinstance(node, Wait) and node.timeout is None)
    again = sorted(name for name in used if used[name] > trial.sent[name])
    assert not again, f"more steps than signals came to their end: {again}"


def compare_ends(found: Traces, expected: Traces) -> None:
    """Raises AssertionError where a run has ended otherwise. Shows no value of a state."""
    assert found.end == expected.end, f"it ended as {found.end}, not as {expected.end}"
    keys = {*found.state, *expected.state}
    other = sorted(key for key in keys if found.state.get(key) != expected.state.get(key))
    assert not other, f"it ended with another state, in {other}"


def compare(plan: Plan[Any], found: Traces, expected: Traces) -> None:
    """Raises AssertionError where a run has left something else behind."""
    compare_ends(found, expected)
    if plan.keeps is not None:
        return  # a step that makes no version forgets nothing for good
    facts = _readable(found.facts ^ expected.facts)
    assert not facts, f"in the end it remembers, or has forgotten, {facts}"
    if plan.durability != "exit":
        steps = (found.steps - expected.steps) + (expected.steps - found.steps)
        assert not steps, f"these steps made too many versions, or too few: {sorted(steps)}"


def compare_effects(plan: Plan[Any], found: Effects, expected: Effects) -> None:
    """Raises AssertionError where something did not happen, or happened that should not have, or too often."""
    had, wanted = (Counter((each.step, each.what) for each in effects.all) for effects in (found, expected))
    # Steps that make no version are done again whenever the run is taken up, after a crash or a wait.
    keeps_all = plan.keeps is None and not plan.skip_unchanged
    lost = [key for key, times in wanted.items() if had[key] < (times if keeps_all else 1)]
    assert not lost, f"it did not happen, or not often enough: {lost}"
    other = [key for key in had if key not in wanted]
    assert not other, f"it should not have happened: {other}"
    for (step, what), times in had.items():
        node = node_at(plan.body, step)
        once = isinstance(node, Task) and node.delivery == "at_most_once"
        most = wanted[step, what] * (1 if once else 1 + found.life)
        assert times <= most or not (once or keeps_all), f"{(step, what)} happened {times} times, and may {most} times"
    if plan.durability == "sync" and keeps_all:
        _compare_repeats(plan, found)


def _compare_repeats(plan: Plan[Any], found: Effects) -> None:
    """Of each lane, a crash lets one step at most be done again."""
    for life in range(1, found.life + 1):
        before = {_attempted(each.step) for each in found.all if each.life < life}
        again = before.intersection(_attempted(each.step) for each in found.all if each.life == life)
        for lane, times in Counter(_lane(plan, step) for step in again).items():
            assert times == 1, f"after one crash {times} steps of lane {lane!r} were done again: {sorted(again)}"


def _attempted(step: str) -> str:
    """The step that a fallback is a part of."""
    return step.removesuffix("/@fallback")


def _lane(plan: Plan[Any], step: str) -> str:
    """The path of the innermost lane that a step stands in."""
    frames = decode(step)
    nodes = steps_along(plan.body, frames)
    lanes = [number for number, node in enumerate(nodes[:-1], 1) if _has_lanes(node)]
    return encode(frames[: max(lanes, default=0)])


def _has_lanes(node: object) -> bool:
    return isinstance(node, Parallel) or (isinstance(node, Batch) and node.in_lanes)


def _steps(versions: Sequence[Version]) -> Counter[str]:
    """The steps that versions are of, but for what a doubt adds: whether a step was done, and that it begins again."""
    return Counter(version.path for version in versions if not version.path.endswith(("/@begun", "/@answer")))


def _is_mark(version: Version) -> bool:
    """Is it of the middle of a step?"""
    return any(frame.is_own for frame in decode(version.path)[-1:])


def _out_of_place(facts: Iterable[str], last: str) -> list[str]:
    """The facts that should be forgotten by now: of bodies around the last step they are with the next version."""
    return [fact for fact in facts if not last.startswith(_body_of(*fact.split(SIGN)[1:]))]


def _body_of(path: str, kind: str) -> str:
    return path.rpartition("/")[0] if kind == "visits" else path


def _readable(facts: Iterable[str]) -> list[str]:
    """The path and the kind of each fact."""
    return sorted(" ".join(fact.split(SIGN)[1:]) for fact in facts)
