"""A run as lines of JSON: what it is, its versions, its signals, and how many there were.

Each line ends with a sum over itself and all lines before, so that one which was changed, lost or added is named. It is
no seal: whoever can write a line can make its sum.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias, cast

import orjson

from flowneer_async.errors import BadExport, BadName
from flowneer_async.store import EVERY_STATUS
from flowneer_async.versions import Run, Signal, Version, check_run_id

FORMAT = "flowneer run"
NUMBER = 1

_SUM = b',"sum":"%s"}'
_SUM_SIZE = len(_SUM % (b"0" * 32))
Line: TypeAlias = Mapping[str, Any]


class End(NamedTuple):
    """The last line: how many versions and signals were before it."""

    versions: int
    signals: int


class Sums:
    """The sums of lines, one after the other."""

    def __init__(self) -> None:
        self._sum = b""

    def of(self, text: bytes) -> bytes:
        """The sum of the next line, of which this is the text."""
        self._sum = blake2b(self._sum + text, digest_size=16).hexdigest().encode()
        return self._sum


class Writer:
    """Writes the lines of one run."""

    def __init__(self) -> None:
        self._sums = Sums()

    def write(self, part: Run | Version | Signal | End) -> bytes:
        """The next line."""
        text = orjson.dumps(_line(part))[:-1]
        return text + _SUM % self._sums.of(text) + b"\n"


class Reader:
    """Reads the lines of one run."""

    def __init__(self) -> None:
        self._sums = Sums()
        self._run_id = ""
        self.number = 0
        """How many lines were read."""

    def read(self, line: bytes) -> Run | Version | Signal | End:
        """What the next line says; raises BadExport."""
        self.number += 1
        line = line.removesuffix(b"\n")
        text, end = line[:-_SUM_SIZE], line[-_SUM_SIZE:]
        if end != _SUM % self._sums.of(text):
            raise self.bad("it was changed, or a line before it is lost")
        try:
            return self._part(cast(Line, orjson.loads(text + b"}")))
        except (ValueError, TypeError, KeyError, AttributeError, BadName) as error:
            raise self.bad("it is not what an export of this format has") from error

    def bad(self, reason: str) -> BadExport:
        """The error of the line that was read last."""
        return BadExport(self.number, reason)

    def _part(self, line: Line) -> Run | Version | Signal | End:
        if self.number == 1:
            if (line["format"], line["number"]) != (FORMAT, NUMBER):
                raise self.bad(f"it is of format {line['number']}, this release knows {NUMBER}: upgrade flowneer-async")
            run = _run(line["run"])
            self._run_id = run.run_id
            return run
        if "seq" in line:
            return _version(self._run_id, line)
        if "signal" in line:
            payload = _bytes(line, "payload")
            return Signal(self._run_id, _int(line, "signal"), _text(line, "name"), payload, _int(line, "sent"))
        return End(_int(line, "versions"), _int(line, "signals"))


def _line(part: Run | Version | Signal | End) -> dict[str, object]:
    if isinstance(part, Run):
        return {"format": FORMAT, "number": NUMBER, "run": _run_line(part)}
    if isinstance(part, Version):
        place = {"seq": part.seq, "base": part.base, "fork_of": part.fork_of, "step_index": part.step_index}
        digests = {"parent_digest": part.parent_digest.hex(), "digest": part.digest.hex()}
        return {**place, "path": part.path, "timestamp": part.timestamp, **_written("body", part.body), **digests}
    if isinstance(part, Signal):
        name = _written("name", part.name.encode("utf-8", "surrogatepass"))
        return {"signal": part.number, **name, **_written("payload", part.payload), "sent": part.sent}
    return {"versions": part.versions, "signals": part.signals}


def _run_line(run: Run) -> dict[str, object]:
    """All of a run but for who owns it, how often one has died, whether it is to end, and when it was stored."""
    error = {} if run.error is None else _written("error", run.error.encode("utf-8", "surrogatepass"))
    return {
        "run_id": run.run_id,
        "flow": run.flow,
        "state_type": run.state_type,
        "steps": run.steps,
        "status": run.status,
        **error,
        "head": run.head,
        "created": run.created,
        "first": run.first,
        "fork_of": run.fork_of,
        "tags": dict(sorted(run.tags.items())),
        "seal": run.seal.hex(),
        "wake": run.wake,
        "priority": run.priority,
        "key": run.key,
        "begun": run.begun,
    }


def _run(line: Line) -> Run:
    steps, tags, fork_of = line["steps"], line["tags"], line["fork_of"]
    names = [*steps, *tags, *tags.values(), *([] if fork_of is None else [fork_of])]
    if not all(isinstance(name, str) for name in names) or line["status"] not in EVERY_STATUS:
        raise ValueError
    return Run(
        check_run_id(line["run_id"]),
        _text(line, "flow"),
        _text(line, "state_type"),
        tuple(steps),
        line["status"],
        _text(line, "error") if "error" in line or "error64" in line else None,
        head=_int(line, "head"),
        created=_int(line, "created"),
        first=_int(line, "first"),
        fork_of=fork_of,
        tags=tags,
        seal=bytes.fromhex(line["seal"]),
        **_engine(line),
    )


def _engine(line: Line) -> dict[str, Any]:
    """What is there for an engine; a release that had none began a run at once, and it is looked when to wake it."""
    if "priority" not in line:
        created = _int(line, "created")
        return {"begun": created, "wake": created if line["status"] == "waiting" else None}
    times = {name: None if line[name] is None else _int(line, name) for name in ("wake", "begun")}
    return {**times, "priority": _int(line, "priority"), "key": _text(line, "key")}


def _version(run_id: str, line: Line) -> Version:
    fork_of = None if line["fork_of"] is None else _text(line, "fork_of")
    seq, base, step_index, timestamp = (_int(line, name) for name in ("seq", "base", "step_index", "timestamp"))
    parent_digest, digest = bytes.fromhex(line["parent_digest"]), bytes.fromhex(line["digest"])
    body = _bytes(line, "body")
    return Version(run_id, seq, base, fork_of, step_index, _text(line, "path"), timestamp, body, parent_digest, digest)


def _written(name: str, value: bytes) -> dict[str, str]:
    """Bytes as a text where they are one, else in base64."""
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}64": b64encode(value).decode()}


def _bytes(line: Line, name: str) -> bytes:
    text = line.get(name)
    return b64decode(line[f"{name}64"], validate=True) if text is None else cast(str, text).encode()


def _text(line: Line, name: str) -> str:
    return _bytes(line, name).decode("utf-8", "surrogatepass")


def _int(line: Line, name: str) -> int:
    value: object = line[name]
    if type(value) is not int:
        raise TypeError
    return value
