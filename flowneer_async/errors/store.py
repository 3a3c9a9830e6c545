"""Stores that cannot do what they were asked."""

from flowneer_async.errors.family import FlowneerError


class StoreError(FlowneerError):
    """A store that cannot do what it was asked."""


class UnknownRun(StoreError):
    """The store has no run `run_id`."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"the store has no run {run_id!r}")
        self.run_id = run_id


class UnknownVersion(StoreError):
    """The store has no version `version`."""

    def __init__(self, version: str) -> None:
        super().__init__(f"the store has no version {version!r} (a version id is written run_id@number)")
        self.version = version


class CorruptVersion(StoreError):
    """The content of `version` is not what was stored."""

    def __init__(self, version: str, reason: str) -> None:
        super().__init__(f"version {version!r} is damaged ({reason}): resume from an earlier one, or restore the store")
        self.version, self.reason = version, reason


class BrokenChain(StoreError):
    """`version` cannot be resolved: `missing`, which it builds on, is not in the store."""

    def __init__(self, version: str, missing: str) -> None:
        super().__init__(f"version {version!r} builds on {missing!r}, which is missing: restore the store")
        self.version, self.missing = version, missing


class CorruptRun(StoreError):
    """What is kept of run `run_id` beside its versions cannot be read; the runs after it are found at `after`."""

    def __init__(self, run_id: str, reason: str, after: str | None = None) -> None:
        super().__init__(f"run {run_id!r} is damaged ({reason}): restore the store")
        self.run_id, self.reason, self.after = run_id, reason, after


class VersionConflict(StoreError):
    """`version` cannot be appended: the head of its run is not its parent."""

    def __init__(self, version: str, head: str | None) -> None:
        super().__init__(f"version {version!r} cannot be appended: the head of its run is {head!r}, not its parent")
        self.version, self.head = version, head


class CorruptSignal(StoreError):
    """Signal `number` of run `run_id` is not what was stored."""

    def __init__(self, run_id: str, number: int, reason: str) -> None:
        super().__init__(f"signal {number} of run {run_id!r} is damaged ({reason}): restore the store")
        self.run_id, self.number, self.reason = run_id, number, reason


class Forged(StoreError):
    """The `kind` (run, version or signal) called `name` is not as it was signed.

    Where it is a run that was alone on its page, the runs after it are found at `after`.
    """

    def __init__(self, kind: str, name: str, reason: str, after: str | None = None) -> None:
        super().__init__(
            f"{kind} {name!r} is not as it was signed ({reason}): give the key that it was signed with, or restore the "
            "store and find out who else writes to it"
        )
        self.kind, self.name, self.reason, self.after = kind, name, reason, after


class NotEncrypted(StoreError):
    """The `kind` (version or signal) called `name` was stored as it is, in a store whose content is encrypted."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"{kind} {name!r} is not encrypted: read what was stored before through the store itself, and copy it over"
        )
        self.kind, self.name = kind, name


class UnknownKey(StoreError):
    """The `kind` (version or signal) called `name` was encrypted with key `key_id`, which the store was not given."""

    def __init__(self, kind: str, name: str, key_id: str) -> None:
        super().__init__(
            f"{kind} {name!r} is encrypted with key {key_id!r}, which is not among the keys: add it to them"
        )
        self.kind, self.name, self.key_id = kind, name, key_id


class NotADatabase(StoreError):
    """The file at `path` is not a database that this store can read."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path!r} is not a SQLite database, or is damaged, or its disk fails: try again, restore a backup, or "
            "choose another file"
        )
        self.path = path


class SchemaTooNew(StoreError):
    """The store has schema `found`; this release knows up to `known`."""

    def __init__(self, place: str, found: int, known: int) -> None:
        super().__init__(f"{place!r} has schema {found}, this release knows up to {known}: upgrade flowneer-async")
        self.place, self.found, self.known = place, found, known


class NoTransactions(StoreError):
    """A step asks for a transaction, and `store`, which keeps its run, has none."""

    def __init__(self, store: str) -> None:
        super().__init__(
            f"{store} has no transactions for steps: give the flow a store in a database, such as SqliteStore"
        )
        self.store = store


class StoreFull(StoreError):
    """There is no room for what was to be stored; nothing of it was."""

    def __init__(self, place: str) -> None:
        super().__init__(f"{place!r} is full: free some room and run the same run id again")
        self.place = place


class StoreBusy(StoreError):
    """The store stayed locked for `seconds`."""

    def __init__(self, place: str, seconds: float) -> None:
        super().__init__(f"{place!r} stayed locked by another program for {seconds:g} s: try again")
        self.place, self.seconds = place, seconds


class StoreUnreachable(StoreBusy):
    """The server of the store could not be reached for `seconds`. What was being stored then is stored, or is not."""

    def __init__(self, place: str, seconds: float) -> None:
        StoreError.__init__(
            self, f"{place!r} could not be reached for {seconds:g} s: run the same run id again when it can be"
        )
        self.place, self.seconds = place, seconds


class ExtraMissing(StoreError):
    """`what` needs packages that are not installed: those of the extra `extra`."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra {extra!r}: pip install 'flowneer-async[{extra}]'")
        self.what, self.extra = what, extra


class StoreClosed(StoreError):
    """The store at `place` is not open."""

    def __init__(self, place: str) -> None:
        super().__init__(f"{place!r} is not open: use it inside 'async with'")
        self.place = place


class StoreFailed(StoreError):
    """`operation` failed in the store; the reason is the cause of this error."""

    def __init__(self, place: str, operation: str, reason: str) -> None:
        super().__init__(f"{operation} failed in {place!r}: {reason}")
        self.place, self.operation, self.reason = place, operation, reason


class ReadOnly(StoreError):
    """The store only reads, and was asked to `operation`."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"this store is read-only and cannot {operation}: use the one that it is made of")
        self.operation = operation


class StateTooLarge(StoreError):
    """A state of run `run_id` has `size` bytes of JSON, and may have `limit`; nothing of it was stored."""

    def __init__(self, run_id: str, size: int, limit: int) -> None:
        super().__init__(
            f"the state of run {run_id!r} would have {size:,} bytes, and may have {limit:,}: keep what is large "
            "elsewhere and its place in the state, or allow more and run the same run id again"
        )
        self.run_id, self.size, self.limit = run_id, size, limit


class TooManyVersions(StoreError):
    """Run `run_id` may have `limit` versions, and would have more; nothing of them was stored."""

    def __init__(self, run_id: str, limit: int) -> None:
        super().__init__(
            f"run {run_id!r} would have more than {limit:,} versions: look for a loop that does not end, or allow more "
            "and run the same run id again"
        )
        self.run_id, self.limit = run_id, limit


class RunExists(StoreError):
    """A run cannot be brought into a store that has a run `run_id` already; nothing was changed."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"the store has a run {run_id!r} already: purge that one first, or use another store")
        self.run_id = run_id


class BadExport(StoreError):
    """Line `line` (from 1) of what was to be imported is not what was exported; nothing of it was stored."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line} of the export cannot be used: {reason}")
        self.line, self.reason = line, reason
