"""For tests of flows and of stores; needs pytest, and is imported by tests only.

A store of your own keeps the promises of `VersionStore` if it passes `StoreContract`:

    from flowneer_async.testing import StoreContract

    class TestMyStore(StoreContract):
        def make_store(self, tmp_path):
            return MyStore(tmp_path / "runs.db")

A flow is tested without waiting, and with the same ids each time, in a `FakeWorld`. That it ends the same wherever its
process dies, `crash_points` finds out:

    async def test_report():
        await crash_points(report.with_versioned_checkpoint(MemoryStore()), {"url": "https://example.org"})

It is a fixture, too, which runs the test for each durability. For that, `conftest.py` (the topmost one) says
`pytest_plugins = ["flowneer_async.testing.fixtures"]`, and the test takes it: `async def test_report(crash_points)`.
"""

import pytest

# Before they are imported: so a failed assertion of the contract shows its values in your tests, as one of your own.
pytest.register_assert_rewrite(
    *(f"{__name__}.{part}" for part in ("cancelling", "dropping", "due", "finding", "flows", "keeping")),
    *(f"{__name__}.{part}" for part in ("purging", "reading", "runs", "signals", "waking", "watching", "writing")),
)

from flowneer_async.testing.contract import StoreContract  # noqa: E402
from flowneer_async.testing.crashes import Crash, CrashingStore  # noqa: E402
from flowneer_async.testing.effects import Effects  # noqa: E402
from flowneer_async.testing.points import CrashPoints, crash_points  # noqa: E402
from flowneer_async.testing.world import FakeWorld  # noqa: E402

__all__ = ["Crash", "CrashPoints", "CrashingStore", "Effects", "FakeWorld", "StoreContract", "crash_points"]
