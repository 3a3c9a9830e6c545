"""How far a run has come, by the static paths of steps."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Mark: TypeAlias = Literal["failed", "waiting", "current", "done", "ahead"]
"""What has become of a step."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The steps of a run by their static paths (`poll/ask`); those that are in no set are still ahead.

    A step that is done in many iterations, items or lanes has one path, which may be in several sets.
    """

    done: frozenset[str] = frozenset()
    current: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()

    def mark(self, path: str) -> Mark:
        """What has become of the step at `path`: the first of failed, waiting, current and done whose set it is in."""
        if path in self.failed:
            return "failed"
        if path in self.waiting:
            return "waiting"
        if path in self.current:
            return "current"
        return "done" if path in self.done else "ahead"
