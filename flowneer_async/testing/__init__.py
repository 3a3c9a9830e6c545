"""For tests of flows and of stores; needs pytest, and is imported by tests only.

A store of your own keeps the promises of `VersionStore` if it passes `StoreContract`:

    from flowneer_async.testing import StoreContract

    class TestMyStore(StoreContract):
        def make_store(self, tmp_path):
            return MyStore(tmp_path / "runs.db")

A flow is tested without waiting, and with the same ids each time, in a `FakeWorld`. That it ends the same wherever its
process dies, `crash_everywhere` finds out.
"""

import pytest

# Before they are imported: so a failed assertion of the contract shows its values in your tests, as one of your own.
pytest.register_assert_rewrite(
    *(f"{__name__}.{part}" for part in ("cancelling", "flows", "reading", "runs", "signals", "writing"))
)

from flowneer_async.testing.contract import StoreContract  # noqa: E402
from flowneer_async.testing.crashes import Crash, CrashingStore, crash_everywhere  # noqa: E402
from flowneer_async.testing.world import FakeWorld  # noqa: E402

__all__ = ["Crash", "CrashingStore", "FakeWorld", "StoreContract", "crash_everywhere"]
