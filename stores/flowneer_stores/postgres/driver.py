"""What is used of asyncpg, with types: it brings none."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias, cast

from flowneer_async.errors import ExtraMissing
from flowneer_stores.rows import Row

try:
    import asyncpg  # pyright: ignore[reportMissingTypeStubs]
except ModuleNotFoundError:
    raise ExtraMissing("PostgresStore", "postgres") from None

Heard: TypeAlias = Callable[["Connection", int, str, str], None]
"""What is called with each notice: the connection, the process that sent it, its channel and its payload."""


class Connection(Protocol):
    """One connection to a server."""

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> Sequence[Row]:
        """The rows that a statement gives."""
        ...

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        """Execute a statement; or many, where there are no arguments."""
        ...

    def transaction(self) -> "Within":
        """What is executed inside of it is one transaction."""
        ...

    async def add_listener(self, channel: str, callback: Heard) -> None:
        """Listen to a channel."""
        ...

    def add_termination_listener(self, callback: Callable[["Connection"], None]) -> None:
        """Be called when the connection is no more."""
        ...

    def is_closed(self) -> bool:
        """Is it no more?"""
        ...

    def terminate(self) -> None:
        """Close it at once."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:
        """Close it, and tell the server."""
        ...


class Within(AbstractAsyncContextManager[object], Protocol):
    """A transaction of a connection, which can also be begun and ended by hand."""

    async def start(self) -> None:
        """Begin it."""
        ...

    async def commit(self) -> None:
        """Commit it."""
        ...

    async def rollback(self) -> None:
        """Roll it back."""
        ...


class Pool(Protocol):
    """Connections that are lent: they come back as they were, and what was lent is void then."""

    def __await__(self) -> Generator[Any, Any, object]: ...

    async def acquire(self, *, timeout: float | None = None) -> Connection:
        """One that nobody has."""
        ...

    async def release(self, connection: Connection) -> None:
        """Give it back."""
        ...

    async def close(self) -> None:
        """Close all, when they are given back."""
        ...

    def terminate(self) -> None:
        """Close all at once."""
        ...


InterfaceError = cast(type[Exception], asyncpg.InterfaceError)
"""The connection cannot be used like that; or not at all, for it is closed."""


async def connect(
    dsn: str, timeout: float, settings: dict[str, str], statement_cache_size: int | None = None
) -> Connection:
    """A new connection; `settings` are the server's, for this session."""
    opened = cast(Callable[..., Awaitable[Connection]], asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]
    return await opened(dsn, timeout=timeout, server_settings=settings, **_cache(statement_cache_size))


def pool(
    dsn: str, timeout: float, settings: dict[str, str], statement_cache_size: int | None = None, *, size: int
) -> Pool:
    """As many such connections as `size` at most, opened when they are needed."""
    made = cast(Callable[..., Pool], asyncpg.create_pool)  # pyright: ignore[reportUnknownMemberType]
    cache = _cache(statement_cache_size)
    return made(dsn, timeout=timeout, server_settings=settings, min_size=0, max_size=size, **cache)


def _cache(size: int | None) -> dict[str, int]:
    return {} if size is None else {"statement_cache_size": size}
