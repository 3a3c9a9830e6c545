"""Records of the standard library's logging as lines of JSON."""

import logging
from datetime import UTC, datetime

import orjson


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON, for services whose logs are read by machines.

        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level=logging.INFO, handlers=[handler])

    Each has `time` (UTC), `level`, `logger` and `message`; those on runs have `flow_run`, `flow_name` and what else
    their records have that begins with `flow_`; those of an application that have an exception, `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, without a line break."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: fact for name, fact in vars(record).items() if name.startswith("flow_")},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps({name: _fact(fact) for name, fact in line.items()}).decode()


def _fact(fact: object) -> str | float:
    """A text without lone surrogates, or a number; in place of what is neither, or too large for JSON, its type."""
    if isinstance(fact, str):
        return fact.encode(errors="backslashreplace").decode()
    if isinstance(fact, float) or (isinstance(fact, int) and -(2**63) <= fact < 2**63):
        return fact
    return type(fact).__qualname__
