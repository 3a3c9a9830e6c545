"""Giving a run the answer that it waits for."""

from dataclasses import dataclass
from typing import Any

from flowneer_async.errors import NotWaiting
from flowneer_async.finding import node_at
from flowneer_async.memory import Memory
from flowneer_async.steps import Body, Task


class _NoAnswer:
    def __repr__(self) -> str:
        return "NO_ANSWER"


NO_ANSWER = _NoAnswer()
"""For None is an answer, too."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked for, and the path of the step that asks, where there are several."""

    value: object
    at: str | None

    def give(self, run_id: str, memory: Memory, body: Body[Any]) -> str | None:
        """Put it where the step looks for it, and give that step's path; None where there is no answer to give.

        Raises NotWaiting, StateNotSerializable.
        """
        if self.value is NO_ANSWER:
            return None
        asking = open_questions(memory, body)
        paths = [path for path in asking if self.at in (None, path)]
        if len(paths) != 1:
            raise NotWaiting(run_id, self.at, tuple(asking))
        memory.put(paths[0], asking[paths[0]], self.value, f"the answer to {paths[0]!r}")
        return paths[0]


def open_questions(memory: Memory, body: Body[Any]) -> dict[str, str]:
    """The steps that wait for an answer, and the kind of fact that it is to be."""
    found: dict[str, str] = {}
    for path in memory.paths:
        facts = memory.of(path)
        asked = [kind[3:] for kind in facts if kind.startswith("ask") and f"answer{kind[3:]}" not in facts]
        if asked:
            found[path] = f"answer{asked[0]}"
        elif "begun" in facts and "settled" not in facts:
            node = node_at(body, path)
            if isinstance(node, Task) and node.verify is None:
                found[path] = "settled"
    return found
