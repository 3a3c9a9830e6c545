"""Fixtures for tests of flows: the topmost conftest.py says `pytest_plugins = ["flowneer_async.testing.fixtures"]`."""

from functools import partial

import pytest

from flowneer_async.testing.points import CrashPoints
from flowneer_async.testing.points import crash_points as check_crash_points


@pytest.fixture(params=("sync", "async", "exit"))
def crash_points(request: pytest.FixtureRequest) -> CrashPoints:
    """The function `crash_points`; a test that takes it is run once for each durability."""
    return partial(check_crash_points, durability=request.param)
