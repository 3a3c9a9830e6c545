"""What is hidden of a state: paths, and what becomes of the JSON that they lead into."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias, cast

import orjson

from flowneer_async.errors import BadOption
from flowneer_async.tags import READERS

REDACTED = "«redacted»"
"""What stands in the place of what is hidden."""

HIDDEN = orjson.dumps(REDACTED)
"""The same as JSON."""

_PART = re.compile(
    r"""
      \.? (?P<name> [^.\[\]*"]+ | \* )
    | \[ (?: (?P<item> \* | 0 | [1-9][0-9]* ) | (?P<text> "(?:[^"\\]|\\.)*" ) ) \]
    """,
    re.VERBOSE,
)
_LISTS = frozenset(["$tuple", "$set", "$frozenset"])
_TAGS = frozenset([*READERS, "$object", "$enum"])


class Part(NamedTuple):
    """One step of a path: into a key of an object, or an item of a list; any of them where it is None."""

    at: str | int | None
    into: type[str] | type[int]


Path: TypeAlias = tuple[Part, ...]


def parse_path(path: str) -> Path:
    """A path from its text, `users[*].email`; raises BadOption."""
    parts: list[Part] = []
    at = 0
    while at < len(path):
        found = _PART.match(path, at)
        if found is None or (found[0][0] == ".") != (found["name"] is not None and at > 0):
            break
        parts.append(_part(found))
        at = found.end()
    if not path or at < len(path) or parts[0].into is int:
        raise BadOption("paths", path, 'a path is written like card.number, users[*].email, *.token or ["a key"].x')
    return tuple(parts)


def _part(found: re.Match[str]) -> Part:
    if found["item"] is not None:
        return Part(None if found["item"] == "*" else int(found["item"]), int)
    name = found["name"] if found["text"] is None else orjson.loads(found["text"])
    return Part(None if found["name"] == "*" else name, str)


def beneath(paths: Iterable[Path], at: str | int) -> list[Path]:
    """What is left of the paths that lead into this key of an object, or this item of a list."""
    return [path[1:] for path in paths if path and path[0].into is type(at) and path[0].at in (None, at)]


def redacted(text: bytes, paths: Sequence[Path]) -> bytes:
    """A text of JSON without what the paths lead to; what cannot be read is hidden as a whole."""
    try:
        return orjson.dumps(_hidden(orjson.loads(text), paths)) if paths else text
    except (ValueError, TypeError):
        return HIDDEN


def _hidden(value: object, paths: Sequence[Path]) -> object:
    if not paths:
        return value
    if () in paths:
        return REDACTED
    if isinstance(value, list):
        return [_hidden(item, beneath(paths, at)) for at, item in enumerate(cast(list[object], value))]
    if isinstance(value, dict):
        whole = cast(dict[str, object], value)
        tag = next(iter(whole)) if len(whole) == 1 else ""
        if tag in _TAGS:
            return {tag: _hidden_in_tag(tag, whole[tag], paths)}
        return {key: _hidden(part, beneath(paths, key)) for key, part in whole.items()}
    return value


def _hidden_in_tag(tag: str, payload: object, paths: Sequence[Path]) -> object:
    """Paths lead through a tag as if it was not there; the key of a dict that is no text is written as in JSON."""
    if tag in _LISTS:
        return _hidden(payload, paths)
    if tag == "$object":
        name, fields = cast(list[object], payload)
        return [name, _hidden(fields, paths)]
    if tag == "$dict":
        pairs = cast(list[tuple[object, object]], payload)
        return [[key, _hidden(part, beneath(paths, _name(key)))] for key, part in pairs]
    return payload


def _name(key: object) -> str:
    return key if isinstance(key, str) else orjson.dumps(key).decode()
