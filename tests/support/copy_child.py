"""Copies a run to another file, and stops in the middle of it, or after all of its versions, to be killed there."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from flowneer_async import Lease, Signal, Version, copy_run
from flowneer_stores import SqliteStore
from flowneer_stores.wrapper import Wrapper


class Stopping(Wrapper):
    """Says so, and waits for ever, at its second append or at its first signal."""

    at = ""
    appends = 0

    async def append(self, lease: Lease, versions: Sequence[Version]) -> None:
        self.appends += 1
        if self.at == "append" and self.appends == 2:
            await stop()
        await super().append(lease, versions)

    async def send(self, run_id: str, name: str, payload: bytes, sent: int | None = None) -> Signal:
        if self.at == "send":
            await stop()
        return await super().send(run_id, name, payload, sent)


async def stop() -> None:
    print("here", flush=True)
    await asyncio.Event().wait()


async def main(source: Path, target: Path, at: str) -> None:
    async with SqliteStore(source) as one, SqliteStore(target) as other:
        stopping = Stopping(other)
        stopping.at = at
        await copy_run("run", one, stopping)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
