"""The crash-point test finds each of these bugs, when it is planted into the engine."""

import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

import pytest

from flowneer_async import CorruptVersion, FlowBuilder, chain, lanes, memory, runner, undoing, walk
from flowneer_async.memory import SIGN
from flowneer_async.plan import Durability
from flowneer_async.testing import crash_points
from flowneer_stores import MemoryStore
from tests.support.building import built, reply
from tests.support.generated import Made
from tests.support.generated_steps import State

Plant = Callable[[pytest.MonkeyPatch], None]


def _m(kind: str, *bodies: Any, size: int = 1) -> Made:
    """A member of a body; each of its bodies is written as a list."""
    return Made(kind, size, tuple(map(tuple, bodies)))


TASK, TWO, QUIET = _m("task"), [_m("task"), _m("sync")], _m("quiet")

FLOWS: Mapping[str, FlowBuilder[State]] = {
    name: built(tuple(made))
    for name, made in {
        "tasks": [TASK, QUIET, _m("plain"), _m("flaky"), _m("once", size=2), TASK],
        "fails": [TASK, _m("fail"), TASK],
        "loop": [_m("loop", TWO, size=3), TASK],
        "branch": [_m("branch", TWO, [QUIET, TASK], [TASK])],
        "batch": [TASK, _m("batch", TWO, size=2), TASK],
        "lanes": [TASK, _m("lanes", TWO, size=3), TASK],
        "parallel": [TASK, _m("parallel", TWO, [TASK, _m("loop", TWO, size=2)], [QUIET, TASK])],
        "lossy": [_m("lossy", TWO, size=3), _m("lossy lanes", [TASK], size=3), TASK],
        "jumps": [_m("anchor"), TASK, _m("loop", [TASK, _m("hop", size=2)], size=2), TASK],
        "undone": [_m("undoable"), TASK, _m("parallel", [_m("undoable"), QUIET], [TASK]), _m("undoable"), _m("fail")],
        "rescued": [_m("rescued", [_m("undoable"), TASK, _m("fail")], [_m("careful"), _m("undoable"), TASK]), TASK],
        "rescued in the end": [TASK, _m("rescued", [TASK, _m("fail")], TWO)],
        "careful": [TASK, _m("careful"), _m("doubt"), TASK],
        "in time": [_m("signal", size=2), TASK],
        "waits": [_m("sleep"), _m("signal", size=2), TASK, _m("late"), _m("ask", size=2), TASK],
    }.items()
}


async def _flaky(state: State) -> str | None:
    state["hops"] = state.get("hops", 0) + 1
    return "#top" if state["hops"] < 9 else None


FLOWS |= {
    "too many visits": FlowBuilder[State]("f").anchor("top", 2).then(_flaky),
    "two signals": FlowBuilder[State]("f").wait_for("go", into="one").wait_for("go", into="two", name="again"),
}


# Kinds of bugs --------------------------------------------------------------------------------------------------------


def forgets(kind: str) -> Plant:
    """What a run remembers under this kind is not found again by another process."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        whole = memory.Memory.__init__

        def init(self: Any, codec: Any, texts: Mapping[str, bytes] | None = None) -> None:
            whole(self, codec, {key: text for key, text in (texts or {}).items() if not _kind(key).startswith(kind)})

        patch.setattr(memory.Memory, "__init__", init)

    return plant


def forgets_nothing(patch: pytest.MonkeyPatch) -> None:
    """What a run remembers of a step stays when the step is done."""
    patch.setattr(memory.Memory, "forget", lambda self, path: None)


def _kind(key: str) -> str:
    return key.split(SIGN, 2)[2]


def says(function: Any, old: str, new: str) -> Plant:
    """The source of a function of the engine has `new` in the place of `old`."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(old) == 1, f"{function.__qualname__} does not say {old!r} any more: plant the bug anew"
        module = compile(source.replace(old, new), inspect.getfile(function), "exec")
        (code,) = (
            part for part in module.co_consts if isinstance(part, CodeType) and part.co_name == function.__name__
        )
        # In place, for other modules hold the function itself.
        patch.setattr(function, "__code__", code)

    return plant


