"""Mocks: functions that take the place of steps in a test."""

from collections.abc import Awaitable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from flowneer_async.context import Context
from flowneer_async.defining import new_call
from flowneer_async.errors import BadOption
from flowneer_async.hooks import Hooks, Proceed
from flowneer_async.picture import Described, DescribedBody
from flowneer_async.plugins.builder import Hookable
from flowneer_async.plugins.place import name_at, static_path
from flowneer_async.steps import Call, Next, Step


class Describable(Hookable, Protocol):
    """A builder that can say which steps it has."""

    def describe(self) -> Described:
        """The flow as plain dicts and lists."""
        ...


B = TypeVar("B", bound=Describable)
Mock: TypeAlias = Step[Any, Any] | None
"""What takes a step's place: a function as a step is, async or sync; None does nothing."""


@dataclass(frozen=True, slots=True)
class Called:
    """A mock was called in place of the step at path `step`; `state` is a copy, of the state as it found it."""

    run_id: str
    step: str
    attempt: int
    state: Any = field(repr=False)


class Mocks:
    """Functions by the names of the steps that they are called in place of; `mocks.into(flow)` is the flow with them.

    A step may be named by its path without numbers too, `emails/send`, should several have one name. All else stays as
    it is: a mock that raises is tried again as the step would be, what it changes is stored, and it may jump. `calls`
    has every call, in its order. Raises BadStep for what cannot be called as a step.
    """

    def __init__(self, steps: Mapping[str, Mock]) -> None:
        self._mocks = {name: None if mock is None else new_call("mocks", mock) for name, mock in steps.items()}
        self.calls: list[Called] = []

    def into(self, flow: B) -> B:
        """A flow in which the mocks are called; raises BadOption where one is for a step that `flow` does not have."""
        found = dict(_functions(cast(DescribedBody, flow.describe())))
        unknown = sorted(self._mocks.keys() - found.keys() - set(found.values()))
        if unknown:
            names = ", ".join(sorted(set(found.values())))
            raise BadOption("mocks", unknown, f"the flow has no such step; those that are functions are {names}")
        return flow.add_hooks(Hooks(wrap_step=self._around))

    def of(self, step: str) -> list[Called]:
        """The calls in place of a step, given by its name, its path without numbers, or its whole path."""
        return [call for call in self.calls if step in (name_at(call.step), static_path(call.step), call.step)]

    @property
    def unused(self) -> list[str]:
        """The steps whose mocks were never called."""
        return [step for step in self._mocks if not self.of(step)]

    async def _around(self, proceed: Proceed, state: object, ctx: Context) -> Next:
        path, name = static_path(ctx.step), name_at(ctx.step)
        key = path if path in self._mocks else name
        if key not in self._mocks:
            return await proceed()
        self.calls.append(Called(ctx.run_id, ctx.step, ctx.attempt, deepcopy(state)))
        mock = self._mocks[key]
        return None if mock is None else await _call(mock, state, ctx)


async def _call(mock: Call, state: object, ctx: Context) -> Next:
    returned = mock.fn(state, ctx) if mock.wants_context else mock.fn(state)
    # What is no Next the engine refuses, as it would from the step.
    return cast(Next, await cast(Awaitable[object], returned) if isawaitable(returned) else returned)


def _functions(body: DescribedBody) -> Iterator[tuple[str, str]]:
    """The path and the name of each step that is a function."""
    for step in body["steps"]:
        if step["kind"] == "task":
            yield step["path"], step["name"]
        for inner in step.get("bodies", ()):
            yield from _functions(inner)
    if "on_error" in body:
        yield from _functions(body["on_error"])


class Mocking:
    """`flow.with_mocks({"send": fake_send})`, for `FlowBuilder.extend([Mocking])`."""

    def with_mocks(self: B, mocks: Mocks | Mapping[str, Mock]) -> B:
        """The functions are called in place of the steps that they are named for."""
        return (mocks if isinstance(mocks, Mocks) else Mocks(mocks)).into(self)
