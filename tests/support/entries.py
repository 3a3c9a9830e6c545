"""Stores of two methods, as a user would write them."""

from typing import Any

from flowneer_async import Snapshot, VersionedCheckpointEntry


class DictStore:
    """The seed's own example: entries by their version, and a snapshot built from the parent's for each."""

    def __init__(self) -> None:
        self.versions: dict[str, VersionedCheckpointEntry] = {}
        self.snapshots: dict[str, Snapshot[dict[str, Any]]] = {}

    def save(self, entry: VersionedCheckpointEntry) -> None:
        self.versions[entry.version] = entry
        parent = {} if entry.parent_version is None else self.snapshots[entry.parent_version].state
        self.snapshots[entry.version] = Snapshot(entry.step_index, entry.diff.apply(parent))

    def resolve(self, version: str) -> Snapshot[dict[str, Any]]:
        return self.snapshots[version]
