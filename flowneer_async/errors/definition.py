"""Mistakes in a flow, found while it is built."""

from flowneer_async.errors.family import FlowneerError, described


class DefinitionError(FlowneerError):
    """A mistake in a flow, found while it is built."""


class BadName(DefinitionError):
    """`name` cannot be the name of a `kind` (flow, step, run id, schedule, …)."""

    def __init__(self, kind: str, name: object, rule: str) -> None:
        super().__init__(f"{name!r} cannot be the name of a {kind}: {rule}")
        self.kind, self.name = kind, name


class DuplicateName(DefinitionError):
    """A body of a flow has two steps named `name`, or an anchor within a body has the name of one around it."""

    def __init__(self, flow: str, name: str) -> None:
        super().__init__(f"flow {flow!r} already has a step {name!r}: give this one another name, name={name + '-2'!r}")
        self.flow, self.name = flow, name


class BadStep(DefinitionError):
    """What was given as a step of `flow` is not one."""

    def __init__(self, flow: str, step: object, reason: str) -> None:
        super().__init__(f"{described(step)} cannot be a step of flow {flow!r}: {reason}")
        self.flow, self.step = flow, step


class BadOption(DefinitionError):
    """Option `option` has a value that makes no sense."""

    def __init__(self, option: str, value: object, rule: str) -> None:
        super().__init__(f"{option}={value!r} makes no sense: {rule}")
        self.option, self.value = option, value


class PluginCollision(DefinitionError):
    """Plugin `plugin` defines `method`, which `owner` has already."""

    def __init__(self, plugin: str, method: str, owner: str) -> None:
        super().__init__(f"plugin {plugin} defines {method!r}, which {owner} has already: rename one of them")
        self.plugin, self.method, self.owner = plugin, method, owner
