"""One replaced stretch of bytes: finding it between two texts, and making it in a long text, many times over."""

from typing import NamedTuple

_FIRST = 64  # bytes of the first slice that a search compares
_CHUNK = 32 * 1024  # bytes: the most that one splice of a long text has to move


class Splice(NamedTuple):
    """Bytes `at` to `at + removed` of a text are replaced by `text`."""

    at: int
    removed: int
    text: bytes

    def __repr__(self) -> str:
        return f"Splice(at={self.at}, removed={self.removed}, {len(self.text)} bytes)"


def splice_between(before: bytes, after: bytes) -> Splice:
    """The one stretch in which two texts differ, cut where UTF-8 characters begin."""
    most = min(len(before), len(after))
    start = _common_start(before, after, most)
    while start and _continues(after, start):
        start -= 1
    ending = _common_end(before, after, most - start)
    while ending and _continues(after, len(after) - ending):
        ending -= 1
    return Splice(start, len(before) - ending - start, after[start : len(after) - ending])


def _continues(text: bytes, at: int) -> bool:
    """Does the byte at `at` go on with a character that began before it?"""
    return at < len(text) and text[at] & 0xC0 == 0x80


def _common_start(a: bytes, b: bytes, most: int) -> int:
    """The length of the longest common start: by slices that double while they agree, then halve."""
    done, step = 0, _FIRST
    while done + step <= most and b.startswith(a[done : done + step], done):
        done, step = done + step, step * 2
    while step:
        if done + step <= most and b.startswith(a[done : done + step], done):
            done += step
        step //= 2
    return done


def _common_end(a: bytes, b: bytes, most: int) -> int:
    """The same from the end."""
    done, step = 0, _FIRST
    while done + step <= most and b.endswith(a[len(a) - done - step : len(a) - done], 0, len(b) - done):
        done, step = done + step, step * 2
    while step:
        if done + step <= most and b.endswith(a[len(a) - done - step : len(a) - done], 0, len(b) - done):
            done += step
        step //= 2
    return done


class Text:
    """A text that takes many splices: in chunks, so that none of them moves the whole.

    It remembers the chunk of the last splice, for the next one is likely to be near: so a text that grows at one place
    never searches for it.
    """

    __slots__ = ("_chunks", "_index", "_start")

    def __init__(self, text: bytes) -> None:
        self._chunks = [bytearray(text[at : at + _CHUNK]) for at in range(0, len(text), _CHUNK)] or [bytearray()]
        self._index = self._start = 0

    def splice(self, cut: Splice) -> None:
        """Make one replacement; raises ValueError when it lies outside the text."""
        at, removed, text = cut
        chunk = self._chunk_at(at)
        at -= self._start
        left = at + removed - len(chunk)
        chunk[at : at + removed] = text
        if left > 0:
            self._drop(self._index + 1, left)
        if len(chunk) > 2 * _CHUNK:
            parts = [chunk[at : at + _CHUNK] for at in range(0, len(chunk), _CHUNK)]
            self._chunks[self._index : self._index + 1] = parts

    def join(self) -> bytes:
        """The text as it is now."""
        return b"".join(self._chunks)

    def _chunk_at(self, at: int) -> bytearray:
        """The chunk that byte `at` is in, or at the end of; that is the one remembered then."""
        chunks, index, start = self._chunks, self._index, self._start
        while at < start:
            index -= 1
            start -= len(chunks[index])
        while at > start + len(chunks[index]):
            start += len(chunks[index])
            index += 1
            if index == len(chunks):
                raise ValueError("a splice lies outside its text")
        self._index, self._start = index, start
        return chunks[index]

    def _drop(self, index: int, count: int) -> None:
        """Remove `count` bytes from the start of chunk `index` on."""
        while count:
            if index == len(self._chunks):
                raise ValueError("a splice lies outside its text")
            chunk = self._chunks[index]
            gone = min(count, len(chunk))
            del chunk[:gone]
            count -= gone
            if not chunk:
                del self._chunks[index]
