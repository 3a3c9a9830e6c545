"""How a run is to be started, as people say it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict

from flowneer_async.engine.accepting import Wish
from flowneer_async.engine.admission import key_of
from flowneer_async.engine.tags import check_user_tags
from flowneer_async.engine.times import after, wake_of
from flowneer_async.errors import BadOption
from flowneer_async.keeping import NO_TAGS


class StartOptions(TypedDict, total=False):
    """How a run is to be started; spans are timedeltas, or seconds.

    Runs of the highest `priority` (one of a few numbers; 0 where none is given) begin first, and none before `delay` or
    the time `at`. Of runs with one `key` as many are at work as the flow's limits say. A run fails where it is not over
    `deadline` after it was accepted. With `debounce`, a name, it takes the place of the last run that was started under
    that name, if that has not begun yet. The `tags` are for `store.runs(tags=…)`.
    """

    run_id: str | None
    tags: Mapping[str, str]
    key: str | None
    priority: int
    deadline: timedelta | float | None
    delay: timedelta | float | None
    at: datetime | None
    debounce: str | None


def wished(flow: str, state: object, options: StartOptions, now: int) -> Wish:
    """The run that is wished for at `now`, in Unix ms; raises BadOption."""
    unknown = set(options) - set(StartOptions.__annotations__)
    if unknown:
        raise BadOption(min(unknown), "…", f"a run is started with {', '.join(StartOptions.__annotations__)}")
    tags, deadline = options.get("tags", NO_TAGS), options.get("deadline")
    check_user_tags(tags)
    wake = wake_of(options.get("delay"), options.get("at"), now)
    ends = None if deadline is None else after("deadline", deadline, now)
    key = key_of(flow, options.get("key"))
    wish = Wish(state, options.get("run_id"), tags, key, options.get("priority", 0), wake, ends)
    debounce = options.get("debounce")
    if debounce is not None and (wake is None or wish.run_id is not None):
        raise BadOption("debounce", debounce, "it needs a delay, or a time, and makes the run id by itself")
    return wish
