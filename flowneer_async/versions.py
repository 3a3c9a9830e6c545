"""The chain: versions, what each is made of, and how a row of them folds to a state."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

from flowneer_async.differ import Diff, Patch
from flowneer_async.errors import BadName, BrokenChain, CorruptVersion, UnknownVersion
from flowneer_async.splice import Splice, Text

Status: TypeAlias = Literal["running", "waiting", "completed", "failed", "cancelled"]
State = TypeVar("State")

OPEN: frozenset[Status] = frozenset(["running", "waiting"])
"""How a run stands that is not over."""

RUNNING: frozenset[Status] = frozenset(["running"])
"""How a run stands that is at work, or whose owner has died in the middle of it."""

Texts: TypeAlias = dict[str, bytes | Text]
"""The JSON of each key; in chunks where it is long and was spliced."""

ROOT = -1
"""The step index of a root version, before any step."""

ROW_WEIGHT = 1500
"""What a row costs to read, verify and fold, beside its body: in bytes of state that take as long to parse."""

FLOOR = 12_000
"""What a small state's rows may weigh before a keyframe at least: some eight of them."""

DIGEST_SIZE = 16
"""The bytes of a digest; a wrapper that signs keeps its signature behind it."""

OPAQUE = b"\x01"
"""What a body begins with that only the wrapper can read which stored it."""

HALF = b"half a copy"
"""The seal of a run that is being copied into a store."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_SEQ = re.compile(r"0|[1-9][0-9]{0,17}")
_LONG = 4096  # bytes: a text longer than that is not copied for every splice


def weight_of(body: bytes) -> int:
    """What a row of this body costs to read, in the same bytes: its body is never parsed, only verified and copied."""
    return ROW_WEIGHT + len(body) // 2


def check_run_id(run_id: object) -> str:
    """The run id, or BadName."""
    if isinstance(run_id, str) and _RUN_ID.fullmatch(run_id):
        return run_id
    raise BadName("run", run_id, f"a run id matches {_RUN_ID.pattern}")


def version_id(run_id: str, seq: int) -> str:
    """The id of version number `seq` of a run: `run_id@seq`."""
    return f"{run_id}@{seq}"


def parse_version_id(version: object) -> tuple[str, int]:
    """The run id and the number in a version id; raises UnknownVersion."""
    run_id, _, seq = version.rpartition("@") if isinstance(version, str) else ("", "", "")
    if not (_RUN_ID.fullmatch(run_id) and _SEQ.fullmatch(seq)):
        raise UnknownVersion(str(version))
    return run_id, int(seq)


class Version(NamedTuple):
    """One entry of the chain, as a store keeps it.

    `base` is the number of the keyframe it folds from, its own if it is one. `path` is the cursor of the step after
    which it was made, empty for a root. `body` is an encoded Patch: of the whole state in a keyframe, of what changed
    else, and nothing at all in a marker. `parent_digest` is kept by keyframes only, so that a reader may begin there.
    `timestamp` is Unix time in ms.
    """

    run_id: str
    seq: int
    base: int
    fork_of: str | None
    step_index: int
    path: str
    timestamp: int
    body: bytes
    parent_digest: bytes
    digest: bytes

    def __repr__(self) -> str:
        return f"Version({self.id!r}, path={self.path!r}, base={self.base}, {len(self.body)} bytes)"

    @property
    def id(self) -> str:
        """`run_id@seq`."""
        return version_id(self.run_id, self.seq)

    @property
    def parent(self) -> str | None:
        """The version before it; of a fork's root that of another run; None for any other root."""
        return version_id(self.run_id, self.seq - 1) if self.seq else self.fork_of

    @property
    def is_keyframe(self) -> bool:
        """Its body is the whole state."""
        return self.base == self.seq

    @property
    def is_marker(self) -> bool:
        """A step was completed, and left the state as it was."""
        return not self.body


@dataclass(frozen=True, slots=True)
class VersionedCheckpointEntry:
    """One version as a two-method store is given it. `timestamp` is Unix time in ms."""

    version: str
    step_index: int
    diff: Diff
    parent_version: str | None
    timestamp: int
    step: str


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[State]):
    """A whole state, and the index of the last step completed in it (-1: none)."""

    step_index: int
    state: State


@dataclass(frozen=True, slots=True)
class Run:
    """What a store knows of a run beside its versions.

    `state_type` is the qualified name of its state's type, `steps` are the paths of its flow's steps, `head` is the
    number of its last version (-1: none yet), `first` that of the first one kept: older ones were pruned. A fork began
    at version `fork_of` of another run. Whoever owns the run holds its lease, number `epoch`. `tags` are the user's, to
    find it by; `seal` is whatever a wrapper of the store has to keep with it. Times are Unix time in ms.

    The rest is for an engine. `wake` is when somebody is to go on with a waiting run (None: only a signal wakes it), by
    `priority`, the highest first, and among those that share a limit, `key`. Its first step began at `begun` (None: it
    was stored to begin later). `recoveries` is how many owners in a row have died without storing a version; its owner
    is asked to end it where it is `cancelling`.
    """

    run_id: str
    flow: str
    state_type: str
    steps: tuple[str, ...]
    status: Status = "running"
    error: str | None = None
    head: int = -1
    epoch: int = 0
    owner: str | None = None
    created: int = 0
    updated: int = 0
    first: int = 0
    fork_of: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    seal: bytes = b""
    wake: int | None = None
    priority: int = 0
    key: str = ""
    begun: int | None = None
    recoveries: int = 0
    cancelling: bool = False


