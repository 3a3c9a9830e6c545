"""Three-way merge of what lanes made of one state: key by key, on the JSON texts of the keys.

A key that one lane changed is taken as that lane has it. One that several changed is given to its reducer; without one
it is a conflict, even where all made the same of it: of two lanes that each add 1, one would be lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flowneer_async.encoding import Codec
from flowneer_async.errors import CannotReduce, MergeConflict
from flowneer_async.steps import Reducer

Changes = Mapping[str, bytes | None]
"""What a lane made of the keys that it changed: the new text of each, or None where it removed the key."""


@dataclass(frozen=True, slots=True)
class Merge:
    """What becomes of the keys that any lane changed: each is in one of the three."""

    texts: Mapping[str, bytes] = field(repr=False)
    """Keys that are taken as a lane has them."""
    values: Mapping[str, object] = field(repr=False)
    """Keys that a reducer made a value for."""
    removed: Sequence[str]

    def changed(self, codec: Codec) -> dict[str, object]:
        """Each new or changed key with its value, loaded anew but for what reducers made."""
        return {**{key: codec.load(text) for key, text in self.texts.items()}, **self.values}


def changes_of(base: Mapping[str, bytes], lane: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """What a lane made of `base`, both as the text of each key."""
    changes: dict[str, bytes | None] = {}
    for key, text in lane.items():
        before = base.get(key)
        if before is not text and before != text:
            changes[key] = text
    changes.update((key, None) for key in base if key not in lane)
    return changes


def merged(
    step: str,
    base: Mapping[str, bytes],
    lanes: Mapping[str, Changes],
    reducer: Reducer | Mapping[str, Reducer] | None,
    codec: Codec,
) -> Merge:
    """What becomes of `base`, given the changes of each lane of `step`, by its name and in the order of lanes.

    `reducer` is one for all keys, or one by key. Raises MergeConflict, CannotReduce, and what a reducer raises.
    """
    texts: dict[str, bytes] = {}
    values: dict[str, object] = {}
    removed: list[str] = []
    for key, made in _by_key(lanes).items():
        reduce = reducer if reducer is None or callable(reducer) else reducer.get(key)
        text, *others = made.values()
        if text is None and not any(others):
            removed.append(key)
        elif others or text is None:
            values[key] = _reduced(step, key, base.get(key), made, reduce, codec)
        else:
            texts[key] = text
    return Merge(texts, values, removed)


def _by_key(lanes: Mapping[str, Changes]) -> dict[str, dict[str, bytes | None]]:
    """What each lane that changed a key made of it, in the order of lanes."""
    made: dict[str, dict[str, bytes | None]] = {}
    for lane, changes in lanes.items():
        for key, text in changes.items():
            made.setdefault(key, {})[lane] = text
    return made


def _reduced(step: str, key: str, before: bytes | None, made: Changes, reduce: Reducer | None, codec: Codec) -> object:
    texts = [text for text in made.values() if text is not None]
    if reduce is None or len(texts) < len(made):
        raise MergeConflict(step, key, list(made), [lane for lane, text in made.items() if text is None])
    try:
        return reduce(None if before is None else codec.load(before), [codec.load(text) for text in texts])
    except CannotReduce as error:
        raise CannotReduce(error.reducer, error.reason, step=step, key=key) from None
