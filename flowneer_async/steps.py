"""What a flow is made of: steps as data, without behaviour."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias

from flowneer_async.context import Context
from flowneer_async.policy import Backoff

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S = TypeVar("S", default=dict[str, object])
    D = TypeVar("D", default=object)
    V = TypeVar("V", default=object)
    S_contra = TypeVar("S_contra", contravariant=True)
else:
    from typing import TypeVar

    S = TypeVar("S")
    D = TypeVar("D")
    V = TypeVar("V")
    S_contra = TypeVar("S_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Goto:
    """What a step returns to go on at an anchor."""

    anchor: str


def goto(anchor: str) -> Goto:
    """Go on at the anchor of this name: to be returned by a step, as `"#name"` may be too."""
    return Goto(anchor)


Next: TypeAlias = Goto | str | None
"""What a step returns: None to go on with the next step; `goto("name")`, or `"#name"`, to go on at an anchor."""

Step: TypeAlias = (
    Callable[[S], Awaitable[Next] | AsyncIterator[object] | Next]
    | Callable[[S, Context[D]], Awaitable[Next] | AsyncIterator[object] | Next]
)
"""A step: takes `(state)` or `(state, ctx)`, and changes the state in place; async, sync or an async generator, whose
values are events for whoever watches the run."""

_Async: TypeAlias = Coroutine[Any, Any, Next] | AsyncIterator[object]


class AsyncStep(Protocol[S_contra]):
    """A step that is async, and so can be told from a function of a builder.

    Its call is a property, for then type checkers take a lambda in its place for a function of a builder.
    """

    @property
    def __code__(self) -> object:
        """A function has one."""
        ...

    @property
    def __call__(self) -> Callable[[S_contra], _Async] | Callable[[S_contra, Context[Any]], _Async]:
        """Called as a step is."""
        ...


Asked: TypeAlias = Callable[[S], Awaitable[V] | V] | Callable[[S, Context[D]], Awaitable[V] | V]
"""A question to the state: takes `(state)` or `(state, ctx)`, and gives an answer; async or sync."""

Option: TypeAlias = V | Callable[[S], V]
"""An option of a step: a value, or a function of the state that gives it."""

Delivery: TypeAlias = Literal["at_least_once", "at_most_once"]
OnError: TypeAlias = Literal["cancel", "wait"]

Reducer: TypeAlias = Callable[[Any, list[Any]], Any]
"""Merges what lanes made of one key: given its value before them (None if it had none), and theirs, in their order."""

Schema: TypeAlias = type[V] | Callable[[Any], V]
"""What the payload of a signal has to be: a type that pydantic or msgspec can check, or a function of it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the user's: `fn(state, context)`, or `fn(state)` where it wants no context."""

    fn: Callable[..., object]
    wants_context: bool


@dataclass(frozen=True, slots=True)
class Task(Generic[S]):
    """One awaited function: `call(state, context)`, or `call(state)` where it wants no context."""

    name: str
    quoted: str
    call: Callable[..., object]
    wants_context: bool
    retries: Option[int, S] = 0
    delay: Option[float | Backoff, S] = 0.0
    timeout: Option[float | None, S] = None
    compensate: Call | None = None
    fallback: Call | None = None
    delivery: Delivery = "at_least_once"
    verify: Call | None = None
    aliases: tuple[str, ...] = ()
    streams: bool = False
    """It is an async generator."""
    is_plain: bool = True
    """It is called with the state alone, once, and without a limit."""


@dataclass(frozen=True, slots=True)
class Sub(Generic[S]):
    """A flow as a step of another."""

    name: str
    quoted: str
    body: "Body[S]"
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch(Generic[S]):
    """One of several bodies, whichever `router` names."""

    name: str
    quoted: str
    router: Call
    cases: Mapping[str, "Body[S]"]
    default: "Body[S] | None" = None
    aliases: tuple[str, ...] = ()

    @property
    def bodies(self) -> Mapping[str, "Body[S]"]:
        """The body of each case, that of the default among them."""
        return self.cases if self.default is None else {**self.cases, "default": self.default}


