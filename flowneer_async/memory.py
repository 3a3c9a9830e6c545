"""What a run remembers beside its state: the items of a batch, the drafts of its lanes, deadlines, answers.

Each fact has a path, a kind and a text of JSON. Facts are kept in the chain as the keys of the state are, with the
version that comes next: so that every version can be resolved to them, too. Their keys begin with NUL, which no key of
a state does.
"""

from collections.abc import Mapping

import orjson

from flowneer_async.differ import Change
from flowneer_async.encoding import Codec
from flowneer_async.splice import Splice

SIGN = "\0"
"""What the key of a fact begins with."""

GONE = b""
"""The text of a key that a lane has removed."""

_WEIGHT = 200
"""What a fact costs to read, beside its text: in bytes of state that take as long to parse."""


def split(texts: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The texts of a state, and those of the facts beside it."""
    state = {key: text for key, text in texts.items() if key[:1] != SIGN}
    return state, {key: text for key, text in texts.items() if key[:1] == SIGN} if len(state) < len(texts) else {}


def _key(path: str, kind: str) -> str:
    return f"{SIGN}{path}{SIGN}{kind}"


def steps_in(texts: Mapping[str, bytes]) -> tuple[str, ...] | None:
    """The steps that the flow of a run had when the run was last migrated, if it ever was."""
    text = texts.get(_key("", "steps"))
    return None if text is None else tuple(orjson.loads(text))


class Memory:
    """The facts of one run."""

    __slots__ = ("_facts", "_gone", "_new", "_stored", "codec", "size")

    def __init__(self, codec: Codec, texts: Mapping[str, bytes] | None = None) -> None:
        self.codec = codec
        self._facts: dict[str, dict[str, bytes]] = {}
        self._stored = set(texts or ())
        self._new: dict[str, Change] = {}
        self._gone: dict[str, None] = {}
        self.size = 0
        """What all of them take to read, in bytes of state: their JSON, and so much for each."""
        for key, text in (texts or {}).items():
            _, path, kind = key.split(SIGN, 2)
            self._facts.setdefault(path, {})[kind] = text
            self.size += len(text) + _WEIGHT

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that there are facts of."""
        return tuple(self._facts)

    def of(self, path: str) -> Mapping[str, bytes]:
        """The facts of a path, by their kind."""
        return self._facts.get(path, {})

    def has(self, path: str, kind: str) -> bool:
        """Is there such a fact?"""
        return kind in self._facts.get(path, ())

    def get(self, path: str, kind: str) -> object:
        """The value of a fact; None where there is none."""
        text = self._facts.get(path, {}).get(kind)
        return None if text is None else self.codec.load(text)

    def put(self, path: str, kind: str, value: object, what: str = "$") -> None:
        """Keep a fact, called `what` for people; raises StateNotSerializable."""
        self.put_text(path, kind, self.codec.tagged_json(value, what))

    def put_text(self, path: str, kind: str, text: bytes, cut: Splice | None = None) -> None:
        """Keep a fact that is JSON already; `cut` is what leads to it from the one before."""
        facts, key = self._facts.setdefault(path, {}), _key(path, kind)
        self.size += len(text) - len(facts[kind]) if kind in facts else len(text) + _WEIGHT
        facts[kind] = text
        if key not in self._stored or key in self._new:
            cut = None
        self._new[key] = Change(text, cut, False)
        self._gone.pop(key, None)

    def drop(self, path: str, kind: str) -> None:
        """Forget a fact, if there is one."""
        facts = self._facts.get(path)
        if facts is not None and kind in facts:
            self._drop(path, kind, facts.pop(kind))
            if not facts:
                del self._facts[path]

    def forget(self, path: str) -> None:
        """Forget all facts of a path."""
        facts = self._facts.pop(path, None)
        if facts is not None:
            for kind, text in facts.items():
                self._drop(path, kind, text)

    def forget_beneath(self, path: str, but: str = SIGN) -> None:
        """Forget all facts of what stands inside the body or step at `path`, but for what begins with `but`."""
        inside = tuple(f"{path}{sign}" for sign in "/[") if path else ("",)
        for each in [each for each in self._facts if each != path and each.startswith(inside)]:
            if not each.startswith(but):
                self.forget(each)

    def positions(self) -> list[str]:
        """The positions that lanes have come to, or that jumps have led to."""
        return [str(self.get(path, kind)) for path in self.paths for kind in ("at", "goto") if self.has(path, kind)]

    def begin_fork(self) -> None:
        """Forget what a fork begins anew with: its own signals, and its own deadlines."""
        for kind in [kind for kind in self.of("") if kind.startswith("used:")]:
            self.drop("", kind)
        for path in self.paths:
            self.drop(path, "until")

    def become(self, texts: Mapping[str, bytes]) -> None:
        """Take other facts in the place of all there are; the next version says what has changed."""
        for path, facts in list(self._facts.items()):
            for kind, text in list(facts.items()):
                if texts.get(_key(path, kind)) != text:
                    self.drop(path, kind)
        for key, text in texts.items():
            _, path, kind = key.split(SIGN, 2)
            if not self.has(path, kind):
                self.put_text(path, kind, text)

    def forget_positions(self) -> None:
        """Forget all that belongs to a position in the flow: what is left is what the whole run has done."""
        for path in [path for path in self._facts if path]:
            self.forget(path)
        self.drop("", "goto")

    def take(self) -> tuple[dict[str, Change], tuple[str, ...]]:
        """What has become of the facts since the last version, for the next one: the new ones, and those gone."""
        if not self._new and not self._gone:
            return {}, ()
        new, gone = self._new, tuple(self._gone)
        self._new, self._gone = {}, {}
        self._stored.difference_update(gone)
        self._stored.update(new)
        return new, gone

    def whole(self) -> dict[str, Change]:
        """All facts, for a keyframe."""
        self._new, self._gone = {}, {}
        facts = {_key(path, kind): text for path, facts in self._facts.items() for kind, text in facts.items()}
        self._stored = set(facts)
        return {key: Change(text, None, False) for key, text in facts.items()}

    def _drop(self, path: str, kind: str, text: bytes) -> None:
        key = _key(path, kind)
        self.size -= len(text) + _WEIGHT
        self._new.pop(key, None)
        if key in self._stored:
            self._gone[key] = None


def written(text: str) -> bytes:
    """A text as JSON."""
    return orjson.dumps(text)
