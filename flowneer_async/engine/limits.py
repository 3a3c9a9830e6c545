"""How many runs may be at work at the same time, and how many may begin within a time."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

from dataclasses import dataclass

from flowneer_async.defining import is_count, is_number
from flowneer_async.errors import BadOption


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` runs begin within any `per` seconds."""

    limit: int
    per: float

    def __post_init__(self) -> None:
        if not (is_count(self.limit) and self.limit >= 1 and is_number(self.per) and 0 < self.per < float("inf")):
            raise BadOption("rate", self, "it is a number of runs, of 1 or more, and a number of seconds above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on the runs of one flow, over all processes that share a store; None is no limit.

    `concurrency` of them are at work at the same time, and of those that were started with one `key`, `per_key`. A run
    that sleeps or waits for a signal, an answer or a child is not at work. One whose process has died is, until another
    process has taken it over.
    """

    concurrency: int | None = None
    per_key: int | None = None
    rate: Rate | None = None

    def __post_init__(self) -> None:
        for name, limit in (("concurrency", self.concurrency), ("per_key", self.per_key)):
            if limit is not None and not (is_count(limit) and limit >= 1):
                raise BadOption(name, limit, "it is a number of runs, of 1 or more")
        if self.rate is not None and not isinstance(self.rate, Rate):
            raise BadOption("rate", self.rate, "it is a Rate(limit, per)")


FREE = Limits()
"""No limits at all."""
