"""What the steps of a service do to the world, a line for each, in one file that all processes append to."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from flowneer_async import Context

Kind = Literal["began", "did"]


class Note(NamedTuple):
    """A step of a run, in process `pid`: it `began`, where it says so, and `did` what it has to do."""

    kind: Kind
    run_id: str
    step: str
    pid: int


class Witness:
    """The file, and the gate, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._path, self._gate = folder / "witness", folder / "gate"
        self._notes: list[Note] = []
        self._read = 0

    def note(self, kind: Kind, ctx: Context["Witness"]) -> None:
        """Write a line: one write, so that it is there as a whole, whoever else writes, or not at all."""
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{kind} {ctx.run_id} {ctx.step} {os.getpid()}\n".encode())
        os.close(file)

    @property
    def is_gate_open(self) -> bool:
        return self._gate.exists()

    def open_gate(self) -> None:
        self._gate.touch()

    @property
    def notes(self) -> Sequence[Note]:
        """All that was noted, in order."""
        if self._path.exists():
            with self._path.open() as file:
                file.seek(self._read)
                lines, _, _ = file.read().rpartition("\n")
            self._read += len(lines) + 1 if lines else 0
            self._notes += map(_note, lines.splitlines())
        return self._notes

    def count(self, kind: Kind) -> int:
        return sum(note.kind == kind for note in self.notes)

    def did(self, run_id: str) -> Sequence[Note]:
        """What a run did, in order."""
        return [note for note in self.notes if (note.kind, note.run_id) == ("did", run_id)]


def _note(line: str) -> Note:
    kind, run_id, step, pid = line.split()
    return Note(kind, run_id, step, int(pid))  # type: ignore[arg-type]


def by_run(notes: Iterable[Note]) -> Mapping[str, list[Note]]:
    """What each run did, in order."""
    runs: dict[str, list[Note]] = {}
    for note in notes:
        if note.kind == "did":
            runs.setdefault(note.run_id, []).append(note)
    return runs


def check_once(did: Iterable[Note], steps: Sequence[str]) -> None:
    """Each step of a run was done exactly once, in order, whichever processes did them."""
    assert [note.step for note in did] == list(steps)


def check_repeats(did: Iterable[Note], steps: Sequence[str]) -> None:
    """Each process went on with the step that the one before it was in, or with the one after it.

    So of the steps of a run no more are done twice than processes have died.
    """
    next = {0}
    for first, last in sorted(_spans(did, steps)):
        assert first in next, f"a process went on with {steps[first]}"
        next = {last, last + 1}
    assert max(next) == len(steps)


def _spans(did: Iterable[Note], steps: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The first and the last step that each process did, which did all in between, once."""
    by_process: dict[int, list[int]] = {}
    for note in did:
        by_process.setdefault(note.pid, []).append(steps.index(note.step))
    for done in by_process.values():
        assert done == list(range(done[0], done[-1] + 1)), f"a process did {done}"
        yield done[0], done[-1]
