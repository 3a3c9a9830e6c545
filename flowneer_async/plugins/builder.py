"""What a plugin is added to, as far as a plugin has to know it."""

from typing import Protocol, Self, TypeVar

from flowneer_async.hooks import Filter, Hooks


class Hookable(Protocol):
    """A builder: `add_hooks` gives a new one, which has them."""

    def add_hooks(self, hooks: Hooks[object], filter: Filter | None = None) -> Self:
        """A new builder that has the hooks, for the steps that `filter` names."""
        ...


F = TypeVar("F", bound=Hookable)
"""The builder of a method `with_…`, so that a chain keeps its type."""
