"""What of a version, a signal or a run is bound to its seal, as bytes that can be read in one way only."""

import orjson

from flowneer_async.versions import Run, Version


def bound_version(version: Version, *digests: bytes) -> bytes:
    """All of a version but its body, beside these digests: in another place it is another version."""
    return orjson.dumps((*version[:7], *[digest.hex() for digest in digests]))


def bound_signal(run_id: str, name: str) -> bytes:
    """What is known of a signal before it is stored: the store gives it its number, and often its time."""
    return orjson.dumps((run_id, name))


def bound_run(run: Run) -> bytes:
    """What its flow and its user said of a run, and how it stands; not who owns it, nor what was pruned of it."""
    said = (run.run_id, run.flow, run.state_type, run.steps, run.fork_of, run.created, dict(run.tags))
    return orjson.dumps((*said, run.status, run.error), option=orjson.OPT_SORT_KEYS)
