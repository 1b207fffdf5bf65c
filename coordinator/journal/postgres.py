"""What is particular to PostgreSQL: its connections, and what its errors mean."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, StatementError
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool

from coordinator.journal.errors import JournalOpenError
from coordinator.journal.statements import IDLE_TIMEOUT_MS, STATEMENTS_CACHED
from coordinator.journal.store import Trouble, words_of

CONNECT_TIMEOUT_S: Final = 10.0
"""For a new connection."""
STATEMENT_TIMEOUT_S: Final = 10.0
"""For one statement, the way to the server and back included: a network can swallow everything without an error."""
LOCK_TIMEOUT_MS: Final = 5_000
"""For a row that somebody else is writing."""
READERS: Final = 4
"""Connections for reading."""
READER_WAIT_S: Final = 10.0
"""How long a read waits for one of them."""
APPLICATION: Final = "saga-coordinator"
"""What the server lists connections as, with the id of the node."""

# Sequential scans are off because the planner would choose them while the tables have no statistics yet, and go on reading a growing table
# whole. These hold for one database transaction each, since a pooler may give every one of them another session.
_BEGIN_WRITING: Final = (
    f"SELECT set_config('idle_in_transaction_session_timeout', '{IDLE_TIMEOUT_MS}', true), "
    f"set_config('lock_timeout', '{LOCK_TIMEOUT_MS}', true), set_config('enable_seqscan', 'off', true)"
)
# Every question walks an index in its order and stops at a limit. Whatever must first read all that fits is off as well: the planner takes
# conditions for independent of each other, and would rather sort 200,000 rows once than walk for a page that it believes to be far off. And
# it plans for the values that are asked for: a plan for any status takes all of them for equally frequent.
_READS_FIRST: Final = ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort")
_BEGIN_READING: Final = "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), " + ", ".join(
    f"set_config('enable_{way}', 'off', true)" for way in _READS_FIRST
)


class PostgresStore:
    """Implements `Store` for one PostgreSQL database, which other nodes write too."""

    is_exclusive = False

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def guard(self, connection: Connection) -> None:
        """Bounds how long this database transaction may hold what it locks."""
        connection.exec_driver_sql(_BEGIN_WRITING)

    def why_gone(self) -> str | None:
        """The server keeps its own files."""
        return None

    def why_damaged(self) -> str | None:
        """The server keeps its own files."""
        return None

    def note_written(self) -> str | None:
        """The server keeps its own files."""
        return None

    def forget_written(self) -> None:
        """The server keeps its own files."""

    def note_damage(self, error: Exception, /) -> str:
        """What an error says of a database that is no journal any more."""
        return words_of(error)

    def trouble_of(self, error: Exception, /) -> Trouble:
        """What an error means."""
        return trouble_of(error)

    def condition_of(self, error: Exception, /) -> str:
        """The code that PostgreSQL gives to the error, or the kind of the error of a connection. Example: "57P03"."""
        return condition_of(error)


def server_url(url: str) -> URL | None:
    """The URL of a PostgreSQL database, with the driver that is used; None: it names something else. Raises JournalOpenError for one with
    another driver."""
    if not url.startswith(("postgresql", "postgres:")):
        return None
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise JournalOpenError(url, expected="a URL of a database", found="something that is no URL", to_do=_EXAMPLE) from error
    if parsed.drivername not in _DRIVERS:
        raise JournalOpenError(
            parsed.render_as_string(hide_password=True), expected="the driver asyncpg", found=parsed.drivername, to_do=_EXAMPLE
        )
    if importlib.util.find_spec("asyncpg") is None:
        raise JournalOpenError(
            parsed.render_as_string(hide_password=True),
            expected="the driver asyncpg to be installed",
            found="it is not",
            to_do="install the extra: pip install 'saga-coordinator[coordinator,postgres]'",
        )
    _refuse_unknown_options(parsed)
    return parsed.set(drivername="postgresql+asyncpg")


def _refuse_unknown_options(url: URL) -> None:
    """What the driver is given and does not know ends in an error of Python's own, which helps nobody."""
    for name, value in url.query.items():
        if name not in _OPTIONS or (name == STATEMENT_CACHE and not str(value).isdecimal()):
            raise JournalOpenError(
                url.render_as_string(hide_password=True),
                expected=f"an option of the connection that is known: {', '.join(_OPTIONS)} (a number)",
                found=f"{name}={value}",
                to_do="mend the part of the URL behind the question mark, or leave it out",
            )


STATEMENT_CACHE: Final = "prepared_statement_cache_size"
# With several hosts the first is used that answers, and is what `target_session_attrs` asks for.
_OPTIONS: Final = ("host", "ssl", "target_session_attrs", STATEMENT_CACHE)
_DRIVERS: Final = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
_EXAMPLE: Final = "write it like postgresql+asyncpg://user@host:5432/database"


def writing_engine(url: URL, node_id: str) -> Engine:
    """Where the one connection comes from that writes the journal."""
    return _engine(url, node_id, AsyncAdaptedQueuePool, pool_size=1, max_overflow=0)


