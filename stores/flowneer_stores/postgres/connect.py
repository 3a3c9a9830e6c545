"""Opening a PostgreSQL database: what each session is set to, and the schema of the tables."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b
from urllib.parse import parse_qs, urlsplit

from flowneer_async.errors import SchemaTooNew, StoreFailed
from flowneer_stores.postgres import queries
from flowneer_stores.postgres.driver import Connection, Pool, connect, pool

_SAFE = {"on", "remote_apply", "remote_write", "local"}
"""The kinds of synchronous_commit under which a commit is on the disk before it is acknowledged."""

_WRITING = {
    # The tables grow by orders of magnitude under a plan that is kept: it has to use the indexes from the beginning.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


@dataclass(frozen=True, slots=True)
class Database:
    """Where the tables are, and how sessions there are opened.

    Behind a pgbouncer that hands out the server's sessions by the transaction, nothing of a session is relied on.
    """

    dsn: str
    schema: str
    timeout: float
    pgbouncer: bool

    @property
    def place(self) -> str:
        """What it is called in errors: without user and password."""
        parts = urlsplit(self.dsn)
        if parts.scheme not in ("postgres", "postgresql"):
            return f"a DSN that is no URL of PostgreSQL#{self.schema}"  # it may hold a password in another way
        host = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", []))
        return f"postgresql://{host}{parts.path}#{self.schema}"

    @property
    def channel(self) -> str:
        """On which processes tell each other what has changed."""
        return f"flowneer_{blake2b(self.schema.encode(), digest_size=8).hexdigest()}"

    def writing(self, timeout: float) -> Awaitable[Connection]:
        """A session for the statements that write."""
        return self._connect(timeout, {"synchronous_commit": "on", **_WRITING})

    def reading(self, timeout: float) -> Awaitable[Connection]:
        """A session for those that read."""
        return self._connect(timeout, {"synchronous_commit": "on"})

    def telling(self, timeout: float) -> Awaitable[Connection]:
        """A session to tell others what has changed: as no more is lost than a hint, nobody waits for the disk."""
        return self._connect(timeout, {"synchronous_commit": "off"})

    def maintaining(self, timeout: float) -> Awaitable[Connection]:
        """A session for what takes as long as it takes."""
        return self._connect(timeout, {"statement_timeout": "0"})

    def lending(self, size: int) -> Pool:
        """Sessions for transactions of steps: with no limit to how long a statement takes."""
        settings = {"synchronous_commit": "on", "statement_timeout": "0"}
        return pool(self.dsn, self.timeout, *self._options(settings), size=size)

    def _connect(self, timeout: float, settings: dict[str, str]) -> Awaitable[Connection]:
        return connect(self.dsn, timeout, *self._options(settings))

    def _options(self, settings: dict[str, str]) -> tuple[dict[str, str], int | None]:
        """The settings of a session, and how many statements it keeps prepared."""
        if self.pgbouncer:
            return {}, 0
        limit = str(max(1, round(self.timeout * 1000)))
        common = {"application_name": "flowneer", "statement_timeout": limit, "jit": "off"}
        return {**common, **settings}, None


def prepared(database: Database) -> Callable[[Connection, float], Awaitable[None]]:
    """Work that makes the tables what this release needs, and checks that the server keeps what it acknowledges."""

    async def prepare(connection: Connection, timeout: float) -> None:
        ((setting,),) = await connection.fetch("SHOW synchronous_commit", timeout=timeout)
        if setting not in _SAFE:
            advice = "ALTER ROLE … SET synchronous_commit = on"
            raise StoreFailed(
                database.place, "opening", f"synchronous_commit is {setting}, so that it may lose: {advice}"
            )
        if await _schema(connection, database, timeout) < len(queries.MIGRATIONS):
            async with connection.transaction():
                await _migrate(connection, database, timeout)

    return prepare


async def _migrate(connection: Connection, database: Database, timeout: float) -> None:
    """Upgrade the tables. Who comes second waits, and finds it done."""
    await connection.fetch("SELECT pg_advisory_xact_lock($1)", _lock(database.schema), timeout=timeout)
    if not await connection.fetch("SELECT FROM pg_namespace WHERE nspname = $1", database.schema):
        await connection.execute(f'CREATE SCHEMA "{database.schema}"')
    await connection.execute(queries.within(queries.SCHEMA, database.schema))
    for script in queries.MIGRATIONS[await _schema(connection, database, timeout) :]:
        await connection.execute(queries.within(script, database.schema))
    await connection.execute(
        queries.within(queries.UPGRADED, database.schema).replace("{version}", str(len(queries.MIGRATIONS)))
    )


async def _schema(connection: Connection, database: Database, timeout: float) -> int:
    """The number of the schema that the database has, 0 for a new one; raises SchemaTooNew."""
    table = f'"{database.schema}".flowneer_schema'
    ((there,),) = await connection.fetch("SELECT to_regclass($1) IS NOT NULL", table, timeout=timeout)
    rows = await connection.fetch(f"SELECT version FROM {table}", timeout=timeout) if there else ()
    found, known = int(rows[0][0]) if rows else 0, len(queries.MIGRATIONS)
    if found > known:
        raise SchemaTooNew(database.place, found, known)
    return found


def _lock(schema: str) -> int:
    """The number of the lock under which the tables of a schema are upgraded."""
    return int.from_bytes(blake2b(f"flowneer {schema}".encode(), digest_size=8).digest(), "big", signed=True)
