"""What a log, or a health check, may say of an error."""

from flowneer_async.errors import FlowneerError


def shown(error: Exception) -> str:
    """The message of one of ours; the type of any other, whose message may hold values of a state."""
    return str(error) if isinstance(error, FlowneerError) else type(error).__qualname__
