"""What can be put around the steps of a flow: one middleware shape, and observers."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias

from flowneer_async.context import Context
from flowneer_async.errors import BadOption
from flowneer_async.steps import Next
from flowneer_async.versions import Status

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S_contra = TypeVar("S_contra", contravariant=True, default=dict[str, object])
else:
    from typing import TypeVar

    S_contra = TypeVar("S_contra", contravariant=True)

Proceed: TypeAlias = Callable[[], Awaitable[Next]]
"""Does what a middleware is put around, and gives what it returned; what it raises, the middleware may catch."""

Middleware: TypeAlias = Callable[[Proceed, S_contra, Context[Any]], Awaitable[Next]]
"""`async def around(proceed, state, ctx): return await proceed()`. One that does not proceed takes the step's place.

Should it return None, what the step returned stands. One that proceeds again tries again, from the state that was
before, where a store keeps the run; else from the state as the first attempt has left it.
"""

Observer: TypeAlias = Callable[[S_contra, Context[Any]], Awaitable[None] | None]
"""Told of something: `(state, ctx)`, async or sync."""

Filter: TypeAlias = Callable[[str], bool] | Sequence[str]
"""Which steps: a list of globs on their names, or a function of the name."""


@dataclass(frozen=True, kw_only=True)  # no slots: with them Python 3.11 cannot call Hooks[State](…)
class Hooks(Generic[S_contra]):
    """What is to happen around the steps of a flow; `flow.add_hooks(hooks, filter)` gives a flow that has them.

    `wrap_step` is put around every attempt of a step, `wrap_parallel_fn` around every lane; the first hooks that were
    added are the outermost. The others are told: before a step and after it (all its attempts, before its version is
    stored), of the error that it failed with, of each iteration of a loop and item of a batch (`ctx.index`), of each
    jump to an anchor, and of the beginning and the end of the run, whatever its end (there `ctx.step` is empty). A step
    here is a function, not a loop or a branch around it. What a hook raises makes the step fail; at the end of a run
    that is complete it reaches the caller.
    """

    before_flow: Observer[S_contra] | None = None
    after_flow: Callable[[S_contra, Context[Any], Status], Awaitable[None] | None] | None = None
    before_step: Observer[S_contra] | None = None
    wrap_step: Middleware[S_contra] | None = None
    after_step: Observer[S_contra] | None = None
    on_error: Callable[[S_contra, Context[Any], BaseException], Awaitable[None] | None] | None = None
    wrap_parallel_fn: Middleware[S_contra] | None = None
    on_loop_iteration: Observer[S_contra] | None = None
    on_anchor_hit: Observer[S_contra] | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            hook = getattr(self, each.name)
            if hook is not None and not callable(hook):
                raise BadOption(each.name, hook, "it is a function")


class Filtered(NamedTuple):
    """Hooks, and which steps they are for."""

    hooks: Hooks[Any]
    matches: Callable[[str], bool] | None

    def __repr__(self) -> str:
        return f"Filtered({self.hooks!r})"


class Around:
    """The hooks of one flow, by their kind and the name of the step."""

    def __init__(self, hooks: Sequence[Filtered]) -> None:
        self._hooks = hooks
        self._found: dict[tuple[str, str], tuple[Callable[..., Any], ...]] = {}

    async def tell(self, kind: str, name: str, state: object, context: Context, *more: object) -> None:
        """Tell the observers of one kind, one after the other."""
        for observer in self._of(kind, name):
            telling = observer(state, context, *more)
            if isawaitable(telling):
                await telling

    async def wrap(self, kind: str, name: str, proceed: Proceed, state: object, context: Context) -> object:
        """Proceed through the middleware of one kind, the first one outermost."""
        for middleware in reversed(self._of(kind, name)):
            proceed = _wrapped(middleware, proceed, state, context)
        return await proceed()

    def has(self, kind: str, name: str) -> bool:
        """Are there any of this kind for a step of this name?"""
        return bool(self._of(kind, name))

    def _of(self, kind: str, name: str) -> tuple[Callable[..., Any], ...]:
        found = self._found.get((kind, name))
        if found is None:
            fitting = [each.hooks for each in self._hooks if each.matches is None or not name or each.matches(name)]
            found = tuple(hook for hooks in fitting if (hook := getattr(hooks, kind)) is not None)
            self._found[kind, name] = found
        return found


def _wrapped(middleware: Middleware[Any], proceed: Proceed, state: object, context: Context) -> Proceed:
    inner: Next = None

    async def remembered() -> Next:
        nonlocal inner
        inner = await proceed()
        return inner

    async def call() -> Next:
        returned = await middleware(remembered, state, context)
        return inner if returned is None else returned

    return call


def matcher(wanted: Filter | None) -> Callable[[str], bool] | None:
    """A filter as a function of the name."""
    if wanted is None or callable(wanted):
        return wanted
    if isinstance(wanted, str):
        raise BadOption("filter", wanted, f"it is a list of globs: [{wanted!r}]")
    globs = tuple(wanted)
    return lambda name: any(fnmatchcase(name, glob) for glob in globs)
