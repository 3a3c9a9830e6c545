"""An append that is cancelled, and that the run outlives: by the time limit of a step, or of its lane."""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from flowneer_async import Context, FlowBuilder, Lease, Version, fragment
from flowneer_stores import MemoryStore
from tests.support.chains import stored_versions

LIMIT = 0.05  # seconds, of a real clock: the append hangs until it is over

State = dict[str, Any]


class HangingStore(MemoryStore):
    """Hangs for ever in the first append at a position that ends so, before or after it has stored."""

    def __init__(self, end: str, *, stored: bool) -> None:
        super().__init__()
        self._end, self._stored = end, stored

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        if not (self._end and versions[-1].path.endswith(self._end)):
            await super().append(lease, versions)
            return
        self._end = ""
        if self._stored:
            await super().append(lease, versions)
        await anyio.sleep_forever()


async def call(state: State, ctx: Context) -> None:
    state["x"] = await ctx.once("call", answer)


async def answer() -> int:
    return 7


@pytest.mark.parametrize("stored", [True, False])
async def test_a_step_that_is_cut_off_while_it_stores_leaves_no_hole(stored: bool) -> None:
    """What may be stored or not is looked up, and stored, before anything that follows it."""
    store = HangingStore("@once", stored=stored)
    flow = FlowBuilder[State]("flow").then(call, timeout=LIMIT, retries=1).then(lambda state: None, name="done")
    result = await flow.with_versioned_checkpoint(store).run({}, run_id="r")
    assert result.state == {"x": 7}
    paths = [version.path for version in await stored_versions(store, "r")]
    assert paths == ["", "call/@once", "call", "done"]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_lane_that_is_cut_off_while_it_stores_leaves_no_hole(stored: bool) -> None:
    """One that is alone stores by itself; what it was storing counts, whether or not it came to be stored."""
    store = HangingStore("b", stored=stored)
    body = fragment().then(lambda state: None, name="a").then(lambda state: None, name="b")
    flow = FlowBuilder("flow").batch(lambda state: [1], body, name="x", timeout=LIMIT, max_failures=1)
    result = await flow.with_versioned_checkpoint(store).run({}, run_id="r")
    assert [failure.step for failure in result.failures] == ["x[0]"]
    paths = [version.path for version in await stored_versions(store, "r")]
    assert paths == ["", "x/@items", "x[0]/a", "x[0]/b", "x[0]/@given_up", "x[0]/@joined", "x"]
