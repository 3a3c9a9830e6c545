"""States that cannot be kept."""

from flowneer_async.errors.family import FlowneerError


class StateError(FlowneerError):
    """A state that cannot be kept."""


class BadState(StateError):
    """The state, of type `state_type`, is of no kind that a flow can work on."""

    def __init__(self, state_type: type, reason: str) -> None:
        name = getattr(state_type, "__qualname__", None) or type(state_type).__qualname__
        super().__init__(f"a state of type {name} cannot be used: {reason}")
        self.state_type = state_type


class StateTypeUnknown(StateError):
    """A stored state holds a `type_name`, which the flow's state type does not name."""

    def __init__(self, type_name: str) -> None:
        super().__init__(
            f"the stored state holds a value of type {type_name}, which only a flow that names it can read: "
            "FlowBuilder(name, StateType)"
        )
        self.type_name = type_name


class StateNotSerializable(StateError):
    """The value at `path` (`$.order.items[3]`) would not come back as it is."""

    def __init__(self, path: str, reason: str, *, step: str | None = None) -> None:
        where = "" if step is None else f" after step {step!r}"
        super().__init__(f"the state cannot be stored{where}: {path} {reason}")
        self.path, self.reason, self.step = path, reason, step
