"""Dry run: what would have been done, without doing it."""

from flowneer_async.plugins import DryRun, WouldCall, dry_run
from tests.support.plugged import State, flow, nothing


async def test_steps_that_match_are_noted_and_not_called_and_the_others_run() -> None:
    def load(state: State) -> None:
        state["to"] = "abc"

    def send(state: State) -> None:
        raise AssertionError("called")

    record = DryRun()
    dry = flow().then(load).batch(lambda state: state["to"], flow().then(send), name="emails")
    result = await dry.add_hooks(dry_run(record), ["send"]).run({}, run_id="r")
    assert (result.status, result.state) == ("completed", {"to": "abc"})
    assert record.steps == ["emails[0]/send", "emails[1]/send", "emails[2]/send"]
    assert record.calls[1] == WouldCall("r", "emails[1]/send", "r/emails[1]/send")


async def test_without_a_filter_nothing_is_called() -> None:
    record = DryRun()
    await flow().then(nothing, name="a").then(nothing, name="b").add_hooks(dry_run(record)).run({})
    assert record.steps == ["a", "b"]
