"""Reading the events of a run over HTTP, as a browser does, over connections that are cut."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import httpx

from flowneer_async.store import VersionStore

_ENDS = ("completed", "failed", "cancelled")


class Event(NamedTuple):
    """One event, as it was sent; `step` is the path of the step that it tells of."""

    id: str
    kind: str
    step: str | None


class Reader:
    """Reads the events of a run: where the stream was cut, it goes on after the last event that it has seen."""

    def __init__(self, run_id: str, query: str = "") -> None:
        self.run_id, self._query = run_id, query
        self.seen: list[Event] = []
        self.is_connected = False

    @property
    def is_at_end(self) -> bool:
        return bool(self.seen) and self.seen[-1].kind in _ENDS

    async def read(self, client: httpx.AsyncClient, most: int | None = None) -> int:
        """Connect, read so many bytes at most, and disconnect; gives the status, 0 where there was no answer."""
        status, got, before = 0, b"", list(self.seen)
        headers = {"Last-Event-ID": before[-1].id} if before else {}
        try:
            async with client.stream("GET", f"/runs/{self.run_id}/events?{self._query}", headers=headers) as response:
                status, self.is_connected = response.status_code, True
                async for chunk in response.aiter_raw():
                    got = (got + chunk)[:most]
                    self.seen = [*before, *events_in(got)]
                    if len(got) == most:
                        break
        except httpx.TransportError:  # cut by the other side
            pass
        finally:
            self.is_connected = False
        return status


def events_in(sent: bytes) -> Sequence[Event]:
    """The events of a stream that were sent as a whole."""
    blocks = sent.decode(errors="replace").split("\n\n")[:-1]
    return [_event(block) for block in blocks if not block.startswith(":")]


async def events_of(store: VersionStore, run_id: str) -> Sequence[Event]:
    """What is to be told of a completed run of plain steps: each of its versions, and that it is over."""
    versions = await store.versions(run_id, 1)
    steps = [Event(str(version.seq), "step", version.path) for version in versions]
    return [*steps, Event(f"{versions[-1].seq}.completed", "completed", None)]


def _event(block: str) -> Event:
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    return Event(fields["id"], fields["event"], json.loads(fields["data"]).get("step"))
