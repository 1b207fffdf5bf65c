"""What a relay, and whoever looks after it, does to the rows of an outbox: each method is one database transaction.

A row that a relay has taken is PENDING, with a token that names the taking and a lease that ends: `next_attempt_at_us`. WHAT IS TAKEN IS
COMMITTED BEFORE IT IS PUBLISHED, and no lock is held meanwhile. A relay that dies leaves rows that are due when the lease ends.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from sqlalchemy import RowMapping, Table, inspect

from participant_sdk.barrier.access import Link
from participant_sdk.clock import Clock, instant_of, wall_clock_us
from participant_sdk.outbox.claims import PARKED_US, DueRow, Head, held_until_us, takeable
from participant_sdk.outbox.database import OutboxDatabase
from participant_sdk.outbox.errors import OutboxTableMissingError
from participant_sdk.outbox.events import OutboxEvent
from participant_sdk.outbox.statements import ROW_COLUMNS, Statements, now_statement
from participant_sdk.outbox.statistics import FailedRow, OutboxStatistics
from participant_sdk.outbox.table import ERROR_CHARS_MAX, OutboxId, OutboxKind, OutboxStatus

WINDOW_ROWS: Final = 256
"""Rows looked at in one database transaction."""
STEP_ROWS: Final = 500
"""Rows redriven, discarded or deleted in one database transaction: small enough to hold no lock for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenRow:
    """A row that a relay has until its lease ends."""

    position: int
    id: OutboxId
    kind: OutboxKind
    topic: str
    key: str
    lane: int | None
    message_type: str
    content_type: str
    payload: bytes = field(repr=False)
    headers: str
    traceparent: str
    tracestate: str
    created_at_us: int
    attempts: int
    """With the one that is to come."""

    def event(self) -> OutboxEvent:
        """What a publisher is given."""
        return OutboxEvent(
            id=self.id,
            topic=self.topic,
            key=self.key,
            payload=self.payload,
            message_type=self.message_type,
            content_type=self.content_type,
            headers=json.loads(self.headers),
            traceparent=self.traceparent,
            tracestate=self.tracestate,
            created_at=instant_of(self.created_at_us),
            attempt=self.attempts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came of looking for rows that are due."""

    token: str
    """Names this taking; what becomes of its rows must carry it."""
    rows: Sequence[TakenRow]
    """By position."""
    is_window_full: bool
    """Whether there may be more that is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The broker, or the coordinator, has it."""

    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TryLater:
    """It failed, which counts, and is tried again."""

    position: int
    token: str
    delay_us: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """It is FAILED."""

    position: int
    token: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """It was not tried, or that does not count."""

    position: int
    token: str
    delay_us: int


RowOutcome: TypeAlias = Published | TryLater | GivenUp | PutBack


class OutboxStore:
    """The rows of one outbox in one database. Every method raises OutboxUnavailableError."""

    def __init__(self, database: OutboxDatabase, table: Table, *, clock: Clock | None = None) -> None:
        """`clock`: None for the database's own, so that the clocks of relays do not matter; SQLite's is the machine's."""
        self._database = database
        self._statements = Statements(table)
        self._now_statement = now_statement(database.dialect_name) if clock is None else None
        self._clock = clock or wall_clock_us
        self._has_one_writer = database.dialect_name == "sqlite"

    async def create_table(self) -> None:
        """Creates the table and its indexes where they are missing."""
        await self._database.run_sync(partial(self._statements.table.create, checkfirst=True))

    async def check(self) -> None:
        """Raises OutboxTableMissingError."""
        name = self._statements.table.name
        if not await self._database.run_sync(lambda connection: inspect(connection).has_table(name)):
            raise OutboxTableMissingError(
                f"the database has no table {name!r}: create it once with Outbox.create_table(engine), or add outbox_table(metadata) to "
                "your migrations"
            )

    async def take(self, kind: OutboxKind, *, limit: int, lease_us: int) -> Taken:
        """Takes at most `limit` rows that are due, for so long, and holds back what must wait for others of its lane."""
        return await self._database.transact(lambda link: self._take(link, kind, min(limit, WINDOW_ROWS), lease_us))

    async def settle(self, outcomes: Sequence[RowOutcome]) -> None:
        """Writes down what became of rows that were taken. Of a row whose lease was lost only that it is published."""
        await self._database.transact(lambda link: self._settle(link, outcomes))

    async def delete_published(self, *, age_us: int, limit: int = STEP_ROWS) -> int:
        """Forgets at most `limit` rows that were published so long ago; returns how many."""
        return await self._database.transact(lambda link: self._delete_published(link, age_us, limit))

    async def statistics(self) -> OutboxStatistics:
        """How many rows there are, by status."""
        return await self._database.transact(self._statistics)

    async def failed(self, limit: int) -> Sequence[FailedRow]:
        """The oldest FAILED rows."""

        async def read(link: Link) -> Sequence[FailedRow]:
            found = await link.execute(self._statements.read_failed, {"row_limit": limit})
            return [_failed_row(each) for each in found.mappings()]

        return await self._database.transact(read)

    async def redrive(self, ids: Sequence[OutboxId]) -> int:
        """Makes FAILED rows PENDING again; returns how many. At most STEP_ROWS ids."""
        return await self._database.transact(lambda link: self._free(link, ids, self._statements.redrive))

    async def discard(self, ids: Sequence[OutboxId]) -> int:
        """Deletes FAILED rows; returns how many. At most STEP_ROWS ids."""
        return await self._database.transact(lambda link: self._free(link, ids, self._statements.delete))

    async def redrive_after(self, position: int) -> tuple[int, int]:
        """The same for the next STEP_ROWS of all FAILED rows behind that position; returns how many, and the position of the last."""

        async def work(link: Link) -> tuple[int, int]:
            await self._begin(link)
            found = (await link.execute(self._statements.failed_next, {"after": position, "row_limit": STEP_ROWS})).all()
            await self._free_found(link, found, self._statements.redrive)
            return len(found), found[-1].position if found else position

        return await self._database.transact(work)

    async def _take(self, link: Link, kind: OutboxKind, limit: int, lease_us: int) -> Taken:
        now_us = await self._begin(link)
        parameters = {"kind": kind.value, "now_us": now_us, "row_limit": WINDOW_ROWS}
        due = [
            DueRow(position=row.position, lane=row.lane, previous=row.previous, head=row.head)
            for row in await link.execute(self._statements.due, parameters)
        ]
        # Whole: what the limit leaves out of this is not held back by others.
        free = {row.position for row in takeable(due, len(due))}
        await self._hold(link, [row for row in due if row.position not in free], now_us)
        token = str(uuid.uuid4())
        positions = [row.position for row in takeable(due, limit)]
        rows: Sequence[TakenRow] = ()
        if positions:
            taking = {"positions": positions, "now_us": now_us, "token": token, "leased_until_us": now_us + lease_us}
            await link.execute(self._statements.take, taking)
            found = await link.execute(self._statements.read_taken, {"positions": positions, "token": token})
            rows = [_taken_row(each) for each in found]
        return Taken(token=token, rows=rows, is_window_full=len(due) == WINDOW_ROWS)

    async def _hold(self, link: Link, rows: Sequence[DueRow], now_us: int) -> None:
        if not rows:
            return
        found = await link.execute(self._statements.heads, {"positions": sorted({row.head for row in rows if row.head is not None})})
        heads = {
            row.position: Head(
                status=OutboxStatus(row.status), next_attempt_at_us=row.next_attempt_at_us, is_leased=bool(row.locked_by)
            )
            for row in found
        }  # fmt: skip
        held: dict[int, list[int]] = {}
        for row in rows:
            held.setdefault(held_until_us(row, heads, now_us), []).append(row.position)
        for until_us, positions in held.items():
            await link.execute(self._statements.hold, {"positions": positions, "now_us": now_us, "until_us": until_us})

    async def _settle(self, link: Link, outcomes: Sequence[RowOutcome]) -> None:
        now_us = await self._begin(link)
        published: list[int] = []
        failures: list[dict[str, object]] = []
        put_back: list[dict[str, object]] = []
        # In one order everywhere, so that no two relays wait for each other in a circle.
        for outcome in sorted(outcomes, key=lambda each: each.position):
            match outcome:
                case Published(position=position):
                    published.append(position)
                case TryLater(position=position, token=token, delay_us=delay_us, error=error):
                    failures.append(_failure(OutboxStatus.PENDING, position, token, now_us + delay_us, error))
                case GivenUp(position=position, token=token, error=error):
                    failures.append(_failure(OutboxStatus.FAILED, position, token, now_us, error))
                case PutBack(position=position, token=token, delay_us=delay_us):
                    put_back.append({"row_position": position, "token": token, "until_us": now_us + delay_us})
        if published:
            await link.execute(self._statements.note_published, {"positions": published, "now_us": now_us})
        if failures:
            await link.execute(self._statements.note_failure, failures)
        if put_back:
            await link.execute(self._statements.put_back, put_back)

    async def _delete_published(self, link: Link, age_us: int, limit: int) -> int:
        now_us = await self._begin(link)
        parameters = {"published_before_us": now_us - age_us, "row_limit": limit}
        positions = list((await link.execute(self._statements.oldest_published, parameters)).scalars())
        if positions:
            await link.execute(self._statements.delete, {"positions": positions})
        return len(positions)

    async def _statistics(self, link: Link) -> OutboxStatistics:
        now_us = await self._now_us(link)
        found = (await link.execute(self._statements.count, {"parked_us": PARKED_US})).one()
        return OutboxStatistics(
            pending=found.pending,
            retrying=found.retrying,
            held=found.held,
            published=found.published,
            failed=found.failed,
            oldest_pending_age_us=max(now_us - found.oldest_us, 0) if found.oldest_us is not None else 0,
        )

    async def _free(self, link: Link, ids: Sequence[OutboxId], how: Any) -> int:
        await self._begin(link)
        found = (await link.execute(self._statements.failed_of, {"ids": list(ids)})).all()
        await self._free_found(link, found, how)
        return len(found)

    async def _free_found(self, link: Link, found: Sequence[Any], how: Any) -> None:
        """Does `how` to locked FAILED rows, then lets go what was parked behind them: THE LOCKS KEEP RELAYS FROM PARKING MORE."""
        if not found:
            return
        await link.execute(how, {"positions": [row.position for row in found]})
        lanes = {row.lane for row in found if row.lane is not None}
        if lanes:
            await link.execute(self._statements.release_lanes, {"lanes": sorted(lanes), "parked_us": PARKED_US})

    async def _begin(self, link: Link) -> int:
        """Begins to write; returns the instant."""
        if self._has_one_writer:
            await link.execute(self._statements.lock_writes)
        return await self._now_us(link)

    async def _now_us(self, link: Link) -> int:
        if self._now_statement is None:
            return self._clock()
        return int((await link.execute(self._now_statement)).scalar_one())


def _failure(status: OutboxStatus, position: int, token: str, until_us: int, error: str) -> dict[str, object]:
    return {
        "row_position": position,
        "token": token,
        "new_status": status.value,
        "until_us": until_us,
        # Databases refuse NUL, and a text of any length would be one way to fill them.
        "new_error": error.replace("\0", "")[:ERROR_CHARS_MAX],
    }


def _taken_row(found: Sequence[Any]) -> TakenRow:
    values = dict(zip(ROW_COLUMNS, found, strict=True))
    return TakenRow(**{**values, "kind": OutboxKind(values["kind"])})


def _failed_row(found: RowMapping) -> FailedRow:
    return FailedRow(
        id=OutboxId(found["id"]),
        kind=OutboxKind(found["kind"]),
        topic=found["topic"],
        key=found["key"],
        message_type=found["message_type"],
        attempts=found["attempts"],
        last_error=found["last_error"],
        created_at=instant_of(found["created_at_us"]),
    )
