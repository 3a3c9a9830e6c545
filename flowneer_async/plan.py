"""A flow as data: what the builder makes and the runner walks."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, Literal, TypeAlias

from flowneer_async.errors import FlowChanged
from flowneer_async.hooks import Around, Filtered
from flowneer_async.outline import paths
from flowneer_async.steps import Body, Node, S, Task, Wait, parts
from flowneer_async.store import VersionedCheckpointStore, VersionStore

Durability: TypeAlias = Literal["sync", "async", "exit"]

Migrate: TypeAlias = Callable[[S, FlowChanged], Awaitable[str] | str]
"""Given the state of a stored run that does not fit the flow any more, and how: the step after which it is to go on,
by its name, one of the outermost body; an empty name to begin anew. It may change the state in place."""


@dataclass(frozen=True)
class Plan(Generic[S]):
    """The steps of a flow, and how their versions are kept."""

    name: str
    state_type: type[S] | None
    body: Body[S] = field(default_factory=Body[S])
    store: VersionStore | None = None
    entries: VersionedCheckpointStore | None = None
    """A store of two methods, in place of a full one."""
    keeps: Callable[[str], bool] | None = None
    """Which steps make a version; all of them where it is None."""
    durability: Durability = "sync"
    skip_unchanged: bool = False
    resumes: str | None = None
    """The version that a run begins with."""
    hooks: tuple[Filtered, ...] = ()
    migrate: Migrate[S] | None = None

    @cached_property
    def around(self) -> Around | None:
        """The hooks by kind and step, if there are any."""
        return Around(self.hooks) if self.hooks else None

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The paths of all steps, which a stored run remembers them by."""
        return paths(self.body)

    @cached_property
    def nodes(self) -> tuple[Node[S], ...]:
        """All steps, those inside of others too."""
        return tuple(_nodes(self.body))

    @cached_property
    def goes_back(self) -> bool:
        """Can a step's failure lead on, so that the state before the step is needed?"""
        bodies = [self.body, *(body for node in self.nodes for _, body in parts(node))]
        compensates = any(isinstance(node, Task) and node.compensate is not None for node in self.nodes)
        return compensates or any(body.on_error is not None for body in bodies)

    @cached_property
    def schemas(self) -> tuple[type, ...]:
        """The types of the payloads that the flow waits for."""
        return tuple(n.schema for n in self.nodes if isinstance(n, Wait) and isinstance(n.schema, type))

    @cached_property
    def has_aliases(self) -> bool:
        """Had some of its steps another name before?"""
        return any(node.aliases for node in self.nodes)

    def waits(self, signal: str) -> list[Wait[S]]:
        """The steps that wait for a signal of this name."""
        return [node for node in self.nodes if isinstance(node, Wait) and node.signal == signal]


def _nodes(body: Body[S]) -> list[Node[S]]:
    found: list[Node[S]] = []
    for node in body.order:
        found.append(node)
        for _, inner in parts(node):
            found += _nodes(inner)
    return found + (_nodes(body.on_error) if body.on_error is not None else [])
