"""A store that is only read: for inspectors and reports."""

from collections.abc import Sequence
from typing import NoReturn

from flowneer_async.errors import ReadOnly
from flowneer_async.store import Lease
from flowneer_async.versions import Run, Status, Version
from flowneer_stores.wrapper import Wrapper


class ReadOnlyStore(Wrapper):
    """What `store` holds, to be read: whatever would write raises ReadOnly."""

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> NoReturn:
        raise ReadOnly("create a run")

    async def claim(self, run: Run) -> NoReturn:
        raise ReadOnly("claim a run")

    async def append(self, lease: Lease, versions: Sequence[Version]) -> NoReturn:
        raise ReadOnly("append versions")

    async def release(
        self, lease: Lease, status: Status, error: str | None = None, seal: bytes = b"", wake: int | None = None
    ) -> NoReturn:
        raise ReadOnly("release a run")

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> NoReturn:
        raise ReadOnly("send a signal")

    async def ask_cancel(self, run_id: str) -> NoReturn:
        raise ReadOnly("ask to cancel a run")

    async def drop(self, run_id: str, keep: int, since: int | None = None) -> NoReturn:
        raise ReadOnly("drop versions")

    async def purge(self, run_id: str) -> NoReturn:
        raise ReadOnly("purge a run")

    async def begin(self) -> NoReturn:
        raise ReadOnly("begin a transaction")
