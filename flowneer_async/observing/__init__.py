"""Ready telemetry for an engine: `Engine(…, telemetry=LogLines())`; `flowneer_async.engine.Several` has more than one.

That of OpenTelemetry is in `flowneer_async.observing.otel`, which needs the extra `otel`. None of it holds a value of
the state: ids, names, paths, the types of errors, counts and times alone.
"""

from flowneer_async.observing.lines import JsonFormatter
from flowneer_async.observing.logs import LogLines

__all__ = ["JsonFormatter", "LogLines"]
