"""What the service tells of its work: lines of JSON, and traces and metrics where OpenTelemetry is installed."""

import logging

from flowneer_async.engine import Several, Telemetry
from flowneer_async.observing import JsonFormatter, LogLines


def log_as_json() -> None:
    """All logs of the process, uvicorn's as well."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def telemetry() -> Telemetry:
    """Lines, and what goes to the providers that `opentelemetry-instrument`, or you, have set."""
    try:
        from flowneer_async.observing.otel import OpenTelemetry
    except ModuleNotFoundError:  # it is an extra
        return LogLines()
    return Several(LogLines(), OpenTelemetry())
