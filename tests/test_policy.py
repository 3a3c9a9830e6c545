"""The schedule of retries: pure, with the random numbers passed in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async import Backoff, BadOption, World
from flowneer_async.policy import wait_after
from tests.support.trees import QUICK


def lowest() -> float:
    return 0.0


def test_each_wait_is_longer_up_to_the_most() -> None:
    """`first`, then `factor` times as long each time, never more than `most`."""
    backoff = Backoff(first=1, factor=3, most=20)
    assert [backoff.wait(attempt, lowest) for attempt in range(1, 6)] == [1, 3, 9, 20, 20]


def test_jitter_takes_a_share_of_each_wait() -> None:
    """A drawn 0 takes nothing of it, a drawn 1 the whole share."""
    assert Backoff(first=8, jitter=0.25).wait(1, lambda: 0.0) == 8
    assert Backoff(first=8, jitter=0.25).wait(1, lambda: 1.0) == 6
    assert Backoff(first=8, jitter=0).wait(1, lambda: 1.0) == 8


@QUICK
@given(
    st.builds(
        Backoff,
        first=st.floats(0, 1e300),
        factor=st.floats(1, 1e300),
        most=st.floats(0, 1e9),
        jitter=st.floats(0, 1),
    ),
    st.integers(1, 10**9),
    st.floats(0, 1),
)
def test_a_wait_is_always_between_nothing_and_the_most(backoff: Backoff, attempt: int, drawn: float) -> None:
    """However many attempts, and however fast the waits grow."""
    assert 0 <= backoff.wait(attempt, lambda: drawn) <= backoff.most


@pytest.mark.parametrize(
    "options",
    [{"first": -1}, {"factor": 0.5}, {"most": -1}, {"jitter": 1.1}, {"jitter": -0.1}, {"first": float("nan")}],
    ids=str,
)
def test_a_schedule_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    """When it is built, and not at the first retry."""
    with pytest.raises(BadOption) as caught:
        Backoff(**options)
    assert caught.value.option == "delay"


def test_a_plain_delay_is_the_same_each_time() -> None:
    """A number of seconds is waited as it is, a Backoff is asked."""
    assert [wait_after(attempt, 1.5, lowest) for attempt in (1, 2, 9)] == [1.5] * 3
    assert wait_after(2, Backoff(first=1, factor=2), lowest) == 2


def test_the_world_makes_ids_that_differ() -> None:
    """Two runs without an id are two runs; and its time is Unix time in ms."""
    world = World()
    assert world.new_run_id() != world.new_run_id()
    assert world.now() > 1_700_000_000_000
    assert 0 <= world.draw() < 1
