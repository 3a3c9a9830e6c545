"""Where a walk is, and the signals by which it leaves that place."""

from collections.abc import Iterator
from typing import Any, TypeAlias, cast

from flowneer_async.cursor import Frame
from flowneer_async.events import Failure, Waiting
from flowneer_async.steps import Body, Node

Trail: TypeAlias = tuple[Frame, ...]
"""The frames of a stored position that are still to be followed; empty where a body begins anew."""


class Place:
    """A body that is being walked: where it stands, and how far the walk has come."""

    __slots__ = ("at", "body", "failure", "index", "is_rescue", "item", "outer", "prefix", "round", "top")

    def __init__(
        self,
        outer: "Place | None",
        body: Body[Any],
        prefix: str = "",
        top: int | None = None,
        item: object = None,
        index: int = 0,
        failure: Failure | None = None,
    ) -> None:
        self.outer, self.body, self.prefix, self.top = outer, body, prefix, top
        """`top` is the number of the last step of the outermost body that is done; None if this is that body."""
        self.item, self.index, self.failure = item, index, failure
        self.at = self.round = 0
        self.is_rescue = False
        """It is the `on_error` of the body around it."""

    def inside(self, body: Body[Any], prefix: str) -> "Place":
        """A body inside the step that this one has come to."""
        done = self.at - 1 if self.top is None else self.top
        return Place(self, body, prefix, done, self.item, self.index, self.failure)

    def path_of(self, node: Node[Any]) -> str:
        """The path of a step of this body, in the round that it is in."""
        path = self.prefix + node.quoted
        return f"{path}~{self.round}" if self.round else path

    @property
    def done(self) -> int:
        """The number of the last step of the outermost body that is done before the step that this one has come to."""
        return self.at - 1 if self.top is None else self.top

    @property
    def where(self) -> str:
        """The path of the body."""
        return self.prefix[:-1]


class Jumped(BaseException):
    """A step has jumped to an anchor of a body around the one that it stands in."""

    def __init__(self, place: "Place", number: int) -> None:
        super().__init__()
        self.place, self.number = place, number


class Suspended(BaseException):
    """The run cannot go on before something has happened outside; no step can catch it by mistake."""

    def __init__(self, waits: tuple[Waiting, ...], is_stored: bool = False) -> None:
        super().__init__(waits)
        self.waits = waits
        self.is_stored = is_stored
        """Its question is, for it was asked before."""


def suspended_in(group: BaseExceptionGroup[BaseException]) -> Iterator[Suspended]:
    """Those that tasks of a group have raised."""
    for each in group.exceptions:
        if isinstance(each, Suspended):
            yield each
        elif isinstance(each, BaseExceptionGroup):
            yield from suspended_in(cast(BaseExceptionGroup[BaseException], each))
