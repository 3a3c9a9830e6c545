"""The builder's words for steps of every kind: each gives a new builder, and checks what it is given."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from inspect import isasyncgenfunction, iscoroutine, iscoroutinefunction
from typing import Any, Generic, Self, TypeAlias, Union, cast

from flowneer_async.cursor import quoted
from flowneer_async.defining import (
    check_body,
    check_count,
    check_lanes,
    check_name,
    check_options,
    literals_of,
    name_of,
    names_of,
    new_call,
    new_task,
    optional_call,
)
from flowneer_async.errors import BadOption, BadStep, DuplicateName
from flowneer_async.payload import check_schema
from flowneer_async.plan import Plan
from flowneer_async.policy import Backoff
from flowneer_async.steps import (
    Anchor,
    Asked,
    AsyncStep,
    Batch,
    Body,
    Branch,
    D,
    Delivery,
    Loop,
    Node,
    OnError,
    Option,
    Parallel,
    Reducer,
    S,
    Schema,
    Sleep,
    Step,
    Sub,
    Wait,
    parts,
)

AnyBody: TypeAlias = Union["Authoring[S]", Callable[["Authoring[S]"], "Authoring[S]"], AsyncStep[S]]
"""A body: a flow, a function that is given a builder and gives a flow, or one async step."""


class Authoring(Generic[S]):
    """What a flow is built with. A flow never changes: every method returns a new one."""

    _plan: Plan[S]

    def start_with(
        self,
        step: "Step[S, D] | Authoring[S]",
        *,
        name: str | None = None,
        retries: Option[int, S] = 0,
        delay: Option[float | Backoff, S] = 0.0,
        timeout: Option[float | None, S] = None,
        compensate: Asked[S, None, D] | None = None,
        fallback: Step[S, D] | None = None,
        delivery: Delivery = "at_least_once",
        verify: Asked[S, bool, D] | None = None,
        aliases: Sequence[str] = (),
    ) -> Self:
        """The first step; see `then`."""
        if self._plan.body.steps:
            raise BadStep(self._plan.name, step, "the flow has a first step already: use .then(…)")
        return self.then(
            step,
            name=name,
            retries=retries,
            delay=delay,
            timeout=timeout,
            compensate=compensate,
            fallback=fallback,
            delivery=delivery,
            verify=verify,
            aliases=aliases,
        )

    def then(
        self,
        step: "Step[S, D] | Authoring[S]",
        *,
        name: str | None = None,
        retries: Option[int, S] = 0,
        delay: Option[float | Backoff, S] = 0.0,
        timeout: Option[float | None, S] = None,
        compensate: Asked[S, None, D] | None = None,
        fallback: Step[S, D] | None = None,
        delivery: Delivery = "at_least_once",
        verify: Asked[S, bool, D] | None = None,
        aliases: Sequence[str] = (),
    ) -> Self:
        """The next step: takes `(state)` or `(state, ctx)`, async or sync, and changes the state in place; or a flow.

        It returns None, or `goto("name")` or `"#name"` to go on at an anchor. An async generator yields events for
        `stream`. `name` is by default the function's own; stored runs are resumed by it. A step that raises is tried
        `retries` more times, each from the state that was before it, after `delay` seconds or a `Backoff`; an attempt
        may last `timeout` seconds (a sync step cannot be interrupted). Each of these is a value or a function of the
        state. When all attempts have failed, `fallback` takes the step's place. Should the run fail later on,
        `compensate` undoes the step.

        With `delivery="at_most_once"` a step that a crash has interrupted is not simply done again: `verify(state)`
        says whether it was done, and, without one, the run waits for that answer. `aliases` are names that the step had
        when runs were stored that are still to go on.
        """
        if isinstance(step, Authoring):
            options = (retries, delay, timeout, compensate, fallback, delivery, verify)
            return self._sub(cast(Any, step), name, aliases, options)
        task = new_task(
            self._plan.name,
            step,
            name,
            retries=retries,
            delay=delay,
            timeout=timeout,
            compensate=compensate,
            fallback=fallback,
            delivery=delivery,
            verify=verify,
            aliases=aliases,
        )
        return self._plus(task)

    def branch(
        self,
        router: Asked[S, str, Any],
        cases: Mapping[str, AnyBody[S]],
        *,
        default: AnyBody[S] | None = None,
        name: str | None = None,
        aliases: Sequence[str] = (),
    ) -> Self:
        """One of several bodies: the case that `router(state)` names, or else `default`.

        What the router chose is stored, and not asked again after a crash.
        """
        chosen, flow = name_of(name, router), self._plan.name
        if not isinstance(cases, Mapping) or not cases or (default is not None and "default" in cases):
            raise BadOption("cases", cases, "it is a mapping of names to bodies; one of them may be default=…")
        bodies = {check_name("case", case): self._body(body) for case, body in cases.items()}
        for literal in literals_of(router):
            if literal not in bodies and default is None:
                raise BadStep(flow, router, f"it may name {literal!r}, which is none of the cases")
        otherwise = None if default is None else self._body(default)
        return self._plus(Branch(chosen, quoted(chosen), new_call(flow, router), bodies, otherwise, names_of(aliases)))

    def loop(
        self,
        condition: Asked[S, object, Any],
        body: AnyBody[S],
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
    ) -> Self:
        """A body, again and again while `condition(state)` holds, which is asked before each iteration.

        `ctx.index` is the number of the iteration, from 0. After a crash the condition is asked again, of the same
        state: it should depend on nothing else.
        """
        chosen, flow = name_of(name, condition), self._plan.name
        return self._plus(Loop(chosen, quoted(chosen), new_call(flow, condition), self._body(body), names_of(aliases)))

    def batch(
        self,
        items: Asked[S, Iterable[object], Any],
        body: AnyBody[S],
        *,
        name: str | None = None,
        concurrency: int = 1,
        max_failures: int = 0,
        reducer: Reducer | Mapping[str, Reducer] | None = None,
        on_error: OnError = "cancel",
        timeout: float | None = None,
        aliases: Sequence[str] = (),
    ) -> Self:
        """A body for each of `items(state)`, which are fixed when the batch begins: `ctx.item`, `ctx.index`.

        Items are done one after the other; with `concurrency` so many at a time, each on a draft of the state, merged
        in the end as `parallel` does. Up to `max_failures` items may fail: what they did to the state is dropped, and
        the result lists them. `timeout` is in seconds, for each item.
        """
        chosen, flow = name_of(name, items), self._plan.name
        check_count("concurrency", concurrency, 1)
        check_count("max_failures", max_failures, 0)
        reducer = check_lanes(reducer, on_error, timeout)
        node: Batch[S] = Batch(
            chosen,
            quoted(chosen),
            new_call(flow, items, may_yield=True),
            self._body(body),
            concurrency,
            max_failures,
            reducer,
            on_error,
            timeout,
            names_of(aliases),
        )
        return self._plus(node)

    def parallel(
        self,
        lanes: Sequence[AnyBody[S]],
        *,
        reducer: Reducer | Mapping[str, Reducer] | None = None,
        name: str = "parallel",
        on_error: OnError = "cancel",
        timeout: float | None = None,
        aliases: Sequence[str] = (),
    ) -> Self:
        """Bodies side by side, each on a draft of the state of its own; in the end the drafts are merged.

        What only one lane changed is taken. A key that several changed needs a `reducer`, `(before, values)`, for all
        keys or by key: see `flowneer_async.reducers`. When a lane fails, "cancel" ends the others, "wait" lets them
        finish first. `timeout` is in seconds, for each lane.
        """
        if isinstance(lanes, (str, Mapping)) or not isinstance(lanes, Sequence) or not lanes:
            raise BadOption("lanes", lanes, "it is a list of bodies")
        reducer = check_lanes(reducer, on_error, timeout)
        bodies = tuple(map(self._body, lanes))
        labels = tuple(next(iter(body.steps)) for body in bodies)
        chosen = check_name("step", name)
        node: Parallel[S] = Parallel(
            chosen, quoted(chosen), bodies, labels, reducer, on_error, timeout, names_of(aliases)
        )
        return self._plus(node)

    def anchor(self, name: str, max_visits: int | None = None, *, aliases: Sequence[str] = ()) -> Self:
        """A place that steps after it, before it or in bodies next to it may jump to, `max_visits` times at most."""
        check_name("anchor", name)
        if max_visits is not None:
            check_count("max_visits", max_visits, 1)
        return self._plus(Anchor(name, quoted(name), max_visits, names_of(aliases)))

    def sleep(
        self,
        until: Option[float | timedelta | datetime, S],
        *,
        name: str = "sleep",
        aliases: Sequence[str] = (),
    ) -> Self:
        """Go on only after so many seconds, or at a moment; `until` may be a function of the state.

        The run is stored as waiting, and `run` returns; `resume` goes on when the time has come. The seconds count from
        when the step was first reached. Without a full store the run sleeps in place.
        """
        check_options(until=until)
        check_name("step", name)
        return self._plus(Sleep(name, quoted(name), until, names_of(aliases)))

    def wait_for(
        self,
        signal: str,
        *,
        into: str | None = None,
        schema: Schema[Any] | None = None,
        timeout: Option[float | None, S] = None,
        fallback: Step[S, Any] | None = None,
        name: str | None = None,
        aliases: Sequence[str] = (),
    ) -> Self:
        """Go on only when the signal has come: `await flow.signal(run_id, signal, payload)`.

        The payload, checked by `schema`, is put into the state under `into`. The run is stored as waiting, and `run`
        returns; `resume` goes on. A signal is used once; one that came early is kept. After `timeout` seconds, which
        count from when the step was first reached, it fails with SignalTimeout, or `fallback` takes its place.
        """
        check_name("signal", signal)
        chosen = check_name("step", signal if name is None else name)
        check_options(timeout=timeout)
        if into is not None and not isinstance(into, str):
            raise BadOption("into", into, "it is a key of the state")
        if schema is not None:
            check_schema(schema)
        fallen = optional_call(self._plan.name, fallback)
        node: Wait[S] = Wait(chosen, quoted(chosen), signal, into, schema, timeout, fallen, names_of(aliases))
        return self._plus(node)

    def add(self, fragment: "Authoring[S]") -> Self:
        """The steps of a fragment, as if they were written here."""
        if not isinstance(fragment, Authoring):
            raise BadStep(self._plan.name, fragment, "it is no fragment()")
        built = self
        for node in fragment._inner(self._plan.name).order:
            built = built._plus(node)
        if fragment._plan.body.on_error is not None:
            raise BadStep(self._plan.name, fragment, "it has an on_error: make it a step of its own, .then(…)")
        return built

    def on_error(self, body: AnyBody[S]) -> Self:
        """What to do when a step of this flow fails for good: then the flow, or body, is over, and has not failed.

        First what its steps have done is undone (`compensate`), in reverse. `ctx.failure` names the step that failed.
        """
        if self._plan.body.on_error is not None:
            raise BadStep(self._plan.name, body, "the flow has an on_error already")
        rescue = self._body(body)
        for name in sorted(_anchors_of(rescue).intersection(self._plan.body.anchors)):
            raise DuplicateName(self._plan.name, name)
        return self._with(body=replace(self._plan.body, on_error=rescue))

    def _sub(self, flow: "Authoring[S]", name: str | None, aliases: Sequence[str], options: tuple[object, ...]) -> Self:
        if options != (0, 0.0, None, None, None, "at_least_once", None):
            raise BadStep(self._plan.name, flow, "a flow takes no options but name and aliases: give them to its steps")
        chosen = check_name("step", flow._plan.name if name is None else name)
        body = check_body(self._plan.name, flow._inner(self._plan.name))
        return self._plus(Sub(chosen, quoted(chosen), body, names_of(aliases)))

    def _body(self, given: object) -> Body[S]:
        """What a flow, a function of a builder, or an async step is as a body."""
        flow = self._plan.name
        if not isinstance(given, Authoring):
            if iscoroutinefunction(given) or isasyncgenfunction(given):
                task = new_task(flow, given)
                return Body({task.name: task})
            given = self._built(given)
        return check_body(flow, cast(Authoring[S], given)._inner(flow))

    def _built(self, given: Any) -> "Authoring[S]":
        """What a function makes of an empty builder like this one."""
        flow = self._plan.name
        rule = (
            "a body is a flow, an async step, or a function that is given a builder and gives a flow; "
            "one step that is not async is fragment().then(step)"
        )
        if not callable(given):
            raise BadStep(flow, given, rule)
        try:
            built = given(self._with(body=Body(), store=None, entries=None, hooks=()))
        except (TypeError, AttributeError, KeyError) as error:
            raise BadStep(flow, given, rule) from error
        if iscoroutine(built):
            built.close()
        if not isinstance(built, Authoring):
            raise BadStep(flow, given, rule)
        return cast(Authoring[S], built)

    def _inner(self, outer: str) -> Body[S]:
        """The body of a flow that becomes a part of flow `outer`."""
        plan = self._plan
        if plan.store is not None or plan.entries is not None or plan.hooks:
            raise BadStep(outer, self, f"flow {plan.name!r} has a store or hooks: give them to the outermost flow")
        return plan.body

    def _plus(self, node: Node[Any]) -> Self:
        plan, body = self._plan, self._plan.body
        for name in (node.name, *node.aliases):
            if name in body.steps or name in body.aliases:
                raise DuplicateName(plan.name, name)
        for name in _shadowed(body, node):
            raise DuplicateName(plan.name, name)
        aliases = {**body.aliases, **dict.fromkeys(node.aliases, node.name)} if node.aliases else body.aliases
        return self._with(body=Body({**body.steps, node.name: node}, body.on_error, aliases))

    def _with(self, **changes: Any) -> Self:
        return self._with_plan(self._plan, **changes)

    def _with_plan(self, plan: Plan[S], **changes: Any) -> Self:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__, _plan=replace(plan, **changes))
        return new


def _shadowed(body: Body[Any], node: Node[Any]) -> list[str]:
    """The anchors of which a jump out of a body would not know which one is meant."""
    if isinstance(node, Anchor):
        within = [anchors_within(each) for each in body.order]
        rescue = frozenset[str]() if body.on_error is None else _anchors_of(body.on_error)
        return [node.name] if any(node.name in anchors for anchors in (*within, rescue)) else []
    inside = anchors_within(node)
    return sorted(inside.intersection(body.anchors)) if inside else []


def anchors_within(node: Node[Any]) -> frozenset[str]:
    """The names of all anchors in the bodies of a step."""
    return frozenset[str]().union(*(_anchors_of(body) for _, body in parts(node)))


def _anchors_of(body: Body[Any]) -> frozenset[str]:
    inner = [] if body.on_error is None else [_anchors_of(body.on_error)]
    return frozenset(body.anchors).union(*map(anchors_within, body.order), *inner)