@dataclass(frozen=True, slots=True)
class Loop(Generic[S]):
    """A body, for as long as `condition` holds."""

    name: str
    quoted: str
    condition: Call
    body: "Body[S]"
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch(Generic[S]):
    """A body for each of the items that `items` gives when the batch begins."""

    name: str
    quoted: str
    items: Call
    body: "Body[S]"
    concurrency: int = 1
    max_failures: int = 0
    reducer: Reducer | Mapping[str, Reducer] | None = None
    on_error: OnError = "cancel"
    timeout: float | None = None
    aliases: tuple[str, ...] = ()

    @property
    def in_lanes(self) -> bool:
        """Does each item work on a draft of its own?"""
        return self.mode != "state"

    @property
    def mode(self) -> str:
        """Are the items done one after the other on the state itself, on a draft for each, or in lanes side by side?"""
        if self.concurrency > 1:
            return "lanes"
        return "drafts" if self.max_failures > 0 or self.timeout is not None else "state"


@dataclass(frozen=True, slots=True)
class Parallel(Generic[S]):
    """Bodies side by side, each on a draft of its own."""

    name: str
    quoted: str
    lanes: tuple["Body[S]", ...]
    labels: tuple[str, ...]
    """What people call the lanes."""
    reducer: Reducer | Mapping[str, Reducer] | None = None
    on_error: OnError = "cancel"
    timeout: float | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place to jump to; `max_visits` is how many jumps may lead there."""

    name: str
    quoted: str
    max_visits: int | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sleep(Generic[S]):
    """A time to let pass: `until` is seconds from when it is first reached, or a moment."""

    name: str
    quoted: str
    until: Option[float | timedelta | datetime, S]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait(Generic[S]):
    """A signal to wait for, whose payload goes into the state under `into`."""

    name: str
    quoted: str
    signal: str
    into: str | None
    schema: Schema[Any] | None = None
    timeout: Option[float | None, S] = None
    fallback: Call | None = None
    aliases: tuple[str, ...] = ()


Node: TypeAlias = Task[S] | Sub[S] | Branch[S] | Loop[S] | Batch[S] | Parallel[S] | Anchor | Sleep[S] | Wait[S]
"""One member of a body."""

RECORDED = frozenset({Task, Wait, Sleep, Parallel, Batch})
"""Kinds that make a version when they are done, and are told of; the steps inside of the others do so themselves."""


@dataclass(frozen=True)
class Body(Generic[S]):
    """Steps one after the other, by their name; `on_error` is done in place of the rest when one of them fails."""

    steps: Mapping[str, Node[S]] = field(default_factory=dict[str, Any])
    on_error: "Body[S] | None" = None
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names that steps had before, and those that they have now."""

    @cached_property
    def order(self) -> tuple[Node[S], ...]:
        """The steps, one after the other."""
        return tuple(self.steps.values())

    @cached_property
    def position(self) -> Mapping[str, int]:
        """The number of each step by its name, or one that it had."""
        numbers = {name: number for number, name in enumerate(self.steps)}
        return {**numbers, **{alias: numbers[name] for alias, name in self.aliases.items()}}

    @cached_property
    def anchors(self) -> Mapping[str, int]:
        """The number of each anchor by its name."""
        return {node.name: number for number, node in enumerate(self.order) if isinstance(node, Anchor)}


def parts(node: Node[S]) -> Iterable[tuple[str | None, Body[S]]]:
    """The bodies inside a step, and the name of each where it has one that stands in a path."""
    match node:
        case Branch():
            yield from node.cases.items()
            if node.default is not None:
                yield "default", node.default
        case Parallel():
            for lane in node.lanes:
                yield None, lane
        case Sub() | Loop() | Batch():
            yield None, node.body
        case _:
            return
