"""What goes into a PostgreSQL database comes out again, to the bit."""

from pathlib import Path
from typing import Any

import pytest

from flowneer_async import FlowBuilder, Run
from flowneer_async.store import RunFilter
from tests.support.postgres import store_at

STATE: dict[str, Any] = {
    "z": "NUL \0 and \u0000 in a text",
    "a": -0.0,
    "a\0b": "NUL in a key",
    "order": {"b": 1, "a": 2, "B": 3, "": 4},
    "numbers": [1, 1.0, True, 10**30, 1e300, 5e-324, 2**53 + 1],
    "text": "ü€😀\\u0041\\\\'\"; DROP TABLE flowneer_runs --",
    "bytes": bytes(range(256)),
    "same": {"1": "text", 1: "number"},
}


async def test_a_state_comes_back_exactly(tmp_path: Path) -> None:
    """NUL, the sign of zero, the order of keys, kinds of numbers: all that a column of JSON would have changed."""

    def step(state: dict[str, Any]) -> None:
        state["order"]["0"] = -0.0

    flow = FlowBuilder("exact").start_with(step).wait_for("go", into="got")
    async with store_at(tmp_path) as store:
        result = await flow.with_versioned_checkpoint(store).run(STATE, run_id="run")
        assert result.status == "waiting"
    async with store_at(tmp_path) as store:
        state = (await store.resolve("run@1")).state
    expected = {**STATE, "order": {**STATE["order"], "0": -0.0}}
    assert state == expected
    assert repr(state) == repr(expected)


@pytest.mark.parametrize("error", ["a\0b", "\ud800 alone", "\0\udfff", "ü"])
async def test_an_error_of_any_text_is_kept_in_some_form(tmp_path: Path, error: str) -> None:
    """What the database has no sign for is replaced: a run that has failed is never stored as one that runs."""
    async with store_at(tmp_path) as store:
        lease = await store.create(Run("run", "flow", "dict", ()))
        assert lease is not None
        await store.release(lease, "failed", error)
        run = await store.read("run")
        assert (run.status, run.owner) == ("failed", None)
        assert run.error is not None
        assert len(run.error) == len(error)
        assert run.error == error or "\0" in error or not error.isprintable()


async def test_tags_are_found_whatever_is_in_them(tmp_path: Path) -> None:
    """They are found by what they are, not by what they look like in a column of JSON."""
    texts = ["1", "1.0", "true", "null", "", " ", '"', "\\u0000", "{}", "[]", "ü", "%", "_", "\\", "\x01"]
    async with store_at(tmp_path) as store:
        for number, text in enumerate(texts):
            await store.create(Run(f"run-{number}", "flow", "dict", (), tags={text: text, "same": "x"}))
        for number, text in enumerate(texts):
            found = (await store.find(RunFilter(tags={text: text}), 100)).runs
            assert [run.run_id for run in found] == [f"run-{number}"]
            assert dict(found[0].tags) == {text: text, "same": "x"}
        assert len((await store.find(RunFilter(tags={"same": "x"}), 100)).runs) == len(texts)
