"""A process to be killed: steps that book in transactions, one after the other, in lanes and as items.

python booking_child.py FOLDER RUN_ID
"""

import asyncio
import sys
from pathlib import Path

from flowneer_async import FlowBuilder, fragment
from tests.support.books import SqliteBooks, State, booking

STEPS = [*(f"a{number}" for number in range(8)), "b", "c", "booking"]
"""The names of those that book."""


def many_steps() -> FlowBuilder[State]:
    """Some twenty that book, and others."""
    flow: FlowBuilder[State] = FlowBuilder("many")
    for number in range(8):
        flow = flow.then(booking, name=f"a{number}").then(lambda state: None, name=f"plain{number}")
    lane = fragment().then(booking, name="b").then(booking, name="c")
    flow = flow.parallel([lane] * 4, name="lanes", reducer={"booked": lambda _, values: sum(values) - 24})
    return flow.batch(
        lambda _: range(8), booking, name="items", concurrency=3, reducer={"booked": lambda _, values: max(values)}
    )


async def main(folder: str, run_id: str) -> None:
    async with SqliteBooks(Path(folder)).store() as store:
        print("opened", flush=True)
        await many_steps().with_versioned_checkpoint(store).run({}, run_id=run_id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
