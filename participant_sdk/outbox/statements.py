"""The outbox's SQL, and what is special to a dialect. Whatever a dialect cannot do is not used anywhere else.

Left out for MySQL's sake: RETURNING, a LIMIT in the subquery of IN, and partial indexes that are relied upon.
"""

from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Executable,
    Insert,
    Integer,
    ScalarSelect,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    not_,
    select,
    text,
    update,
)

from participant_sdk.outbox.table import OutboxStatus

READ_COMMITTED: Final = frozenset({"postgresql", "mysql", "mariadb"})
"""Dialects whose database transactions of the relay see what was committed before each statement, and lock no gaps into which the business
inserts. SQLite has one writer and needs no levels."""
CLOCKS: Final[dict[str, str]] = {
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
    "mysql": "CAST(unix_timestamp(sysdate(6)) * 1000000 AS signed)",
    "mariadb": "CAST(unix_timestamp(sysdate(6)) * 1000000 AS signed)",
}
"""The instant by the database's clock. SQLite has none of its own: it is the machine's."""
ROW_COLUMNS: Final = (
    "position",
    "id",
    "kind",
    "topic",
    "key",
    "lane",
    "message_type",
    "content_type",
    "payload",
    "headers",
    "traceparent",
    "tracestate",
    "created_at_us",
    "attempts",
)
"""What a relay reads of a row that it has taken."""


def now_statement(dialect_name: str) -> Executable | None:
    """Asks the database for the instant; None: it has no clock of its own."""
    clock = CLOCKS.get(dialect_name)
    return select(text(clock)) if clock is not None else None


