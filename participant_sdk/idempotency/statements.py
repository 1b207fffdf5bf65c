"""The SQL of idempotency: built once per table, compiled once per dialect by SQLAlchemy's cache."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from sqlalchemy import BigInteger, ColumnElement, Dialect, Executable, Row, Table, bindparam, delete, insert, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.dml import Insert

from participant_sdk.idempotency.errors import IdempotencySetupError
from participant_sdk.idempotency.table import OPERATION_CHARACTERS_MAX
from participant_sdk.idempotency.verdict import Claim, Headers, IdempotencyRecord, StoredAnswer

Parameters: TypeAlias = dict[str, object]

_MYSQL_NOW: Final = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"
_NOW_US: Final[Mapping[str, str]] = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000 AS BIGINT)",
    "mysql": _MYSQL_NOW,
    "mariadb": _MYSQL_NOW,
}
"""Microseconds since 1970 by the database's clock, by the name of the dialect."""

_INSERTS: Final[Mapping[str, Callable[[Table], Insert]]] = {
    "sqlite": lambda table: sqlite.insert(table).on_conflict_do_nothing(index_elements=[table.c.record_key]),
    "postgresql": lambda table: postgresql.insert(table).on_conflict_do_nothing(index_elements=[table.c.record_key]),
    "mysql": lambda table: insert(table).prefix_with("IGNORE"),
    "mariadb": lambda table: insert(table).prefix_with("IGNORE"),
}
"""INSERT that leaves a row alone which is there already."""

_COLUMNS: Final = (
    "record_key",
    "client_key",
    "operation",
    "fingerprint",
    "owner",
    "locked_until_us",
    "status",
    "headers",
    "body",
    "created_at_us",
    "expires_at_us",
)


class Statement:
    """One statement, and the parameters that it takes of those on offer."""

    def __init__(self, statement: Executable, dialect: Dialect) -> None:
        assert isinstance(statement, ClauseElement)
        self.executable = statement
        self._names = frozenset(statement.compile(dialect=dialect).params)

    def parameters(self, offered: Parameters) -> Parameters:
        """Those of `offered` that it takes: SQLAlchemy would write the others into the columns of the same name."""
        return {name: value for name, value in offered.items() if name in self._names}


class Statements:
    """What is said to one table in one dialect. All parameters begin with `p_`, so that none is taken for a column."""

    def __init__(self, table: Table, dialect: Dialect, *, has_own_clock: bool) -> None:
        """`has_own_clock`: whether the instant is the parameter `p_now`, instead of the database's own."""
        if dialect.name not in _INSERTS:
            names = ", ".join(sorted(_INSERTS))
            raise IdempotencySetupError(f"SqlIdempotencyStore works with {names}; found an engine for {dialect.name}")
        self.table = table
        now = _bound("now") if has_own_clock else literal_column(_NOW_US[dialect.name], BigInteger)
        lease_over, lifetime_over = now + _bound("lease"), now + _bound("lifetime")
        mine = (table.c.record_key == bindparam("p_record_key")) & (table.c.owner == bindparam("p_owner"))
        running = mine & table.c.status.is_(None)
        fresh: dict[str, Any] = {name: bindparam(f"p_{name}") for name in ("client_key", "operation", "fingerprint", "owner")}
        fresh |= {"locked_until_us": lease_over, "expires_at_us": lifetime_over}
        answer: dict[str, Any] = {name: bindparam(f"p_{name}") for name in ("status", "headers", "body")}
        unlocked: dict[str, Any] = {"locked_until_us": 0, "expires_at_us": lifetime_over}
        # Only if nobody has written the row since it was read: each run that takes over has an owner of its own, each renewal a later lock.
        seen = (
            (table.c.record_key == bindparam("p_record_key"))
            & (table.c.owner == bindparam("p_seen_owner"))
            & (table.c.locked_until_us == _bound("seen_lock"))
            & (table.c.expires_at_us == _bound("seen_expiry"))
        )
        expired = (table.c.expires_at_us <= now) & (table.c.locked_until_us <= now)
        columns = [table.c[name] for name in _COLUMNS]

        def made(statement: Executable) -> Statement:
            return Statement(statement, dialect)

        # The first of a claim: on SQLite it takes the one write lock before anything is read.
        self.insert = made(
            _INSERTS[dialect.name](table)
            .values(record_key=bindparam("p_record_key"), created_at_us=now, **fresh)
            .execution_options(preserve_rowcount=True)
        )
        self.find = made(select(*columns, now.label("read_at_us")).where(table.c.record_key == bindparam("p_record_key")))
        nothing = {"status": None, "headers": None, "body": None}
        self.take_over = made(update(table).where(seen).values(created_at_us=_bound("created_at"), **nothing, **fresh))
        self.renew = made(update(table).where(running).values(locked_until_us=lease_over))
        self.complete = made(update(table).where(mine).values(**answer, **unlocked))
        self.leave_in_doubt = made(update(table).where(running).values(**unlocked))
        self.abandon = made(delete(table).where(running))
        # Two statements: MySQL has no LIMIT in a subquery of DELETE.
        oldest = select(table.c.record_key).where(expired).order_by(table.c.expires_at_us).limit(bindparam("p_limit"))
        self.find_expired = made(oldest)
        self.delete_expired = made(delete(table).where(table.c.record_key.in_(bindparam("p_keys", expanding=True)) & expired))


