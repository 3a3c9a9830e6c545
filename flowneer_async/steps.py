"""What a flow is made of: steps as data, without behaviour."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from inspect import Parameter, isasyncgenfunction, isgeneratorfunction, signature
from math import isfinite
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeGuard

from flowneer_async.context import Context
from flowneer_async.cursor import Frame, encode
from flowneer_async.errors import BadName, BadOption, BadStep
from flowneer_async.policy import Backoff

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S = TypeVar("S", default=dict[str, object])
    D = TypeVar("D", default=object)
else:
    from typing import TypeVar

    S = TypeVar("S")
    D = TypeVar("D")

V = TypeVar("V")

_LONGEST_NAME = 200
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_STARRED = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

Step: TypeAlias = Callable[[S], Awaitable[None] | None] | Callable[[S, Context[D]], Awaitable[None] | None]
"""A step: takes `(state)` or `(state, ctx)`, changes the state in place, returns None; async or sync."""

Option: TypeAlias = V | Callable[[S], V]
"""An option of a step: a value, or a function of the state that gives it."""


@dataclass(frozen=True, slots=True)
class Task(Generic[S]):
    """One awaited function: `call(state, context)`, or `call(state)` where it wants no context."""

    name: str
    path: str
    call: Callable[..., object]
    wants_context: bool
    retries: Option[int, S] = 0
    delay: Option[float | Backoff, S] = 0.0
    timeout: Option[float | None, S] = None
    is_plain: bool = True
    """No option is set: one attempt, without a limit."""


def check_name(kind: str, name: object) -> str:
    """The name of a flow or a step, or BadName."""
    if isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_NAME:
        return name
    raise BadName(kind, name, f"it is a printable text of 1 to {_LONGEST_NAME} characters")


def check_option(name: str, value: object, shown: object) -> None:
    """Raises BadOption, with `shown`, where a value makes no sense for option `retries`, `delay` or `timeout`."""
    if name == "retries" and not (type(value) is int and value >= 0):
        raise BadOption(name, shown, "it is a whole number, 0 or more")
    if name == "delay" and not (isinstance(value, Backoff) or (_is_number(value) and value >= 0)):
        raise BadOption(name, shown, "it is a number of seconds, 0 or more, or a Backoff")
    if name == "timeout" and not (value is None or (_is_number(value) and value > 0)):
        raise BadOption(name, shown, "it is a number of seconds above 0, or None")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def new_task(
    flow: str,
    call: Step[S, D],
    name: str | None,
    retries: Option[int, S],
    delay: Option[float | Backoff, S],
    timeout: Option[float | None, S],
) -> Task[S]:
    """A checked step; raises BadStep, BadName, BadOption."""
    wants_context = _wants_context(flow, call)
    chosen = _checked_name(name, call)
    for option, value in (("retries", retries), ("delay", delay), ("timeout", timeout)):
        if not callable(value):
            check_option(option, value, value)
    is_plain = retries == 0 and timeout is None
    return Task(chosen, encode((Frame(chosen),)), call, wants_context, retries, delay, timeout, is_plain)


def _checked_name(name: str | None, call: object) -> str:
    chosen = getattr(call, "__name__", None) if name is None else name
    if chosen == "<lambda>" or chosen is None:
        raise BadName("step", chosen, "a lambda, a partial or an object needs name=…, which a stored run is resumed by")
    return check_name("step", chosen)


def _wants_context(flow: str, call: object) -> bool:
    if not callable(call):
        raise BadStep(flow, call, "it is no callable")
    if isgeneratorfunction(call) or isasyncgenfunction(call):
        raise BadStep(flow, call, "it is a generator")
    try:
        parameters = signature(call).parameters.values()
    except ValueError:  # some built-in functions have none
        return False
    positional = [each for each in parameters if each.kind in _POSITIONAL]
    needed = [each for each in parameters if each.default is each.empty and each.kind not in _STARRED]
    if len(needed) > 2 or any(each not in positional for each in needed) or not (positional or _takes_any(parameters)):
        raise BadStep(flow, call, "it takes neither (state) nor (state, ctx)")
    return len(needed) == 2 or (len(positional) > 1 and positional[1].name == "ctx")


def _takes_any(parameters: Iterable[Parameter]) -> bool:
    return any(each.kind is Parameter.VAR_POSITIONAL for each in parameters)
