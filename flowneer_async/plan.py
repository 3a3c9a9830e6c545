"""A flow as data: what the builder makes and the runner walks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeAlias

from flowneer_async.steps import S, Task
from flowneer_async.store import VersionedCheckpointStore, VersionStore

Durability: TypeAlias = Literal["sync", "async", "exit"]


@dataclass(frozen=True)
class Plan(Generic[S]):
    """Steps by their name, in order, and how their versions are kept."""

    name: str
    state_type: type[S] | None
    steps: Mapping[str, Task[S]] = field(default_factory=dict[str, Any])
    store: VersionStore | None = None
    entries: VersionedCheckpointStore | None = None
    """A store of two methods, in place of a full one."""
    keeps: Callable[[str], bool] | None = None
    """Which steps make a version; all of them where it is None."""
    durability: Durability = "sync"
    skip_unchanged: bool = False
    resumes: str | None = None
    """The version that a run begins with."""

    @cached_property
    def order(self) -> tuple[Task[S], ...]:
        """The steps, one after the other."""
        return tuple(self.steps.values())

    @cached_property
    def kept(self) -> tuple[bool, ...]:
        """Which of the steps make a version."""
        return tuple(self.keeps is None or self.keeps(task.name) for task in self.order)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Their paths, which a stored run remembers them by."""
        return tuple(task.path for task in self.order)
