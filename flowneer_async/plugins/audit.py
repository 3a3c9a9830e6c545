"""Audit log: who did what, when, and what came of it; appended line by line, and no line is lost to a cancellation."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import orjson

from flowneer_async.context import Context
from flowneer_async.hooks import Filter, Hooks, Proceed
from flowneer_async.plugins.builder import F
from flowneer_async.plugins.outcome import Outcome, outcome_of, type_name
from flowneer_async.policy import unix_ms
from flowneer_async.shield import complete
from flowneer_async.versions import Status


@dataclass(frozen=True, slots=True)
class Audited:
    """At `at`, Unix time in ms, `actor` began something, or ended it.

    `event` is "begun" or what an attempt of a step came to; where `step`, a path, is empty, it is the run that has
    begun, or what has become of it. `error` is the type of what was raised.
    """

    at: int
    actor: str | None
    run_id: str
    step: str
    attempt: int | None
    event: Literal["begun"] | Outcome | Status
    error: str | None = None


Sink: TypeAlias = Callable[[Audited], Awaitable[None] | None]
"""Where lines go: a function, async or sync."""


def audit_log(
    sink: Sink, *, actor: str | Callable[[Context[Any]], str] | None = None, now: Callable[[], int] = unix_ms
) -> Hooks[object]:
    """Hooks that give `sink` a line before each attempt of a step and one after it, and so for the run.

    `actor` says who: a name, or a function of ctx, `lambda ctx: ctx.deps.user`. A sink that has begun is not
    cancelled; when it raises, the step fails, before it is called. "done" says that the step has come to its end;
    whether its version was stored then, the store tells.
    """
    lines = _Lines(sink, actor, now)
    return Hooks(before_flow=lines.begun, after_flow=lines.ended, wrap_step=lines.around)


class _Lines:
    def __init__(self, sink: Sink, actor: str | Callable[[Context[Any]], str] | None, now: Callable[[], int]) -> None:
        self._sink, self._actor, self._now = sink, actor, now

    async def begun(self, state: object, ctx: Context) -> None:
        await self._write(ctx, "begun")

    async def ended(self, state: object, ctx: Context, status: Status) -> None:
        await self._write(ctx, status)

    async def around(self, proceed: Proceed, state: object, ctx: Context) -> None:
        try:
            await self._write(ctx, "begun")
            await proceed()
        except GeneratorExit:  # thrown away in the middle: nothing can be awaited any more
            raise
        except BaseException as error:
            await self._write_end(ctx, error)
            raise
        await self._write(ctx, "done")

    async def _write_end(self, ctx: Context, error: BaseException) -> None:
        """What ended the step goes on, whatever becomes of the line."""
        try:
            await self._write(ctx, outcome_of(error), error)
        except Exception as failure:
            error.add_note(f"the audit log has no line of this: its sink raised {type_name(failure)}")

    async def _write(
        self, ctx: Context, event: Literal["begun"] | Outcome | Status, error: BaseException | None = None
    ) -> None:
        actor = self._actor(ctx) if callable(self._actor) else self._actor
        failed = None if error is None else type_name(error)
        attempt = ctx.attempt if ctx.step else None
        line = Audited(self._now(), actor, ctx.run_id, ctx.step, attempt, event, failed)
        writing = self._sink(line)
        if isawaitable(writing):
            await complete(_awaited(writing))


async def _awaited(writing: Awaitable[None]) -> None:
    await writing


class JsonLines:
    """A sink that appends to a file, one JSON object a line; to be used inside `with`.

    A line is one write: processes may share the file, and a process that is killed loses none. With `fsync` each line
    waits until it survives the loss of power too. Raises OSError where the file cannot be written.
    """

    def __init__(self, path: str | Path, *, fsync: bool = False) -> None:
        self._path, self._fsync, self._file = Path(path), fsync, -1

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._file).st_size
        # A line that the loss of power has torn must not spoil the next one.
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        file, self._file = self._file, -1
        os.close(file)

    def __call__(self, line: Audited) -> None:
        """Append a line."""
        text = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        while text:
            text = text[os.write(self._file, text) :]
        if self._fsync:
            os.fsync(self._file)


class Auditing:
    """`flow.with_audit_log(sink)`, for `FlowBuilder.extend([Auditing])`."""

    def with_audit_log(
        self: F,
        sink: Sink,
        filter: Filter | None = None,
        *,
        actor: str | Callable[[Context[Any]], str] | None = None,
    ) -> F:
        """What happens in a run, and in the steps that `filter` names, is told to `sink`, and no value of the state."""
        return self.add_hooks(audit_log(sink, actor=actor), filter)