class Statements:
    """What the outbox says to one table."""

    def __init__(self, table: Table) -> None:
        columns = table.c
        self.table = table
        self._unpublished = columns.published_at_us.is_(None)
        self._is_pending = columns.status == OutboxStatus.PENDING.value
        self._is_failed = columns.status == OutboxStatus.FAILED.value
        self._chosen = columns.position.in_(bindparam("positions", expanding=True))
        self._to_claim(table)
        self._to_settle(table)
        self._to_count(table)
        self._for_persons(table)
        self._to_forget(table)

    def _to_claim(self, table: Table) -> None:
        columns, unpublished, chosen = table.c, self._unpublished, self._chosen
        # Without a row to change, it still takes SQLite's write lock, before anything is read. Elsewhere it is not needed.
        self.lock_writes = update(table).where(columns.position == -1).values(attempts=0)
        self.due = (
            select(columns.position, columns.lane, _neighbour(table, "previous"), _neighbour(table, "head"))
            .where(
                unpublished,
                columns.status == OutboxStatus.PENDING.value,
                columns.kind == bindparam("kind"),
                columns.next_attempt_at_us <= bindparam("now_us"),
            )
            .order_by(columns.next_attempt_at_us, columns.position)
            .limit(bindparam("row_limit", type_=Integer))
            .with_for_update(skip_locked=True)
        )
        self.heads = (
            select(columns.position, columns.status, columns.next_attempt_at_us, columns.locked_by)
            .where(unpublished, chosen)
            .order_by(columns.position)
            .with_for_update(skip_locked=True)
        )
        still_due = (unpublished, columns.status == OutboxStatus.PENDING.value, columns.next_attempt_at_us <= bindparam("now_us"))
        self.take = (
            update(table)
            .where(chosen, *still_due)
            .values(locked_by=bindparam("token"), attempts=columns.attempts + 1, next_attempt_at_us=bindparam("leased_until_us"))
        )
        self.read_taken = (
            select(*(columns[name] for name in ROW_COLUMNS))
            .where(chosen, columns.locked_by == bindparam("token"))
            .order_by(columns.position)
        )
        self.hold = update(table).where(chosen, *still_due).values(next_attempt_at_us=bindparam("until_us"), locked_by="")

    def _to_settle(self, table: Table) -> None:
        columns, unpublished = table.c, self._unpublished
        # Whoever has published it says so, also if it was so slow that another relay has it by now. But FAILED stays so: what waits behind
        # it is let go by the person that redrives or discards it.
        self.note_published = (
            update(table)
            .where(self._chosen, unpublished, self._is_pending)
            .values(status=OutboxStatus.PUBLISHED.value, published_at_us=bindparam("now_us"), locked_by="")
        )
        is_mine = (unpublished, columns.position == bindparam("row_position"), columns.locked_by == bindparam("token"))
        self.note_failure = (
            update(table)
            .where(*is_mine)
            .values(
                status=bindparam("new_status"),
                next_attempt_at_us=bindparam("until_us"),
                last_error=bindparam("new_error"),
                locked_by="",
            )
        )
        self.put_back = (
            update(table).where(*is_mine).values(attempts=columns.attempts - 1, next_attempt_at_us=bindparam("until_us"), locked_by="")
        )

    def _to_count(self, table: Table) -> None:
        columns, is_pending = table.c, self._is_pending
        is_held = columns.next_attempt_at_us == bindparam("parked_us")
        # One statement, so that what moves meanwhile is counted once.
        self.count = select(
            _count(is_pending).label("pending"),
            _count(and_(is_pending, columns.attempts > 0, columns.locked_by == "", not_(is_held))).label("retrying"),
            _count(and_(is_pending, is_held)).label("held"),
            _count(self._is_failed).label("failed"),
            func.min(case((is_pending, columns.created_at_us))).label("oldest_us"),
            _published(table).label("published"),
        ).where(self._unpublished)

    def _for_persons(self, table: Table) -> None:
        columns, unpublished, is_failed = table.c, self._unpublished, self._is_failed
        named = columns.id.in_(bindparam("ids", expanding=True))
        failed = select(columns.position, columns.lane).where(unpublished, is_failed).order_by(columns.position)
        self.failed_of = failed.where(named).with_for_update()
        self.failed_next = (
            failed.where(columns.position > bindparam("after")).limit(bindparam("row_limit", type_=Integer)).with_for_update()
        )
        self.read_failed = (
            select(
                columns.id,
                columns.kind,
                columns.topic,
                columns.key,
                columns.message_type,
                columns.attempts,
                columns.last_error,
                columns.created_at_us,
            )
            .where(unpublished, is_failed)
            .order_by(columns.position)
            .limit(bindparam("row_limit", type_=Integer))
        )
        self.redrive = (
            update(table)
            .where(self._chosen, unpublished, is_failed)
            .values(status=OutboxStatus.PENDING.value, attempts=0, next_attempt_at_us=0, locked_by="")
        )
        self.release_lanes = (
            update(table)
            .where(
                unpublished,
                self._is_pending,
                columns.lane.in_(bindparam("lanes", expanding=True)),
                columns.next_attempt_at_us == bindparam("parked_us"),
            )
            .values(next_attempt_at_us=0)
        )

    def _to_forget(self, table: Table) -> None:
        columns = table.c
        self.delete = delete(table).where(self._chosen)
        self.oldest_published = (
            select(columns.position)
            .where(columns.published_at_us < bindparam("published_before_us"))
            .order_by(columns.published_at_us)
            .limit(bindparam("row_limit", type_=Integer))
            .with_for_update(skip_locked=True)
        )

    def insert(self) -> Insert:
        """An INSERT into the table."""
        return insert(self.table)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count(case((condition, 1)))


def _published(table: Table) -> ScalarSelect[int]:
    other = table.alias("published")
    return select(func.count()).where(other.c.published_at_us.is_not(None)).scalar_subquery()


def _neighbour(table: Table, which: str) -> ColumnElement[Any]:
    """Position of the row just before a row in its lane, or of the first one of its lane, among those that are not published."""
    other = table.alias(which)
    lane = select(other.c.position).where(other.c.published_at_us.is_(None), other.c.lane == table.c.lane).correlate(table)
    found: ScalarSelect[Any] = (
        (
            lane.where(other.c.position < table.c.position).order_by(other.c.position.desc())
            if which == "previous"
            else lane.order_by(other.c.position)
        )
        .limit(1)
        .scalar_subquery()
    )
    return found.label(which)
