"""What processes were told by their store, a line for each, in one file that all of them append to."""

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from flowneer_async import Lease, Run, Version, VersionStore
from flowneer_stores.wrapper import Wrapper
from tests.support.chains import stored_versions

Kind = Literal["owns", "did", "kept", "fenced", "failed", "ended"]


class Note(NamedTuple):
    """What became of a run, by process `pid` with lease number `epoch` of it; what it `said` beside.

    owns: it was given the lease. did: the step of this path had its effect. kept: this version, number and digest, was
    acknowledged. fenced: the run is another's. failed: the store raised this error. ended: the run is finished.
    """

    kind: Kind
    run_id: str
    epoch: int
    pid: int
    said: str = ""


class Noting(Wrapper):
    """A store for one run, which notes what becomes of it."""

    def __init__(self, store: VersionStore, witness: Path, run_id: str) -> None:
        super().__init__(store)
        self._witness, self._run_id, self._epoch = witness, run_id, 0

    async def create(self, run: Run, versions: Sequence[Version] = ()) -> Lease | None:
        lease = await super().create(run, versions)
        if lease is not None:
            self._owns(lease)
            await self._stored(lease, versions)
        return lease

    async def claim(self, run: Run) -> Lease:
        return self._owns(await super().claim(run))

    def note(self, kind: Kind, said: str = "") -> None:
        """Write a line: one write, so that it is there as a whole, whoever else writes, or not at all."""
        file = os.open(self._witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{kind} {self._run_id} {self._epoch} {os.getpid()} {said}\n".encode())
        os.close(file)

    def _owns(self, lease: Lease) -> Lease:
        self._epoch = lease.epoch
        self.note("owns")
        return lease

    async def _stored(self, lease: Lease, rows: Sequence[Version]) -> None:
        for version in rows:
            self.note("kept", f"{version.seq}:{version.digest.hex()}")


class Reader:
    """Reads on in a witness that is being written."""

    def __init__(self, witness: Path) -> None:
        witness.touch()
        self.witness, self._file = witness, witness.open()
        self._rest = ""

    def more(self) -> list[Note]:
        """What was noted since it was asked before."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        return [_note(line) for line in lines]

    def close(self) -> None:
        self._file.close()


def _note(line: str) -> Note:
    kind, run_id, epoch, pid, said = line.split(" ", 4)
    return Note(kind, run_id, int(epoch), int(pid), said)  # type: ignore[arg-type]


def by_run(notes: Iterable[Note]) -> Mapping[str, list[Note]]:
    """What was noted of each run, in order."""
    runs: dict[str, list[Note]] = {}
    for note in notes:
        runs.setdefault(note.run_id, []).append(note)
    return runs


async def check_kept(store: VersionStore, run_id: str, notes: Iterable[Note]) -> None:
    """Each version that was acknowledged is there as it was then; the chain has no hole, and one owner at a time.

    So there were never two versions of one id, and no owner has written anything after the next one had begun.
    """
    stored = {f"{version.seq}:{version.digest.hex()}" for version in await stored_versions(store, run_id)}
    kept = sorted({(note.epoch, int(note.said.partition(":")[0]), note.said) for note in notes if note.kind == "kept"})
    assert {said for _, _, said in kept} <= stored
    numbers = [number for _, number, _ in kept]
    assert all(one < next for one, next in pairwise(numbers)), f"two owners of {run_id}"


def check_owners(notes: Iterable[Note]) -> None:
    """Each lease of a run was given once, with a higher epoch each time; who was fenced did nothing more by it."""
    epochs: list[int] = []
    fenced: set[int] = set()
    for note in notes:
        if note.kind == "owns":
            epochs.append(note.epoch)
        assert note.epoch not in fenced, f"fenced, and went on: {note}"
        if note.kind == "fenced":
            fenced.add(note.epoch)
    assert len(epochs) == len(set(epochs))


def check_effects(notes: Iterable[Note], lines: Iterable[Sequence[str]], is_behind: bool = False) -> None:
    """In each line of steps, each owner went on with the step the one before it was in, or with the one after it.

    Where the versions of a run are stored behind it, it may have gone on with an earlier one.
    """
    did = sorted((note for note in notes if note.kind == "did"), key=lambda note: note.epoch)
    for steps in lines:
        last = -1
        for epoch, group in groupby((note for note in did if note.said in steps), key=lambda note: note.epoch):
            done = [steps.index(note.said) for note in group]
            assert (0 if is_behind else last) <= done[0] <= last + 1, f"epoch {epoch} began with {steps[done[0]]}"
            assert done == list(range(done[0], done[-1] + 1))
            last = done[-1]
        assert last == len(steps) - 1
