"""Chains of states drawn at random: every text in them is another one, so that it can be told where it came from."""

from collections.abc import Iterator, Sequence
from itertools import count
from random import Random
from typing import Any, cast

from flowneer_async.differ import Change, Diff, Mirror
from flowneer_async.encoding import JSON
from flowneer_async.store import VersionStore
from flowneer_async.testing.chains import EARLY, new_run
from flowneer_async.versions import Head, Version, grow

KEYS = ("a", "b", "c d", 'q"[*].')
FACT = "\0step\0items"


class Drawn:
    """States of a run, one after the other, and the versions that they make; with facts beside them."""

    def __init__(self, random: Random, length: int, run_id: str = "run", facts: bool = True) -> None:
        self._random, self._numbers, self._facts = random, count(), facts
        self.states: list[dict[str, Any]] = []
        self.facts: list[bytes] = []
        self.versions: list[Version] = []
        mirror, head, state = Mirror(JSON), Head(run_id), cast(dict[str, Any], self._dict(2))
        for _ in range(length):
            diff = mirror.advance(state)
            keyframe = not self.versions or random.random() < 0.2
            body = self._body(mirror.whole() if keyframe else diff, keyframe)
            seq = len(self.versions)
            version, head = grow(head, body, keyframe, seq - 1, f"step{seq}" if seq else "", EARLY + seq)
            self.versions.append(version)
            self.states.append({key: JSON.load(text) for key, text in mirror.texts.items()})
            state = self._next(state)

    def _body(self, diff: Diff | None, keyframe: bool) -> bytes:
        changes = {} if diff is None else dict(diff.changes)
        if self._facts and (keyframe or self._random.random() < 0.3):
            fact = JSON.tagged_json([self._text()], "$")
            self.facts.append(fact)
            changes[FACT] = Change(fact, None, False)
        if not changes and diff is None:
            return b""
        return Diff(changes, () if diff is None else diff.removed, JSON).encode()

    def _next(self, state: dict[str, Any]) -> dict[str, Any]:
        """Another state: a value more at the end of one, a value anew, a value less, or nothing changed."""
        after, key = dict(state), self._random.choice(KEYS)
        what = self._random.randrange(5)
        if what <= 1 and isinstance(after.get(key), list):
            after[key] = [*after[key], self._value(1)]
        elif what <= 2:
            after[key] = self._value(2)
        elif what == 3:
            after.pop(key, None)
        return after

    def _text(self) -> str:
        return f"<{next(self._numbers)}>" * self._random.choice((1, 1, 30))

    def _value(self, depth: int) -> object:
        kind = self._random.randrange(6 if depth else 2)
        if kind < 2:
            return self._text() if self._random.random() < 0.8 else self._random.choice((None, 1, 1.0, True, -0.0))
        if kind < 4:
            return self._dict(depth - 1)
        values = [self._value(depth - 1) for _ in range(self._random.randrange(4))]
        return values if kind == 4 else tuple(values)

    def _dict(self, depth: int) -> dict[Any, object]:
        keys: Sequence[object] = KEYS if self._random.random() < 0.8 else (*KEYS, 7)
        chosen = self._random.sample(keys, self._random.randrange(1, len(keys)))
        return {key: self._value(depth) for key in (KEYS if depth == 2 else chosen)}


def texts_in(value: object) -> Iterator[str]:
    """All texts in a value, but for keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in cast(dict[object, object], value).values():
            yield from texts_in(part)
    elif isinstance(value, (list, tuple)):
        for part in cast(list[object], value):
            yield from texts_in(part)


async def keep(store: VersionStore, versions: Sequence[Version]) -> None:
    """Store a run of these versions."""
    lease = await store.create(new_run(versions[0].run_id), versions[:1])
    assert lease is not None
    await store.append(lease, versions[1:])
    await store.release(lease, "completed")
