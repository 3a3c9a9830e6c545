"""What an engine keeps with a run beside what the user says of it: tags whose names begin with @."""

from collections.abc import Mapping
from typing import Final

from flowneer_async.errors import BadOption

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
    """Raises BadOption where one has a name that is kept for the engine."""
    for name in tags:
        if name.startswith("@"):
            raise BadOption("tags", name, "names that begin with @ are the engine's own")


def inherited(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run that its children have too: the user's."""
    return {name: value for name, value in tags.items() if not name.startswith("@")}


def deadline_of(tags: Mapping[str, str]) -> int | None:
    """When a run is to be over, in Unix ms."""
    text = tags.get(DEADLINE)
    return None if text is None else int(text)