@dataclass(frozen=True)
class Planted:
    """A bug, and the flow that shows it."""

    flow: str
    plant: Plant
    durability: Durability = "sync"


_RIGHT = 'entry["step"].startswith(f"{prefix}{ERROR}")'

BUGS: Mapping[str, Planted] = {
    "the last step is done again": Planted("tasks", says(walk._begin, "number + 1, ()", "number, ()")),
    "a step that failed is taken for done": Planted(
        "fails",
        says(
            runner._Run._ended,
            "except (RunError, StateError) as error:\n",
            "except (RunError, StateError) as error:\n"
            "        await self._journal.record(1, error.step, self._line.state)\n",
        ),
    ),
    "the index of a loop is forgotten": Planted("loop", says(walk._loop, "(trail[0].index or 0) if trail else 0", "0")),
    "a branch chooses again": Planted("branch", says(walk._branch, "if len(trail) > 1", "if len(trail) > 99")),
    "a batch asks for its items again": Planted("batch", forgets("items")),
    "items that are done are done again": Planted(
        "batch", says(walk._one_by_one, "(trail[0].index or 0) if trail else 0", "0")
    ),
    "where a jump has landed is not stored": Planted("jumps", forgets("goto")),
    "the number of jumps into a body is forgotten": Planted(
        "jumps", says(walk._begin, "place.round = trail[0].round", "pass")
    ),
    "visits are not stored": Planted("too many visits", forgets("visits")),
    "lanes that are done run again": Planted("parallel", forgets("at")),
    "the draft of a lane is lost": Planted("lanes", forgets("=")),
    "an item that was given up is tried again": Planted("lossy", forgets("failed")),
    "which items were given up is forgotten": Planted("lossy", forgets("failure:")),
    "the join of an item is done again": Planted("lossy", says(lanes.each_alone, '== "@joined"', '== "@parted"')),
    "what was done is undone twice": Planted(
        "undone", says(undoing._undo, "line.core.memory.drop(line.path, kind)", "pass")
    ),
    "what was done is not undone any more": Planted("undone", forgets("undo:")),
    "a failure is not stored": Planted("rescued", forgets("error")),
    "what has put a failure right is undone": Planted(
        "rescued", says(undoing._undoable, 'if not entry["step"].startswith(f"{prefix}{ERROR}")', "")
    ),
    "a failure that was put right is put right again": Planted(
        "rescued in the end", says(undoing.guarded, "if trail and", "if False and"), "exit"
    ),
    "that a step has begun is not stored": Planted("careful", forgets("begun")),
    "an answer is not stored": Planted("waits", forgets("answer")),
    "a deadline is counted anew": Planted("in time", forgets("until")),
    "a signal is used again": Planted("two signals", forgets("used:")),
    "the result of a call is forgotten": Planted("tasks", forgets("once:")),
    "facts are never dropped": Planted("batch", forgets_nothing),
    "a keyframe leaves out what the run remembers": Planted("lanes", says(chain.root, "**memory.whole()", "")),
}


async def _check(name: str, durability: Durability = "sync") -> None:
    flow = FLOWS[name].with_versioned_checkpoint(MemoryStore())
    await crash_points(flow, {}, durability=durability, reply=reply, forks=True)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("name", FLOWS)
async def test_without_a_bug_each_flow_ends_the_same(name: str, durability: Durability) -> None:
    """No fault is found with any of the flows, while no bug is planted."""
    await _check(name, durability)


@pytest.mark.parametrize("name", BUGS)
async def test_the_crash_points_of_a_flow_find_the_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that shows only when a process dies is found by letting it die everywhere."""
    bug = BUGS[name]
    bug.plant(monkeypatch)
    with pytest.raises((AssertionError, CorruptVersion)):
        await _check(bug.flow, bug.durability)