def is_half(run: Run) -> bool:
    """Is it a copy of a run that was not finished?"""
    return run.seal.endswith(HALF)


@dataclass(frozen=True, slots=True)
class Signal:
    """A message into run `run_id`, as a store keeps it.

    `number` counts the signals of a run from 1, in the order they were stored. `payload` is JSON; `sent` is Unix time
    in ms.
    """

    run_id: str
    number: int
    name: str
    payload: bytes
    sent: int


class Head(NamedTuple):
    """The end of a chain, on which the next version builds; `weight` is what the rows after its keyframe cost."""

    run_id: str
    seq: int = -1
    base: int = -1
    digest: bytes = b""
    weight: int = 0
    keyframe: int = 0
    """The size of its body."""

    @property
    def version(self) -> str:
        """The id of the last version."""
        return version_id(self.run_id, self.seq)

    def wants_keyframe(self, body: bytes, size: int) -> bool:
        """Do the rows since the keyframe, with a next one of this body, weigh more than twice a state of `size` bytes?

        So resolving any version takes about three times as long as loading its state, however long the chain; and the
        keyframes of a chain take at most half as much as the rows between them weigh.
        """
        # Of a keyframe that was larger than the state is now, the rest is read in vain.
        weight = self.weight + weight_of(body) + max(0, self.keyframe - size) // 2
        return self.base < 0 or weight > max(2 * size, FLOOR)


def grow(
    head: Head, body: bytes, keyframe: bool, step_index: int, path: str, timestamp: int, fork_of: str | None = None
) -> tuple[Version, Head]:
    """The version that follows `head`, and the head that it becomes."""
    run_id, seq = head.run_id, head.seq + 1
    base, weight, size = (seq, 0, len(body)) if keyframe else (head.base, head.weight + weight_of(body), head.keyframe)
    digest = digest_of(head.digest, run_id, seq, base, fork_of, step_index, path, timestamp, body)
    parent_digest = head.digest if keyframe else b""
    version = Version(run_id, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest)
    return version, Head(run_id, seq, base, digest, weight, size)


def head_of(chain: Sequence[Version]) -> Head:
    """The head of a chain, given its versions from the last keyframe on."""
    last = chain[-1]
    weight = sum(weight_of(version.body) for version in chain[1:])
    return Head(last.run_id, last.seq, last.base, last.digest, weight, len(chain[0].body))


def fold(chain: Iterable[Version]) -> dict[str, bytes]:
    """The JSON of each key after the last version of a chain, whose first is a keyframe. Parses no value."""
    texts: Texts = {}
    for version in chain:
        apply(version, texts)
    return {key: text if isinstance(text, bytes) else text.join() for key, text in texts.items()}


def apply(version: Version, texts: Texts) -> None:
    """Make of the JSON of each key before a version that after it. Parses no value; raises ValueError, KeyError."""
    if version.is_keyframe:
        texts.clear()
    if not version.body:
        return
    sets, removed, splices = Patch.decode(version.body)
    for key in removed:
        del texts[key]
    for key, cut in splices.items():
        texts[key] = _spliced(texts[key], cut)
    texts.update(sets)


def _spliced(text: bytes | Text, cut: Splice) -> bytes | Text:
    if isinstance(text, bytes) and len(text) < _LONG:
        return text[: cut.at] + cut.text + text[cut.at + cut.removed :]
    long = Text(text) if isinstance(text, bytes) else text
    long.splice(cut)
    return long


def checked(version: str, chain: Sequence[Version]) -> Sequence[Version]:
    """The chain that a store gave for `version`, whole and undamaged; raises BrokenChain or CorruptVersion."""
    run_id, seq = parse_version_id(version)
    if not chain:
        raise BrokenChain(version, version)
    expected = chain[0].seq if chain[0].is_keyframe else chain[-1].base
    digest = chain[0].parent_digest
    for row in chain:
        if (row.run_id, row.seq) != (run_id, expected):
            raise BrokenChain(version, version_id(run_id, expected))
        digest = digest_of(
            digest, row.run_id, row.seq, row.base, row.fork_of, row.step_index, row.path, row.timestamp, row.body
        )
        if row.digest != digest:
            raise CorruptVersion(row.id, "its digest is not that of its content")
        expected += 1
    if expected != seq + 1:
        raise BrokenChain(version, version_id(run_id, expected))
    return chain


def resolved(version: str, chain: Sequence[Version]) -> dict[str, bytes]:
    """The JSON of each key of `version`, from the chain that a store gave for it."""
    rows = checked(version, chain)
    try:
        return fold(rows)
    except (ValueError, KeyError) as error:
        raise CorruptVersion(version, f"it cannot be folded: {error}") from error


def digest_of(
    parent_digest: bytes,
    run_id: str,
    seq: int,
    base: int,
    fork_of: str | None,
    step_index: int,
    path: str,
    timestamp: int,
    body: bytes,
) -> bytes:
    """The digest of a version: over that of its parent, its own fields and its body."""
    head = f"{run_id}@{seq} {base} {fork_of} {step_index} {timestamp} {path}\n"
    return blake2b(b"".join((parent_digest, head.encode(), body)), digest_size=DIGEST_SIZE).digest()
