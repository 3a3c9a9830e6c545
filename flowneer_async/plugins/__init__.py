"""Ready plugins. Each is hooks, `flow.add_hooks(timing(sink), filter)`, and a class of one method for `extend`.

What a plugin keeps of many runs, a circuit or a bucket of tokens, is in an object that you make and may share between
flows; of a single run it keeps nothing once that has ended. Spans are in `flowneer_async.plugins.otel`, which needs
OpenTelemetry.
"""

from flowneer_async.plugins.audit import Audited, Auditing, JsonLines, audit_log
from flowneer_async.plugins.breaker import CircuitBreaker, CircuitBreaking, circuit_breaker
from flowneer_async.plugins.dry import DryRun, DryRunning, WouldCall, dry_run
from flowneer_async.plugins.limit import StepLimiting, step_limit
from flowneer_async.plugins.logs import Logging, log_lines
from flowneer_async.plugins.mocks import Called, Mocking, Mocks
from flowneer_async.plugins.rate import RateLimit, RateLimiting, rate_limit
from flowneer_async.plugins.stepper import ManualStepping, Paused, Stepped, Stepper, manual_stepping
from flowneer_async.plugins.timed import Timed, Timing, timing

__all__ = [
    "Audited",
    "Auditing",
    "Called",
    "CircuitBreaker",
    "CircuitBreaking",
    "DryRun",
    "DryRunning",
    "JsonLines",
    "Logging",
    "ManualStepping",
    "Mocking",
    "Mocks",
    "Paused",
    "RateLimit",
    "RateLimiting",
    "StepLimiting",
    "Stepped",
    "Stepper",
    "Timed",
    "Timing",
    "WouldCall",
    "audit_log",
    "circuit_breaker",
    "dry_run",
    "log_lines",
    "manual_stepping",
    "rate_limit",
    "step_limit",
    "timing",
]