def leasing_engine(url: URL, node_id: str) -> Engine:
    """Where the one connection comes from that leases shards."""
    engine = _engine(url, node_id, AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, pool_pre_ping=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(_BEGIN_WRITING)

    return engine


def listening_engine(url: URL, node_id: str) -> Engine:
    """Where the one connection comes from that hears what other nodes hint at."""
    return _engine(url, node_id, AsyncAdaptedQueuePool, pool_size=1, max_overflow=0)


def reading_engine(url: URL, node_id: str) -> Engine:
    """Where connections come from that read. Each database transaction sees one state of the database throughout."""
    engine = _engine(url, node_id, AsyncAdaptedQueuePool, pool_size=READERS, max_overflow=0, pool_timeout=READER_WAIT_S, pool_pre_ping=True)
    engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(_BEGIN_READING)

    return engine


def _engine(url: URL, node_id: str, pool: type[Pool], **bounds: float | bool) -> Engine:
    arguments = {
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": STATEMENT_TIMEOUT_S,
        "server_settings": {"application_name": f"{APPLICATION} {node_id}"},
        STATEMENT_CACHE: STATEMENTS_CACHED,
    }
    given = {name: value for name, value in arguments.items() if name not in url.query}
    if url.query.get(STATEMENT_CACHE) == "0":
        # The driver has a cache of its own, and while it has one it gives every statement a name, which would be another node's too in a
        # session that a pooler lends to both. Without either it names none, and sends each again with what is to be executed.
        given["statement_cache_size"] = 0
    # Without their parameters, errors can be logged: payloads are other people's secrets.
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - it brings the ORM: a tenth of a start that has no use for it

    made = create_async_engine(url, connect_args=given, poolclass=pool, hide_parameters=True, **bounds)
    engine = made.sync_engine

    @event.listens_for(engine, "do_connect")
    def do_connect(dialect: Any, record: object, arguments: list[Any], options: dict[str, Any]) -> Any:
        with _as_connection_errors():
            return dialect.connect(*arguments, **options)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: object) -> None:
        # Saga ids are text here, as they are in SQLite.
        connection.run_async(lambda driver: driver.set_type_codec("uuid", encoder=str, decoder=str, schema="pg_catalog", format="text"))

    return engine


@contextlib.contextmanager
def _as_connection_errors() -> Iterator[None]:
    """The driver has its own errors for a connection that is not made, which SQLAlchemy passes on as they are."""
    import asyncpg  # noqa: PLC0415 - it is there only where PostgreSQL is used

    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def trouble_of(error: Exception) -> Trouble:
    """What an error means. What is not known to be the fault of the rows is taken for a database that is away: waiting is safe."""
    cause = error.orig if isinstance(error, StatementError) else error
    if isinstance(cause, OverflowError | UnicodeError):
        return Trouble.DEFECT
    code = _code_of(error)
    return _TROUBLE.get(code) or _TROUBLE_OF_CLASS.get(code[:2], Trouble.AWAY)


def condition_of(error: Exception) -> str:
    """Names what is wrong in a word, the same for every try."""
    cause = error.orig if isinstance(error, StatementError) else error
    return _code_of(error) or type(cause).__name__


def _code_of(error: BaseException | None) -> str:
    """The five characters of PostgreSQL, whoever wrapped the error; empty: it does not come from there."""
    while error is not None:
        cause = error.orig if isinstance(error, StatementError) else error
        code = getattr(cause, "sqlstate", None)
        if isinstance(code, str):
            return code
        error = error.__cause__
    return ""


_TROUBLE: Final = {
    "23505": Trouble.DUPLICATE,
    "42P01": Trouble.GONE,  # a table is missing: nothing that this process does brings it back
    "42703": Trouble.GONE,  # a column is
    "3F000": Trouble.GONE,  # the schema is
}
_TROUBLE_OF_CLASS: Final = {
    "22": Trouble.DEFECT,  # NUL in a text, a number out of its range
    "23": Trouble.DEFECT,
    "54": Trouble.DEFECT,  # larger than PostgreSQL takes
    "XX": Trouble.AWAY,
}


def refuse_unsafe(connection: Connection, place: str) -> None:
    """Raises JournalOpenError for somebody else's database, and for one that forgets what it has committed (R31)."""
    mode = str(connection.execute(text("SHOW synchronous_commit")).scalar_one())
    if mode == "off":
        raise JournalOpenError(
            place,
            expected="a database that has written what it has committed",
            found="synchronous_commit = off",
            to_do="set it to on for the role or the database of the coordinator",
        )
    found = text("SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()")
    tables = {str(name) for (name,) in connection.execute(found)}
    if tables and "alembic_version" not in tables:
        raise JournalOpenError(
            place,
            expected="a journal or an empty schema",
            found=f"a schema with other tables ({', '.join(sorted(tables)[:5])})",
            to_do="name another database, or another schema by the search_path of the role",
        )


def open_error(place: str, error: Exception) -> JournalOpenError:
    """Why the database cannot be opened, for whoever starts the coordinator."""
    code = _code_of(error)
    expected, to_do = _OPENING.get(code) or _OPENING.get(code[:2], _UNREACHABLE)
    return JournalOpenError(place, expected=expected, found=words_of(error), to_do=to_do)


_UNREACHABLE: Final = ("a PostgreSQL server that answers", "check that it runs, and the host, port and network on the way to it")
_SHARED_SESSION: Final = (
    "sessions that nobody else prepares statements in",
    "behind a pooler in transaction mode that does not know prepared statements, append ?prepared_statement_cache_size=0 to the URL",
)
_OPENING: Final = {
    "28": ("a user who may log in", "check the user and the password of the URL, and pg_hba.conf of the server"),
    "26000": _SHARED_SESSION,  # a statement that was prepared is not there
    "42P05": _SHARED_SESSION,  # one is there that was not
    "3D000": ("a database of that name", "make it with CREATE DATABASE, or name another one"),
    "42501": ("a role that may make tables", "grant it CREATE on the schema, or make the tables with another role first"),
    "53300": ("a free connection", "raise max_connections of the server, or end what holds its connections"),
    "25006": ("a server that can be written", "name the primary, not one of its standbys"),
    "57P03": ("a PostgreSQL server that is up", "wait until it has started, then start again"),
}
