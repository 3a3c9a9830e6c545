"""What changed between two states: exact, on JSON bytes, at the cost of one serialisation.

Laws: `diff(before, after).apply(before)` gives `after` again, byte for byte, and so does folding the stored form; where
nothing changed there is no diff.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from flowneer_async.encoding import JSON, Codec, has_tags, is_exact, is_exact_scalar, is_still_exact, plain_json
from flowneer_async.errors import StateNotSerializable
from flowneer_async.look import SCALARS
from flowneer_async.splice import Splice, splice_between
from flowneer_async.state import Items, Shape

_SHORT = 64  # bytes: a text this short is stored whole, for a splice of it would be no shorter
_SPLICE_HEAD = 24  # bytes that a splice costs beside its text
_LONG = 128 * 1024  # bytes: shorter texts are copied, for orjson's own keep up to twice the room that they need
_NOTHING = object()
_EMPTY: dict[str, Any] = {}


class Patch(NamedTuple):
    """The stored form of a diff: whole values, removed keys, and splices of values that were there before.

    Encoded as one line of JSON with the lengths, `{"set": {key: bytes}, "del": [key], "splice": {key: [at, removed,
    bytes]}}`, then the texts themselves, one after the other: so that resolving a version never parses what a later
    version replaces.
    """

    sets: Mapping[str, bytes]
    removed: Sequence[str]
    splices: Mapping[str, Splice]

    def __repr__(self) -> str:
        return f"Patch(sets={list(self.sets)}, removed={self.removed}, splices={list(self.splices)})"

    @classmethod
    def decode(cls, body: bytes) -> "Patch":
        """Read what `Diff.encode` wrote; raises ValueError when it is not that."""
        at = body.index(b"\n") + 1
        head: dict[str, Any] = orjson.loads(body[:at])
        sets: dict[str, bytes] = {}
        for key, length in head.get("set", _EMPTY).items():
            sets[key] = body[at : (at := at + length)]
        splices: dict[str, Splice] = {}
        for key, (start, removed, length) in head.get("splice", _EMPTY).items():
            splices[key] = Splice(start, removed, body[at : (at := at + length)])
        if at != len(body):
            raise ValueError("its length is not what its head says")
        return cls(sets, head.get("del", ()), splices)

    @staticmethod
    def measure(body: bytes, lengths: dict[str, int]) -> None:
        """Make of the length of each key's JSON before a patch that after it; reads no more of it than its head.

        Raises ValueError where the head is none, TypeError or AttributeError where it is one of something else.
        """
        head: dict[str, Any] = orjson.loads(body[: body.index(b"\n")])
        for key in head.get("del", ()):
            lengths.pop(key, None)
        for key, (_, removed, length) in head.get("splice", _EMPTY).items():
            lengths[key] = lengths.get(key, 0) + length - removed
        lengths.update(head.get("set", _EMPTY))


class Change(NamedTuple):
    """What became of one key: its whole new JSON, and the splice to it from the old one, where that is shorter."""

    text: bytes
    cut: Splice | None
    tagged: bool

    def __repr__(self) -> str:
        return f"Change({len(self.text)} bytes, cut={self.cut!r})"


@dataclass(frozen=True, slots=True)
class Diff:
    """What one step changed: the keys that have a new value, and those that are gone."""

    changes: Mapping[str, Change] = field(repr=False)
    removed: tuple[str, ...]
    codec: Codec = field(repr=False)

    @property
    def changed(self) -> dict[str, object]:
        """Each new or changed key with its whole new value; fresh objects at each call."""
        return {key: self.codec.load(change.text) for key, change in self.changes.items()}

    def apply(self, before: Mapping[str, object]) -> dict[str, object]:
        """A new dict: `before` with the changes made."""
        kept = {key: value for key, value in before.items() if key not in self.removed}
        return {**kept, **self.changed}

    def encode(self) -> bytes:
        """The bytes that a store keeps, which `Patch.decode` reads."""
        sets: dict[str, int] = {}
        splices: dict[str, tuple[int, int, int]] = {}
        whole: list[bytes] = []
        parts: list[bytes] = []
        for key, (text, cut, _) in self.changes.items():
            if cut is None:
                sets[key] = len(text)
                whole.append(text)
            else:
                splices[key] = cut.at, cut.removed, len(cut.text)
                parts.append(cut.text)
        head: dict[str, object] = {"set": sets} if sets else {}
        if self.removed:
            head["del"] = self.removed
        if splices:
            head["splice"] = splices
        return b"".join((orjson.dumps(head), b"\n", *whole, *parts))


class Mirror:
    """The JSON of the last version, key by key, which the state is compared with after each step."""

    __slots__ = ("_codec", "_last", "_tagged", "size", "texts")

    def __init__(self, codec: Codec, texts: Mapping[str, bytes] | None = None) -> None:
        self._codec = codec
        self.texts = dict(texts or {})
        """The JSON of each key."""
        self.size = sum(map(len, self.texts.values()))
        """Bytes of JSON in all."""
        self._tagged = {key for key, text in self.texts.items() if has_tags(text)}
        # The very objects that were written, where these cannot change: the same one needs no second look.
        self._last: dict[str, object] = {}

    def fork(self) -> "Mirror":
        """A mirror of its own with the same texts; copies none of them."""
        fork = Mirror.__new__(Mirror)
        fork._codec, fork.texts, fork.size = self._codec, self.texts.copy(), self.size
        fork._tagged, fork._last = self._tagged.copy(), self._last.copy()
        return fork

    def hold(self, key: str, value: object) -> None:
        """Let `value`, an object that never changes, stand for the text of `key`: it is not looked at from now on."""
        self._last[key] = value

    def held(self, key: str) -> object:
        """The object that stands for the text of `key`; None where there is none, or where it is None itself."""
        return self._last.get(key)

    def advance(self, items: Items) -> Diff | None:
        """Take `items` as the new version: what changed, or None. Raises StateNotSerializable, taking nothing."""
        texts, last = self.texts, self._last
        changes: dict[str, Change] = {}
        most = len(texts)
        for key, value in items.items():
            if last.get(key, _NOTHING) is value:
                continue
            before = texts.get(key)
            change = self._change(key, value, before)
            if change is not None:
                changes[key] = change
                most += before is None
        removed = tuple(key for key in texts if key not in items) if len(items) < most else ()
        if not changes and not removed:
            return None
        self._take(items, changes, removed)
        return Diff(changes, removed, self._codec)

    def whole(self) -> Diff:
        """All of it as a diff: what turns an empty state into this one."""
        changes = {key: Change(text, None, key in self._tagged) for key, text in self.texts.items()}
        return Diff(changes, (), self._codec)

    def since(self, before: Mapping[str, bytes]) -> Diff | None:
        """What leads from older texts of the same keys to those of now."""
        changes = {
            key: Change(text, _cut(before.get(key), text), key in self._tagged)
            for key, text in self.texts.items()
            if before.get(key) is not text and before.get(key) != text
        }
        removed = tuple(key for key in before if key not in self.texts)
        return Diff(changes, removed, self._codec) if changes or removed else None

    def restore(self, shape: Shape, state: object) -> None:
        """Make `state`, an object of `shape`, what it was at the last version."""
        for name in shape.strays(state):
            delattr(state, name)
        items = shape.items(state)
        for key in [key for key in items if key not in self.texts]:
            shape.remove(state, key)
        for key, text in self.texts.items():
            if key not in items or self._differs(key, items[key], text):
                shape.write(state, key, self._codec.load(text))

    def _change(self, key: str, value: object, before: bytes | None) -> Change | None:
        """What has become of one key that was `before`, or None where it is as it was."""
        if before is None:
            _check_key(key)
        text = plain_json(value)
        if text is not None and len(text) <= _SHORT and is_exact_scalar(value, text):
            # Short and simple, as most that changes is: nothing to look into, and nothing to splice.
            return None if text == before else Change(text, None, False)
        if text is not None:
            # What stood behind a tag may be written without one now: then the old text is no measure of what is new.
            known = key not in self._tagged
            if text == before and known:
                if is_still_exact(value, text):
                    return None
            elif is_exact(value, text, cut := _cut(before, text), known=known):
                return Change(text, cut, False)
        exact = self._codec.tagged_json(value, f"$.{key}")
        return None if exact == before else Change(exact, _cut(before, exact), has_tags(exact))

    def _differs(self, key: str, value: object, text: bytes) -> bool:
        if self._last.get(key, _NOTHING) is value:
            return False
        try:
            return self._change(key, value, text) is not None
        except StateNotSerializable:
            return True

    def _take(self, items: Items, changes: Mapping[str, Change], removed: tuple[str, ...]) -> None:
        texts, last, tagged = self.texts, self._last, self._tagged
        for key in removed:
            self.size -= len(texts.pop(key))
            last.pop(key, None)
            tagged.discard(key)
        for key, (text, _, is_tagged) in changes.items():
            self.size += len(text) - len(texts.get(key, b""))
            texts[key] = text if len(text) > _LONG else bytes(memoryview(text))
            if is_tagged:
                tagged.add(key)
            elif tagged:
                tagged.discard(key)
            value = items[key]
            if type(value) in SCALARS:
                last[key] = value
            else:
                last.pop(key, None)


def diff(before: Items, after: Items, codec: Codec = JSON) -> Diff | None:
    """What turns `before` into `after`, two states as mappings; None where they are equal.

    Raises StateNotSerializable.
    """
    mirror = Mirror(codec)
    mirror.advance(before)
    return mirror.advance(after)


def _cut(before: bytes | None, after: bytes) -> Splice | None:
    """The splice from one text to the other, where that is shorter than the whole."""
    if before is None or len(after) <= _SHORT or len(before) <= _SHORT:
        return None
    cut = splice_between(before, after)
    return cut if len(cut.text) + _SPLICE_HEAD < len(after) else None


def _check_key(key: object) -> None:
    if type(key) is not str:
        raise StateNotSerializable("$", f"has a key of type {type(key).__qualname__}: the keys of a state are strings")
    if key[:1] == "\0":
        raise StateNotSerializable("$", "has a key that begins with NUL: such keys are the engine's own")
    if plain_json(key) is None:
        raise StateNotSerializable("$", "has a key that is not valid Unicode")
