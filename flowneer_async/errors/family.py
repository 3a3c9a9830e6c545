"""What all errors have in common."""

from collections.abc import Sequence


class FlowneerError(Exception):
    """The base of every error of this package. Made from its datum, and pickled with what it holds."""

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[FlowneerError], args: tuple[object, ...]) -> FlowneerError:
    return kind.__new__(kind, *args)


def described(step: object) -> str:
    """What was given as a step, for people."""
    return getattr(step, "__qualname__", None) or f"an object of type {type(step).__qualname__}"


def listed(names: Sequence[str]) -> str:
    """Names, or the first and last of many."""
    shown = [*names[:4], "…", *names[-4:]] if len(names) > 9 else list(names)
    return "[" + ", ".join(shown) + "]"
