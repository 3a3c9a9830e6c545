"""A flow as data: what the builder makes and the runner walks."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, Literal, TypeAlias

from flowneer_async.defining import check_targets
from flowneer_async.errors import FlowChanged
from flowneer_async.hooks import Around, Filtered
from flowneer_async.outline import lane_paths, paths
from flowneer_async.steps import Batch, Body, Node, Parallel, S, Task, Wait, parts
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
        """The paths of all steps."""
        return paths(self.body)

    @cached_property
    def steps(self) -> tuple[str, ...]:
        """The same, with the numbers of lanes: what a stored run remembers its steps by."""
        return lane_paths(self.body)

    @cached_property
    def nodes(self) -> tuple[Node[S], ...]:
        """All steps, those inside of others too."""
        return tuple(_nodes(self.body))

    @cached_property
    def goes_back(self) -> bool:
        """Can a step's failure lead on, so that the state before the step is needed?"""
        bodies = [self.body, *(body for node in self.nodes for _, body in parts(node))]
        return self.compensates or any(body.on_error is not None for body in bodies)

    @cached_property
    def compensates(self) -> bool:
        """Can any of its steps be undone?"""
        return any(isinstance(node, Task) and node.compensate is not None for node in self.nodes)

    @cached_property
    def schemas(self) -> tuple[type, ...]:
        """The types of the payloads that the flow waits for."""
        return tuple(n.schema for n in self.nodes if isinstance(n, Wait) and isinstance(n.schema, type))

    @cached_property
    def checked(self) -> "Plan[S]":
        """This plan, whose written-out jumps (in the annotations of steps) lead somewhere; raises BadStep."""
        _check_jumps(self.name, self.body, frozenset())
        return self

    @cached_property
    def has_aliases(self) -> bool:
        """Had some of its steps another name before?"""
        return any(node.aliases for node in self.nodes)

    def waits(self, signal: str) -> list[Wait[S]]:
        """The steps that wait for a signal of this name."""
        return [node for node in self.nodes if isinstance(node, Wait) and node.signal == signal]


def _check_jumps(flow: str, body: Body[S], around: frozenset[str]) -> None:
    known = around.union(body.anchors)
    for node in body.order:
        for fn in _functions(node):
            check_targets(flow, fn, known)
        is_border = isinstance(node, Parallel) or (isinstance(node, Batch) and node.in_lanes)
        for _, inner in parts(node):
            _check_jumps(flow, inner, frozenset() if is_border else known)
    if body.on_error is not None:
        _check_jumps(flow, body.on_error, known)


def _functions(node: Node[S]) -> list[object]:
    """The functions of a step that may jump."""
    fallback = node.fallback if isinstance(node, (Task, Wait)) else None
    own: list[object] = [node.call] if isinstance(node, Task) else []
    return own if fallback is None else [*own, fallback.fn]


def _nodes(body: Body[S]) -> list[Node[S]]:
    found: list[Node[S]] = []
    for node in body.order:
        found.append(node)
        for _, inner in parts(node):
            found += _nodes(inner)
    return found + (_nodes(body.on_error) if body.on_error is not None else [])
