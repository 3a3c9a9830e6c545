"""Values to JSON and back, exactly: what JSON cannot hold is written with a tag, or refused with its path.

A tag is an object of one key that begins with `$`: `{"$bytes": "AAE="}`, `{"$tuple": [1, 2]}`. The set of tags is
closed; objects of the user's own types are written with `$object` and `$enum`, and read back only as one of the types
that the flow's state type names. Nothing is ever imported by name.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeVar, cast

import orjson

from flowneer_async.errors import StateNotSerializable, StateTypeUnknown
from flowneer_async.look import PLAIN, SCALARS, SMALL, is_plain, is_plain_within
from flowneer_async.splice import Splice
from flowneer_async.state import Items, Shape
from flowneer_async.tags import READERS, SEQUENCES, SETS, WRITERS

T = TypeVar("T")


_EXACT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_TAG = b'{"$'
_DEEPEST = 200  # orjson writes up to 254 levels, and a tag takes two


def plain_json(value: object) -> bytes | None:
    """The JSON of a value as orjson writes it; None when orjson cannot. Whether that is exact is not looked at."""
    try:
        return orjson.dumps(value, None, _EXACT)
    except TypeError:  # orjson's own error is one
        return None


def has_tags(text: bytes) -> bool:
    """May there be tags in a JSON text?"""
    return b"$" in text and _TAG in text  # the sign alone is found, or not, much sooner


def is_exact(value: object, text: bytes, cut: Splice | None, *, known: bool) -> bool:
    """Does `text`, the plain JSON of a value, say all there is to say of it?

    Where the text before was `known` to, only what `cut` has changed is looked at.
    """
    if type(value) in SCALARS:
        return is_exact_scalar(value, text)
    if cut is None or not known:
        return not has_tags(text) and is_plain(value)
    end = cut.at + len(cut.text)
    if text.find(_TAG, max(0, cut.at - len(_TAG)), end + len(_TAG)) >= 0:
        return False
    return is_plain_within(value, len(text), cut.at, end)


def is_still_exact(value: object, text: bytes) -> bool:
    """The same of a value whose plain JSON, `text`, is what it was. What is long is not looked into again."""
    if type(value) in SCALARS:
        return is_exact_scalar(value, text)
    return type(value) in PLAIN and (len(text) > SMALL or is_plain(value))


def is_exact_scalar(value: object, text: bytes) -> bool:
    """The same of a value that nothing can be inside of: only NaN and the infinities are written as another thing."""
    return type(value) in SCALARS and (value is None or text != b"null")


class Codec:
    """Writes and reads values; `shapes` are the user's own types that may stand in them, by name."""

    __slots__ = ("_enums", "_names", "_shapes")

    def __init__(self, shapes: Mapping[str, Shape], enums: Mapping[str, type[Enum]]) -> None:
        self._shapes, self._enums = shapes, enums
        self._names = {shape.type: name for name, shape in shapes.items()}

    def tagged_json(self, value: object, path: str) -> bytes:
        """The JSON of a value with a tag wherever one is needed; raises StateNotSerializable."""
        try:
            return orjson.dumps(self._tagged(value, path, frozenset()))
        except TypeError as error:
            raise StateNotSerializable(path, f"cannot be written as JSON ({error})") from None
        except RecursionError:
            raise StateNotSerializable(path, "is nested too deeply for the stack as it is") from None

    def load(self, text: bytes) -> object:
        """Read what `plain_json` or `tagged_json` wrote; raises StateTypeUnknown."""
        value: object = orjson.loads(text)
        return self._untagged(value) if has_tags(text) else value

    def _tagged(self, value: object, path: str, inside: frozenset[int]) -> object:
        if type(value) in WRITERS:
            return _tagged_scalar(value, path)
        if id(value) in inside:
            raise StateNotSerializable(path, "contains itself")
        if len(inside) >= _DEEPEST:
            raise StateNotSerializable(path, f"is nested deeper than {_DEEPEST} levels")
        return self._tagged_container(value, path, inside | {id(value)})

    def _tagged_container(self, value: object, path: str, inside: frozenset[int]) -> object:
        kind = type(value)
        if kind is dict:
            return self._tagged_dict(cast(dict[str, object], value), path, inside)
        if kind in SEQUENCES:
            parts = self._tagged_parts(cast(Iterable[object], value), path, inside)
            return parts if kind is list else {SEQUENCES[kind]: parts}
        if kind in SETS:
            # Sorted, for a set has no order of its own and must give the same bytes each time.
            parts = self._tagged_parts(cast(Iterable[object], value), path, inside)
            return {SETS[kind]: sorted(parts, key=orjson.dumps)}
        if isinstance(value, Enum) and self._enums.get(kind.__qualname__) is kind:
            return {"$enum": [kind.__qualname__, self._tagged(value.value, path, inside)]}
        if kind in self._names:
            return self._tagged_object(value, path, inside)
        raise StateNotSerializable(path, f"is of type {kind.__qualname__}, {_advice(kind)}")

    def _tagged_parts(self, parts: Iterable[object], path: str, inside: frozenset[int]) -> list[object]:
        return [self._tagged(part, f"{path}[{index}]", inside) for index, part in enumerate(parts)]

    def _tagged_dict(self, value: Items, path: str, inside: frozenset[int]) -> object:
        if all(type(key) is str and _is_text(key) for key in value) and not _looks_like_tag(value):
            return {key: self._tagged(part, f"{path}.{key}", inside) for key, part in value.items()}
        keys = self._tagged_parts(value, f"{path}.keys()", inside)
        parts = [self._tagged(part, f"{path}[{_shown(key)}]", inside) for key, part in value.items()]
        return {"$dict": list(zip(keys, parts, strict=True))}

    def _tagged_object(self, value: object, path: str, inside: frozenset[int]) -> object:
        name = self._names[type(value)]
        fields = self._shapes[name].items(value, path)
        return {"$object": [name, self._tagged_dict(fields, path, inside)]}

    def _untagged(self, value: object) -> object:
        if isinstance(value, list):
            return [self._untagged(part) for part in cast(list[object], value)]
        if not isinstance(value, dict):
            return value
        whole = cast(dict[str, object], value)
        if _looks_like_tag(whole):
            ((tag, payload),) = whole.items()
            return self._read(tag, self._untagged(payload))
        return {key: self._untagged(part) for key, part in whole.items()}

    def _read(self, tag: str, payload: object) -> object:
        if tag == "$object":
            name, fields = cast(tuple[str, dict[str, object]], payload)
            return _known(self._shapes, name).build(fields)
        if tag == "$enum":
            name, member = cast(tuple[str, object], payload)
            return _known(self._enums, name)(member)
        return READERS[tag](payload)


