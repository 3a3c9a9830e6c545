"""Runs in the background of a service: accepted, limited, scheduled, recovered."""

from flowneer_async.answers import NO_ANSWER
from flowneer_async.engine.engine import Engine
from flowneer_async.engine.handle import Handle
from flowneer_async.engine.health import Health
from flowneer_async.engine.limits import Limits, Rate
from flowneer_async.engine.options import StartOptions
from flowneer_async.engine.run_events import RunEvent
from flowneer_async.engine.schedule import Cron, Every
from flowneer_async.engine.telemetry import Measures, Several, Telemetry

__all__ = [
    "NO_ANSWER",
    "Cron",
    "Engine",
    "Every",
    "Handle",
    "Health",
    "Limits",
    "Measures",
    "Rate",
    "RunEvent",
    "Several",
    "StartOptions",
    "Telemetry",
]
