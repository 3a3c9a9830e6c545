"""Drafts: a state for each lane, made of the texts of a mirror, and read from them only where it is used.

Law: a draft behaves as the plain dict that it stands for; what nobody reads is neither loaded nor compared.
"""

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, Any

from flowneer_async.differ import Mirror
from flowneer_async.encoding import Codec
from flowneer_async.state import Items, Shape

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values

_SHORT = 64  # bytes: a scalar up to this is read at once, for putting it off would cost as much
_OPENING = b"{["  # how the text of anything but a scalar begins

_DICT: type[dict[str, Any]] = dict  # whose own methods give out what stands there, read or not

# Two threads that read a key for the first time must get one object: what is done to a second one would be lost.
_READING = RLock()


class Unread(str):
    """What stands in a draft for a value that nobody has read.

    A string, for it has to be refused by whoever writes a draft without asking it for its values: encoders ask a hook
    of the user's what to write for an object that they do not know, but not for a string with a lone surrogate.
    """

    __slots__ = ("codec", "text")
    codec: Codec
    text: bytes

    def __repr__(self) -> str:
        return f"Unread({len(self.text)} bytes)"


class Draft(dict[str, Any]):
    """The state of a lane: a dict that loads the value of a key when it is first read.

    Whatever is read out of it in Python has plain values in it, and so has any copy: `dict(state)`, `{**state}`, a
    deep one or a pickle is a plain dict. Code in C that walks through a dict without asking it does not get that far:
    `orjson.dumps(state)` raises TypeError as long as something is unread. Write `orjson.dumps(dict(state))`.
    """

    __slots__ = ()

    def __getitem__(self, key: str, /) -> Any:
        value = _DICT.__getitem__(self, key)
        return self._read(key) if type(value) is Unread else value

    def get(self, key: str, default: Any = None, /) -> Any:
        """The value of `key`, or `default`."""
        value = _DICT.get(self, key, default)
        return self._read(key) if type(value) is Unread else value

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        """The value of `key`; `default` if it had none, which it has from now on."""
        value = _DICT.setdefault(self, key, default)
        return self._read(key) if type(value) is Unread else value

    def pop(self, key: str, /, *default: Any) -> Any:
        """Take `key` out and give its value, or `default`."""
        return _loaded(_DICT.pop(self, key, *default))

    def popitem(self) -> tuple[str, Any]:
        """Take the last key out and give it with its value."""
        key, value = _DICT.popitem(self)
        return key, _loaded(value)

    def items(self) -> "dict_items[str, Any]":
        """A view of all keys with their values."""
        self._read_all()
        return _DICT.items(self)

    def values(self) -> "dict_values[str, Any]":
        """A view of all values."""
        self._read_all()
        return _DICT.values(self)

    # What has another __iter__ than dict's is copied and merged by way of keys() and __getitem__, not natively: this
    # is what makes copy(), dict(…), {**…}, |, |= and update() read.
    def __iter__(self) -> Iterator[str]:
        return _DICT.__iter__(self)

    def __eq__(self, other: object) -> bool:
        for each in (self, other):
            if isinstance(each, Draft):
                each._read_all()
        return _DICT.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __repr__(self) -> str:
        self._read_all()
        return _DICT.__repr__(self)

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (), None, None, iter(self.items())

    def _read(self, key: str) -> object:
        with _READING:
            value = _DICT.__getitem__(self, key)
            if isinstance(value, Unread):
                value = _loaded(value)
                self[key] = value
            return value

    def _read_all(self) -> None:
        for key in [key for key, value in _DICT.items(self) if type(value) is Unread]:
            self._read(key)


@dataclass(frozen=True, slots=True, eq=False)
class _Raw(Mapping[str, object]):
    """What stands in a dict, read or not."""

    draft: dict[str, Any]

    def __getitem__(self, key: str, /) -> object:
        return _DICT.__getitem__(self.draft, key)

    def __contains__(self, key: object, /) -> bool:
        return key in self.draft

    def __iter__(self) -> Iterator[str]:
        return iter(self.draft)

    def __len__(self) -> int:
        return len(self.draft)

    def items(self) -> "dict_items[str, Any]":
        return _DICT.items(self.draft)


def _raw(state: dict[str, Any], path: str = "$") -> Items:
    return _Raw(state)


DRAFT = Shape(dict, _raw, Draft, operator.setitem, operator.delitem)
"""The shape of a `Draft`: its items are what stands in it, so that a mirror that holds this reads nothing."""


def shape_for(shape: Shape) -> Shape:
    """The shape with which a draft of a state of `shape` is to be compared and restored."""
    return DRAFT if shape.type is dict else shape


def draft_of(mirror: Mirror, shape: Shape, codec: Codec) -> object:
    """A state of `shape` made of the texts of `mirror`, which is to be compared with this state from now on.

    It shares nothing with any other state. Raises StateTypeUnknown: at once, or for a dict when a value is read.
    """
    if shape.type is dict:
        return Draft(_held(mirror, codec))
    return shape.build({key: codec.load(text) for key, text in mirror.texts.items()})


def _held(mirror: Mirror, codec: Codec) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, text in mirror.texts.items():
        value = mirror.held(key)
        if value is None or value != value:  # a NaN is another one in each draft, as in any copy
            short = len(text) <= _SHORT and text[0] not in _OPENING
            value = codec.load(text) if short else _unread(text, codec)
            mirror.hold(key, value)
        values[key] = value
    return values


def _unread(text: bytes, codec: Codec) -> Unread:
    unread = Unread("\ud800")
    unread.text, unread.codec = text, codec
    return unread


def _loaded(value: object) -> object:
    return value.codec.load(value.text) if isinstance(value, Unread) else value
