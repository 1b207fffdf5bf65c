"""Which of the rows that are due a relay may take: a pure function of what it saw. The store executes it, in one database transaction.

THE ROWS OF ONE LANE ARE PUBLISHED IN THE ORDER OF THEIR POSITIONS: a row is taken only together with, or after, all that come before it
in its lane and are not published. So a row that is under way, that waits for its next try, or that is FAILED holds back what follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from participant_sdk.outbox.table import OutboxStatus

PARKED_US: Final = (1 << 62) - 1
"""When rows behind a FAILED one are due: never, until it is redriven or discarded. So that a long queue behind it costs nothing."""
BUSY_US: Final = 200_000
"""After what time a lane that another relay has is looked at again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRow:
    """A row that is due, and locked by who looks at it."""

    position: int
    lane: int | None
    previous: int | None
    """Position of the row before it in its lane that is not published. None: there is none, or no lane."""
    head: int | None
    """Position of the first row of its lane that is not published, perhaps itself. None: no lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first row of a lane that is not published, locked by who looks at it."""

    status: OutboxStatus
    next_attempt_at_us: int
    is_leased: bool
    """Whether a relay has it, or had it when it died."""


def takeable(due: Sequence[DueRow], limit: int) -> list[DueRow]:
    """Those of the rows that may be taken, at most `limit`, in the order in which they were given; in a lane by position.

    Example: of lane 7 with 1, 2 and 4 due and 3 waiting for its next try, 1 and 2 may be taken.
    """
    # The first row of a lane brings those after it, so that what the limit leaves out is the end of its lane.
    followers = {row.previous: row for row in due if row.previous is not None}
    taken: list[DueRow] = []
    for row in due:
        following: DueRow | None = row if row.previous is None else None
        while following is not None and len(taken) < limit:
            taken.append(following)
            following = followers.get(following.position)
    return taken


def held_until_us(row: DueRow, heads: Mapping[int, Head], now_us: int) -> int:
    """Until when to leave alone a row that is due and may not be taken. `heads`: by position, without those that others have locked."""
    head = heads.get(row.head) if row.head is not None else None
    if head is None:
        return now_us + BUSY_US
    if head.status is OutboxStatus.FAILED:
        return PARKED_US
    if head.is_leased:
        return min(max(head.next_attempt_at_us, now_us + 1), now_us + BUSY_US)
    return max(head.next_attempt_at_us, now_us)
