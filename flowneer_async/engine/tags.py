"""What an engine keeps with a run beside what the user says of it: tags whose names begin with @."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Mapping
from typing import Final

from flowneer_async.errors import BadOption
from flowneer_async.keeping import checked_tags

DEADLINE: Final = "@deadline"
"""When the run is to be over, in Unix ms."""

PARENT: Final = "@parent"
"""The run whose step waits for this one."""

DEBOUNCE: Final = "@debounce"
"""The key of starts of which only the last is wanted."""

SCHEDULE: Final = "@schedule"
"""The schedule by which it was started."""

TIME: Final = "@time"
"""The time of that schedule, in ISO 8601."""


def check_user_tags(tags: Mapping[str, str]) -> None:
    """Raises BadOption where they are no tags, or one has a name that is kept for the engine."""
    if not isinstance(tags, Mapping):
        raise BadOption("tags", "…", "they are a mapping of names to texts")
    for name in checked_tags(tags):
        if name.startswith("@"):
            raise BadOption("tags", name, "names that begin with @ are the engine's own")


def check_text(option: str, text: object) -> None:
    """Raises BadOption where it is no text that every store can keep."""
    if not isinstance(text, str) or "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise BadOption(option, "…", "it is a text without NUL or lone surrogates")


def inherited(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run that its children have too: the user's."""
    return {name: value for name, value in tags.items() if not name.startswith("@")}


def deadline_of(tags: Mapping[str, str]) -> int | None:
    """When a run is to be over, in Unix ms."""
    text = tags.get(DEADLINE)
    return None if text is None else int(text)
