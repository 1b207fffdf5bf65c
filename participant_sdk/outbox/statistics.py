"""What there is to know about an outbox, for people and for monitoring."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from participant_sdk.outbox.table import OutboxId, OutboxKind


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxStatistics:
    """The rows of an outbox, counted."""

    pending: int
    """To be published, or being published."""
    retrying: int
    """Those of them that have failed at least once, and wait for their next try."""
    held: int
    """Those of them that wait behind a FAILED one of their topic and key: redrive or discard that one."""
    published: int
    """Published and not yet forgotten by retention."""
    failed: int
    """Given up."""
    oldest_pending_age_us: int
    """How long the oldest pending row has been there, in microseconds; zero without one."""

    @property
    def oldest_pending_age(self) -> timedelta:
        """The same as a duration. The figure to alert on: it grows when nothing gets through, whatever the reason."""
        return timedelta(microseconds=self.oldest_pending_age_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRow:
    """A row that was given up."""

    id: OutboxId
    """What `redrive` and `discard` take."""
    kind: OutboxKind
    """An event, or the start of a saga."""
    topic: str
    """Of a start: the definition's name."""
    key: str
    """Of a start: the saga's id."""
    message_type: str
    """Full protobuf name; empty for bytes."""
    attempts: int
    """How often it was tried since it was written or redriven."""
    last_error: str
    """Why it was given up."""
    created_at: datetime
    """When it was written. Aware, UTC."""
