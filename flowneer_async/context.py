"""What a step may know of the run it is part of."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    D_co = TypeVar("D_co", covariant=True, default=object)
else:
    from typing import TypeVar

    D_co = TypeVar("D_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Context(Generic[D_co]):
    """Given to a step that takes `(state, ctx)`.

    `step` is the step's path in the flow, `attempt` counts from 1. `deps` are the live objects (clients, sessions)
    that were passed to `run(…, deps=…)`; they are never stored.
    """

    run_id: str
    step: str
    attempt: int
    deps: D_co

    @property
    def idempotency_key(self) -> str:
        """One key for this step of this run: the same in every retry, resume and process.

        A crash between a step's effect and its save runs the step again; an outside world that is told the key can
        tell the second call from a new one (as https://docs.stripe.com/api/idempotent_requests describes).
        """
        return f"{self.run_id}/{self.step}"
