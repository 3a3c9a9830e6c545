"""Checks what a flow is made of, while it is built."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from inspect import Parameter, isasyncgenfunction, isgeneratorfunction, signature
from math import isfinite
from typing import Any, Literal, TypeGuard, cast, get_args, get_origin, get_type_hints

from flowneer_async.cursor import quoted
from flowneer_async.errors import BadName, BadOption, BadStep
from flowneer_async.policy import Backoff
from flowneer_async.steps import Body, Call, Delivery, OnError, Task

_LONGEST_NAME = 200
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_STARRED = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def check_name(kind: str, name: object) -> str:
    """The name of a flow or a step, or BadName."""
    if not (isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_NAME):
        raise BadName(kind, name, f"it is a printable text of 1 to {_LONGEST_NAME} characters")
    if name[0] == "@":
        raise BadName(kind, name, "those that begin with '@' are the engine's own")
    return str.__str__(name)  # a member of an Enum of texts writes itself otherwise


def name_of(name: str | None, call: object) -> str:
    """The name of a step: the one given, or that of its function; raises BadName."""
    chosen = getattr(call, "__name__", None) if name is None else name
    if chosen == "<lambda>" or chosen is None:
        raise BadName("step", chosen, "a lambda, a partial or an object needs name=…, which a stored run is resumed by")
    return check_name("step", chosen)


def names_of(aliases: Sequence[str]) -> tuple[str, ...]:
    """The names that a step had before; raises BadOption, BadName."""
    if isinstance(aliases, str):
        raise BadOption("aliases", aliases, f"it is a list of names: [{aliases!r}]")
    return tuple(check_name("step", alias) for alias in aliases)


def check_option(name: str, value: object, shown: object) -> None:
    """Raises BadOption, with `shown`, where a value makes no sense for an option that the state may decide."""
    if name == "retries" and not is_count(value):
        raise BadOption(name, shown, "it is a whole number, 0 or more")
    if name == "delay" and not (isinstance(value, Backoff) or (is_number(value) and value >= 0)):
        raise BadOption(name, shown, "it is a number of seconds, 0 or more, or a Backoff")
    if name == "timeout" and not (value is None or (is_number(value) and value > 0)):
        raise BadOption(name, shown, "it is a number of seconds above 0, or None")
    if name == "until" and not (_is_span(value) or is_moment(value)):
        raise BadOption(name, shown, "it is a number of seconds or a timedelta, 0 or more, or a datetime with a zone")


def check_options(**options: object) -> None:
    """Raises BadOption for the first that makes no sense, as far as can be told before the run."""
    for name, value in options.items():
        if not callable(value):
            check_option(name, value, value)


def check_choice(name: str, value: object, kind: Any) -> None:
    """Raises BadOption where a value is none of those of a Literal type."""
    if value not in get_args(kind):
        raise BadOption(name, value, f"it is one of {', '.join(get_args(kind))}")


def check_count(name: str, value: object, least: int) -> None:
    """Raises BadOption where a value is no whole number from `least` on."""
    if not (is_count(value) and value >= least):
        raise BadOption(name, value, f"it is a whole number, {least} or more")


def check_lanes(reducer: Any, on_error: OnError, timeout: object) -> Any:
    """The reducer of a batch or of parallel bodies; raises BadOption where their options make no sense."""
    check_choice("on_error", on_error, OnError)
    check_option("timeout", timeout, timeout)
    by_key = cast(Mapping[str, object], reducer if isinstance(reducer, Mapping) else {"": reducer})
    if reducer is not None and not all(map(callable, by_key.values())):
        raise BadOption(
            "reducer", cast(object, reducer), "it is a function (before, values), or a mapping of keys to such"
        )
    return dict(by_key) if isinstance(reducer, Mapping) else reducer


def is_count(value: object) -> TypeGuard[int]:
    """Is it a whole number, 0 or more?"""
    return type(value) is int and value >= 0


def is_number(value: object) -> TypeGuard[float]:
    """Is it a finite number?"""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def is_moment(value: object) -> TypeGuard[datetime]:
    """Is it a moment that all clocks agree on?"""
    return isinstance(value, datetime) and value.tzinfo is not None


def _is_span(value: object) -> bool:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return is_number(seconds) and seconds >= 0


def new_call(flow: str, fn: object, *, may_yield: bool = False) -> Call:
    """A checked function of `(state)` or `(state, ctx)`, which gives an answer; raises BadStep."""
    if (isgeneratorfunction(fn) and not may_yield) or isasyncgenfunction(fn):
        raise BadStep(flow, fn, "it is a generator")
    return Call(_callable(flow, fn), _wants_context(flow, fn))


def optional_call(flow: str, fn: object) -> Call | None:
    """The same, where there is one."""
    return None if fn is None else new_call(flow, fn)


def new_task(
    flow: str,
    fn: object,
    name: str | None = None,
    *,
    retries: Any = 0,
    delay: Any = 0.0,
    timeout: Any = None,
    compensate: object = None,
    fallback: object = None,
    delivery: Delivery = "at_least_once",
    verify: object = None,
    aliases: Sequence[str] = (),
) -> Task[Any]:
    """A checked step; raises BadStep, BadName, BadOption."""
    if isgeneratorfunction(fn):
        raise BadStep(flow, fn, "it is a generator: one that is async may be a step, and yields events")
    call = Call(_callable(flow, fn), _wants_context(flow, fn))
    chosen = name_of(name, fn)
    check_options(retries=retries, delay=delay, timeout=timeout)
    check_choice("delivery", delivery, Delivery)
    _check_delivery(delivery, retries, verify)
    return Task(
        chosen,
        quoted(chosen),
        call.fn,
        call.wants_context,
        retries,
        delay,
        timeout,
        optional_call(flow, compensate),
        optional_call(flow, fallback),
        delivery,
        optional_call(flow, verify),
        names_of(aliases),
        streams := isasyncgenfunction(fn),
        not (streams or call.wants_context) and _is_plain(retries, timeout, compensate, fallback, delivery),
    )


def _is_plain(retries: object, timeout: object, compensate: object, fallback: object, delivery: Delivery) -> bool:
    unset = timeout is None and compensate is None and fallback is None
    return unset and retries == 0 and delivery == "at_least_once"


def _check_delivery(delivery: Delivery, retries: object, verify: object) -> None:
    if delivery == "at_most_once" and retries != 0:
        raise BadOption("retries", retries, "a step that is delivered at most once is not tried again")
    if delivery == "at_least_once" and verify is not None:
        raise BadOption("verify", verify, 'it belongs to delivery="at_most_once"')


def check_targets(flow: str, fn: object, known: Iterable[str]) -> None:
    """Raises BadStep where the jumps that `fn` names in its annotation, `-> Literal["#name"] | None`, lead nowhere."""
    names = set(known)
    for target in literals_of(fn):
        if target.startswith("#") and target[1:] not in names:
            raise BadStep(flow, fn, f"it jumps to {target!r}, and there is no such anchor")


def literals_of(fn: object) -> tuple[str, ...]:
    """The texts that a function says it returns, as Literal[…] in its annotation."""
    fn = getattr(fn, "func", fn)  # of a partial
    annotated = fn if hasattr(fn, "__annotations__") else type(fn).__call__
    if getattr(annotated, "__annotations__", {}).get("return") in (None, "None"):
        return ()  # as of most steps: what is written has not to be made out
    try:
        hint = get_type_hints(annotated).get("return")
    except Exception:  # an annotation may be any text, and an object may have none
        return ()
    hints = [hint, *get_args(hint)] if get_origin(hint) is not Literal else [hint]
    found = [value for each in hints if get_origin(each) is Literal for value in get_args(each)]
    return tuple(value for value in found if isinstance(value, str))


def check_body(flow: str, body: Body[Any]) -> Body[Any]:
    """A body that has steps; raises BadStep."""
    if not body.steps:
        raise BadStep(flow, body, "it is an empty body: give it a step")
    return body


def _callable(flow: str, fn: object) -> Callable[..., object]:
    if not callable(fn):
        raise BadStep(flow, fn, "it is no callable")
    return fn


def _wants_context(flow: str, call: Any) -> bool:
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
