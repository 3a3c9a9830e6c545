"""The leases that this process holds in one store: what keeps them alive, and which others are for nobody any more."""

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Generator, Sequence
from contextlib import contextmanager, suppress

from flowneer_async.errors import BadOption, StoreError
from flowneer_async.store import Lease
from flowneer_async.versions import Run
from flowneer_stores.owner import is_gone, this_owner


class Leases:
    """Those of one store of this process, each for so many `seconds`; `owner` is what the store calls itself."""

    def __init__(self, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        if seconds <= 0:
            raise BadOption("lease", seconds, "it is a number of seconds above 0")
        self._seconds, self._sleep = seconds, sleep
        self._held: dict[str, Lease] = {}
        self._taking: Counter[str] = Counter()
        self.owner = f"{this_owner()}:{secrets.token_hex(4)}"

    @property
    def ms(self) -> int:
        """How long one lasts."""
        return int(self._seconds * 1000)

    @contextmanager
    def taking(self, run_id: str) -> Generator[None]:
        """While a run is being taken it is not one that nobody works on, though its lease is not held yet."""
        self._taking[run_id] += 1
        try:
            yield
        finally:
            self._taking[run_id] -= 1
            if not self._taking[run_id]:
                del self._taking[run_id]

    def hold(self, lease: Lease) -> Lease:
        """Keep a lease alive from now on."""
        self._held[lease.run_id] = lease
        return lease

    def drop(self, lease: Lease) -> None:
        """Keep it alive no more."""
        if self._held.get(lease.run_id) == lease:
            del self._held[lease.run_id]

    def drop_all(self) -> None:
        """The same for all of them."""
        self._held.clear()

    def gone(self, run: Run) -> str | None:
        """The owner of a run where, for all that can be known, it no longer works on it."""
        if run.owner is None:
            return None
        is_wanted = run.run_id in self._held or run.run_id in self._taking
        gone = not is_wanted if run.owner == self.owner else self.is_gone(run.owner)
        return run.owner if gone else None

    def is_gone(self, owner: str) -> bool:
        """Is it the store of a process that is certainly dead?"""
        return owner != self.owner and is_gone(owner.rpartition(":")[0])

    async def renew(self, extend: Callable[[Sequence[Lease]], Awaitable[Container[str]]]) -> None:
        """The heartbeat: let the store `extend` them for as long as the process lives; it gives the runs still ours."""
        while True:
            await self._sleep(self._seconds / 3)
            held = list(self._held.values())
            if not held:
                continue
            with suppress(StoreError):  # tried again before they lapse
                kept = await extend(held)
                for lease in held:
                    if lease.run_id not in kept:
                        self.drop(lease)
