"""A disk that loses power: what may be left of the files of a process, by the log of `faulty_io.c`.

What was synced is there. Of what was done to a file since, any part may be there, and in any order:

- A write is there, is not, or is torn: some of its sectors of 512 bytes are there. Bytes beside it are never harmed
  (SQLite asks as much of a disk; it calls that powersafe overwrite).
- A file may have grown without what was written to it; there are zeros then, or whatever the disk held before.
- A file was cut, or was not.
- What was done to a name (a file created, or removed) is there up to some point, for each name by itself. Only a sync
  of the folder makes it sure. File systems with one journal for all names (ext4, XFS) promise more: a sync of any file
  makes sure what was done to names before. `ordered` is a disk of that kind.
- Where a sync failed, a later one that succeeds says nothing of what was written before: Linux forgets that it has yet
  to be written.

What is left out, for nothing could be trusted then: sectors that rot after a sync, and disks that lie about it.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR = 512

_HEAD = struct.Struct("=ciqi")


class Record(NamedTuple):
    """One line of the log: what was done, to which open file, where, with what."""

    kind: bytes
    file: int
    number: int
    data: bytes


def records(log: Path) -> Iterator[Record]:
    """All of a log, in order."""
    text, at = log.read_bytes(), 0
    while at < len(text):
        kind, file, number, length = _HEAD.unpack_from(text, at)
        at += _HEAD.size
        yield Record(kind, file, number, text[at : at + length])
        at += length


@dataclass(slots=True)
class _Change:
    """A write of `data` at `place`; without data, the file was cut, or grew, to that size."""

    place: int
    data: bytes | None
    sure: bool = False
    doubtful: bool = False
    """A sync of it failed."""

    def apply(self, content: bytearray) -> None:
        size = self.place + len(self.data or b"")
        content.extend(bytes(max(0, size - len(content))))
        if self.data is None:
            del content[self.place :]
        else:
            content[self.place : size] = self.data


@dataclass(slots=True, eq=False)
class _File:
    synced: bytearray = field(default_factory=bytearray)
    changes: list[_Change] = field(default_factory=list[_Change])
    """Since then, or in doubt; and what came after such a one."""

    def sync(self) -> None:
        for change in self.changes:
            change.sure |= not change.doubtful
        while self.changes and self.changes[0].sure:
            self.changes.pop(0).apply(self.synced)

    def doubt(self) -> None:
        for change in self.changes:
            change.doubtful |= not change.sure

    def whole(self) -> bytes:
        content = bytearray(self.synced)
        for change in self.changes:
            change.apply(content)
        return bytes(content)

    def left(self, dice: random.Random, luck: float) -> bytes:
        """What may be left, where each change has this much luck."""
        content = bytearray(self.synced)
        for change in self.changes:
            if change.sure or dice.random() < luck:
                change.apply(content)
            elif change.data is not None:
                _tear(change.place, change.data, content, dice)
        return bytes(content)


def _tear(place: int, data: bytes, content: bytearray, dice: random.Random) -> None:
    """Leave some sectors of a write, mostly none; of those past the end, what the disk held before may come up."""
    fate = dice.random()
    end = place + len(data)
    if fate < 0.2:
        content.extend(bytes(max(0, end - len(content))))
    elif fate < 0.3 and end > len(content):
        content.extend(dice.randbytes(end - len(content)))
    if fate > 0.5:
        return
    cut = dice.randrange(place, end)
    for sector in range(place - place % SECTOR, end, SECTOR):
        if sector < cut if fate < 0.25 else dice.random() < 0.5:
            first, last = max(sector, place), min(sector + SECTOR, end)
            _Change(first, data[first - place : last - place]).apply(content)


class Disk:
    """The files of a folder, as a process sees them and as a loss of power may leave them."""

    def __init__(self, *, ordered: bool = False) -> None:
        self._ordered = ordered
        self._names: dict[str, _File] = {}
        self._synced: dict[str, _File] = {}
        self._renamed: dict[str, list[_File | None]] = {}
        """What became of each name since the folder was synced."""
        self._open: dict[int, _File | None] = {}
        """None is the folder."""

    def do(self, record: Record) -> None:
        """Go on by one line of the log."""
        match record.kind:
            case b"D":
                self._open[record.file] = None
            case b"O":
                self._open[record.file] = self._opened(Path(record.data.decode()).name, bool(record.number))
            case b"U":
                self._name(Path(record.data.decode()).name, None)
            case b"C":
                del self._open[record.file]
            case b"N":
                pass
            case _:
                self._change(self._open[record.file], record)

    def _opened(self, name: str, cut: bool) -> _File:
        if name not in self._names:
            self._name(name, _File())
        file = self._names[name]
        if cut:
            file.changes.append(_Change(0, None))
        return file

    def _name(self, name: str, file: _File | None) -> None:
        self._renamed.setdefault(name, []).append(file)
        if file is None:
            del self._names[name]
        else:
            self._names[name] = file

    def _change(self, file: _File | None, record: Record) -> None:
        if record.kind == b"S" and (file is None or self._ordered):
            self._synced, self._renamed = dict(self._names), {}
        if file is None:
            return
        if record.kind == b"S":
            file.sync()
        elif record.kind == b"F":
            file.doubt()
        else:
            file.changes.append(_Change(record.number, record.data if record.kind == b"W" else None))

    def whole(self) -> dict[str, bytes]:
        """Every file, had the power not been lost."""
        return {name: file.whole() for name, file in self._names.items()}

    def left(self, dice: random.Random) -> dict[str, bytes]:
        """What may be left of it."""
        luck = dice.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        files = {name: dice.choice([self._synced.get(name), *later]) for name, later in self._renamed.items()}
        kept = {name: file for name, file in (self._synced | files).items() if file is not None}
        return {name: file.left(dice, luck) for name, file in kept.items()}