def claim_parameters(claim: Claim) -> Parameters:
    """What a statement about a claim may need of it."""
    return {
        "p_record_key": claim.record_key,
        "p_client_key": claim.client_key,
        "p_operation": claim.operation[:OPERATION_CHARACTERS_MAX],
        "p_fingerprint": claim.fingerprint,
        "p_owner": claim.owner,
        "p_lease": claim.lease_us,
        "p_lifetime": claim.lifetime_us,
    }


def seen_parameters(record: IdempotencyRecord, created_at_us: int) -> Parameters:
    """What `take_over` needs of the record that was read, and of the one that it becomes."""
    return {
        "p_seen_owner": record.owner,
        "p_seen_lock": record.locked_until_us,
        "p_seen_expiry": record.expires_at_us,
        "p_created_at": created_at_us,
    }


def answer_parameters(answer: StoredAnswer) -> Parameters:
    """What `complete` needs of an answer."""
    return {"p_status": answer.status, "p_headers": encode_headers(answer.headers), "p_body": answer.body}


def record_of(row: Row[Any]) -> tuple[IdempotencyRecord, int]:
    """A row that `find` found, and the instant at which it was read."""
    found = row._asdict()
    answer = None
    if found["status"] is not None:
        body = found["body"]
        answer = StoredAnswer(
            status=found["status"], headers=decode_headers(found["headers"] or b"[]"), body=None if body is None else bytes(body)
        )
    record = IdempotencyRecord(
        record_key=found["record_key"],
        client_key=found["client_key"],
        operation=found["operation"],
        fingerprint=bytes(found["fingerprint"]),
        owner=found["owner"],
        locked_until_us=found["locked_until_us"],
        answer=answer,
        created_at_us=found["created_at_us"],
        expires_at_us=found["expires_at_us"],
    )
    return record, int(found["read_at_us"])


def encode_headers(headers: Headers) -> bytes:
    """As JSON, a list of pairs: every byte is a character of Latin-1, so that a person can read them in the table."""
    return json.dumps([[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]).encode()


def decode_headers(encoded: bytes) -> Headers:
    """What `encode_headers` encoded."""
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(bytes(encoded)))


def _bound(name: str) -> ColumnElement[int]:
    """A number that is a parameter; typed, so that PostgreSQL knows what it is wherever it stands."""
    return bindparam(f"p_{name}", type_=BigInteger)
