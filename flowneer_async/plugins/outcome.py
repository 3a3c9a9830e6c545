"""How an attempt of a step ended, in a word that holds nothing of the state."""

from typing import Literal, TypeAlias

import anyio

Outcome: TypeAlias = Literal["done", "failed", "cancelled", "interrupted"]
"""Of an attempt: it came to its end, it raised, it was cancelled, or it waits for an answer and will begin anew."""


def outcome_of(error: BaseException) -> Outcome:
    """What an attempt that raised `error` came to."""
    if isinstance(error, Exception):
        return "failed"
    # Beside a cancellation only the engine's own control signals, and what ends the process, are no Exception.
    return "cancelled" if isinstance(error, anyio.get_cancelled_exc_class()) else "interrupted"


def type_name(error: BaseException) -> str:
    """The type of an error, by which a log may name it: its message may hold values of the state."""
    return type(error).__qualname__