JSON = Codec({}, {})
"""The codec of a state without types of its own."""


def _tagged_scalar(value: object, path: str) -> object:
    try:
        return WRITERS[type(value)](value)
    except ValueError as reason:
        raise StateNotSerializable(path, str(reason)) from None


def _known(types: Mapping[str, T], name: str) -> T:
    try:
        return types[name]
    except KeyError:
        raise StateTypeUnknown(name) from None


def _looks_like_tag(value: Mapping[object, object] | Mapping[str, object]) -> bool:
    if len(value) != 1:
        return False
    (key,) = value
    return type(key) is str and key.startswith("$")


def _is_text(key: object) -> bool:
    """Can the key be written as UTF-8, which a lone surrogate cannot?"""
    return WRITERS[str](key) is key


def _shown(key: object) -> str:
    """A key in a path: its type only, where it is no short and printable thing."""
    short = type(key) in (bool, type(None), float) or (type(key) is int and abs(key) < 10**9)
    return repr(key) if short else type(key).__qualname__


def _advice(kind: type) -> str:
    if issubclass(kind, (str, int, float, dict, list, tuple, set)) and not issubclass(kind, Enum):
        return "a subclass that would come back as its base: convert it first"
    return (
        "which is not stored: keep it in deps if it is a live object, convert it, "
        "or name it in the state's type, FlowBuilder(name, StateType)"
    )
