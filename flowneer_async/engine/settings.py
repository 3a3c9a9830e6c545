"""What an engine was made with."""

# Callers without a type checker may pass anything.
# pyright: reportUnnecessaryIsInstance=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowneer_async.defining import check_count
from flowneer_async.engine.limits import Limits
from flowneer_async.engine.telemetry import Telemetry
from flowneer_async.errors import BadOption, UnknownFlow
from flowneer_async.flow import FlowBuilder
from flowneer_async.policy import World
from flowneer_async.store import VersionStore


@dataclass(frozen=True, slots=True)
class Settings:
    """What `Engine` says of each; raises BadOption, UnknownFlow."""

    store: VersionStore
    flows: Mapping[str, FlowBuilder[Any]]
    deps: object
    concurrency: int
    limits: Mapping[str, Limits]
    max_recoveries: int
    grace: float
    poll: float
    telemetry: Telemetry
    world: World

    def __post_init__(self) -> None:
        check_count("concurrency", self.concurrency, 1)
        check_count("max_recoveries", self.max_recoveries, 0)
        _check_seconds("grace", self.grace, 0)
        _check_seconds("poll", self.poll, 0.001)
        for name in self.limits:
            if name not in self.flows:
                raise UnknownFlow(name, tuple(self.flows))


def bound(flows: Sequence[FlowBuilder[Any]], store: VersionStore, telemetry: Telemetry) -> dict[str, FlowBuilder[Any]]:
    """The flows by name, each with the store, and with what the telemetry adds; raises BadOption."""
    found: dict[str, FlowBuilder[Any]] = {}
    for flow in flows:
        if flow.name in found:
            raise BadOption("flows", flow.name, "two of them have this name")
        if flow.store is None:
            flow = flow.with_versioned_checkpoint(store)
        elif flow.store is not store:
            raise BadOption("flows", flow.name, "its versions are kept in another store than the engine's")
        for hooks in telemetry.hooks(flow.name):
            flow = flow.add_hooks(hooks)
        found[flow.name] = flow
    return found


def _check_seconds(option: str, value: float, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise BadOption(option, value, f"it is a number of seconds, {least} or more")
