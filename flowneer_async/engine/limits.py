"""How many runs may be at work at the same time, and how many may begin within a time."""

from dataclasses import dataclass

from flowneer_async.errors import BadOption


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` runs begin within any `per` seconds."""

    limit: int
    per: float

    def __post_init__(self) -> None:
        if self.limit < 1 or not 0 < self.per < float("inf"):
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
            if limit is not None and limit < 1:
                raise BadOption(name, limit, "it is a number of runs, of 1 or more")


FREE = Limits()
"""No limits at all."""
