"""What a resume would do, before anything runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from flowneer_async.answers import open_questions
from flowneer_async.cursor import ERROR, Frame, decode, encode, static, written_in
from flowneer_async.errors import FlowneerError, Undone
from flowneer_async.events import Waiting
from flowneer_async.finding import node_at
from flowneer_async.memory import Memory
from flowneer_async.outline import beneath
from flowneer_async.picture import Progress
from flowneer_async.steps import Batch, Body, Branch, Loop, Node, Parallel, Sleep, Task, Wait, parts
from flowneer_async.versions import Status


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """What `run(run_id=…)` would do, all by the paths of steps.

    `skipped` are done, and are not done again, as far as they stand in bodies that the run is in. The run goes on with
    `again`, one for each lane: a step that may have begun before. Those `in_doubt` may be done at most once, and were
    interrupted; those that `ask` wait for an answer. `reason` is why the run cannot go on at all.
    """

    run_id: str
    status: Status
    version: str
    skipped: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    waits: tuple[Waiting, ...] = ()
    """What the run waits for, as `Result.waits` has it."""
    reason: FlowneerError | None = None

    @property
    def progress(self) -> Progress:
        """The same, for `to_mermaid` and `describe`."""
        here = frozenset(static(decode(path)) for path in self.again)
        done, none = frozenset(self.skipped) - here, frozenset[str]()
        if isinstance(self.reason, Undone):
            return Progress(done=done, failed=frozenset([static(decode(self.reason.step))]))
        if self.status == "completed":
            return Progress(done=done)
        return Progress(
            done=done,
            current=here if self.status in ("running", "cancelled") else none,
            failed=here if self.status == "failed" else none,
            waiting=here if self.status == "waiting" else none,
        )


def planned(found: ResumePlan, body: Body[Any], done: Sequence[str], memory: Memory, at: str) -> ResumePlan:
    """The plan of a run, with what it would skip of all that is done, do again, and ask from a position on."""
    goto = cast(str | None, memory.get("", "goto"))
    again = _next(body, "", decode(goto or at), memory) or []
    inside = [_static(path) for path in again]
    skipped = tuple(path for path in done if not any(f"{each}/".startswith(f"{path}/") for each in inside))
    asks = open_questions(memory, body)
    doubts = [path for path in memory.paths if memory.has(path, "begun")]
    left = any(kind.startswith("undo:") for path in memory.paths for kind in memory.of(path))
    if memory.has("", "error") and body.on_error is None and not left:
        error = cast(dict[str, str], memory.get("", "error"))
        return replace(found, skipped=skipped, reason=Undone(found.run_id, error["step"], error["error"]))
    waits = tuple(waits_in(body, memory))
    return replace(found, skipped=skipped, again=tuple(again), in_doubt=tuple(doubts), asks=tuple(asks), waits=waits)


def done_in(paths: Sequence[str], positions: Sequence[str]) -> tuple[str, ...]:
    """The steps that versions at these positions say are done, and those around them."""
    found: set[str] = set()
    undone = {position.removesuffix("/@undo") for position in positions if position.endswith("/@undo")}
    for position in positions:
        frames = decode(position)
        if frames and not frames[-1].is_own and position not in undone:
            found.update(static(frames[:length]) for length in range(1, len(frames) + 1))
    return tuple(path for path in paths if path in found)


def waits_in(body: Body[Any], memory: Memory) -> Iterator[Waiting]:
    """What a run waits for, as far as it remembers."""
    for path, kind in open_questions(memory, body).items():
        if kind == "settled":
            yield Waiting("doubt", path)
        else:
            yield Waiting("answer", path, question=memory.get(path, f"ask{kind[6:]}"))
    for path in memory.paths:
        node, until = node_at(body, path), cast(int | None, memory.get(path, "until"))
        if memory.has(path, "until") and isinstance(node, Wait):
            yield Waiting("signal", path, until, node.signal)
        elif isinstance(node, Sleep) and until is not None:
            yield Waiting("sleep", path, until)


def _static(path: str) -> str:
    return static(decode(path))


def _next(body: Body[Any], prefix: str, trail: tuple[Frame, ...], memory: Memory) -> list[str] | None:
    """The paths that a body goes on with; None where it is at its end."""
    if memory.has(prefix, "error"):
        return _after_failure(body, prefix, trail, memory)
    if not trail or trail[0].is_own:
        return _first(body, 0, 0, prefix, memory)
    first = trail[0]
    number = body.position.get(first.name, len(body.order))
    if len(trail) > 1 and number < len(body.order):
        node = body.order[number]
        path = beneath(prefix, written_in(first.round, node.name))
        found = _within(node, path, trail, memory)
        if found is not None:
            return found
    return _first(body, number + 1, first.round, prefix, memory)


def _after_failure(body: Body[Any], prefix: str, trail: tuple[Frame, ...], memory: Memory) -> list[str] | None:
    """What is undone next, or else what its `on_error` goes on with."""
    inside = f"{prefix}/" if prefix else ""
    undos = [
        cast(dict[str, str], memory.get(path, kind))["step"]
        for path in memory.paths
        for kind in memory.of(path)
        if kind.startswith("undo:")
    ]
    left = [f"{step}/@undo" for step in undos if step.startswith(inside)]
    if left or body.on_error is None:
        return left[-1:]
    rest = trail[1:] if trail and trail[0].name == ERROR else ()
    round = cast(dict[str, int], memory.get(prefix, "error")).get("round", 0)
    return _next(body.on_error, beneath(prefix, written_in(round, ERROR)), rest, memory)


def _first(body: Body[Any], number: int, round: int, prefix: str, memory: Memory) -> list[str] | None:
    if number >= len(body.order):
        return None
    node = body.order[number]
    path = beneath(prefix, written_in(round, node.name))
    if isinstance(node, Parallel) or memory.get(path, "mode") == "lanes":
        return _in_lanes(node, path, memory)
    return [path]


def _within(node: Node[Any], path: str, trail: tuple[Frame, ...], memory: Memory) -> list[str] | None:
    """The paths that go on inside a step that was entered; None where only what follows it is left."""
    first, rest = trail[0], trail[1:]
    match node:
        case Task():
            return [path]
        case Branch():
            chosen = dict(parts(node)).get(rest[0].name)
            return None if chosen is None else _next(chosen, beneath(path, encode(rest[:1])), rest[1:], memory)
        case Parallel():
            return _in_lanes(node, path, memory)
        case Batch() if memory.get(path, "mode") == "lanes":
            return _in_lanes(node, path, memory)
        case Loop() | Batch():
            inner = path if first.index is None else f"{path}[{first.index}]"
            return _next(node.body, inner, rest, memory) or [path]
        case _:
            bodies = [body for _, body in parts(node)]
            return _next(bodies[0], path, rest, memory) if bodies else [path]


def _in_lanes(node: Node[Any], path: str, memory: Memory) -> list[str]:
    """The paths that the lanes go on with, or, where all are done, that of the step which merges them."""
    if isinstance(node, Parallel):
        bodies = list(node.lanes)
    else:
        assert isinstance(node, Batch)
        bodies = [node.body] * len(cast(list[object], memory.get(path, "items") or []))
    found: list[str] = []
    for number, body in enumerate(bodies):
        lane = f"{path}[{number}]"
        if not memory.has(lane, "failed"):
            at = cast(str, memory.get(lane, "goto") or memory.get(lane, "at") or "")
            found += _next(body, lane, decode(at)[len(decode(lane)) :], memory) or []
    return found or [path]
