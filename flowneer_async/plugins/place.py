"""Which step of the flow a path of a run leads to."""

from functools import lru_cache

from flowneer_async.cursor import decode, static


@lru_cache(1024)
def name_at(path: str) -> str:
    """The name of the step at a path."""
    return decode(path)[-1].name


@lru_cache(1024)
def static_path(path: str) -> str:
    """The path without the numbers of items, iterations and jumps: the same for every item of a batch."""
    return static(decode(path))
