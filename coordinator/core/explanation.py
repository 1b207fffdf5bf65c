"""What can be said about why a saga does not move: the values, and the words for instants and errors in them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final, NamedTuple

from coordinator.core.plan import StepPlan
from coordinator.core.state import PersonAction
from coordinator.core.values import MICROS_PER_SECOND, AttemptKey, Failure, Instant, StepId

MESSAGE_CHARS_QUOTED_MAX: Final = 300
"""What is quoted of an error in a sentence; the whole error stands beside it."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


class WaitReason(IntEnum):
    """Why a saga, or one of its steps, does not move at this moment. The numbers are those of `saga.v1`."""

    ENDED = 1
    START_TIME = 2
    PAUSED = 3
    ATTEMPT_UNDER_WAY = 4
    BACKOFF = 5
    COMPLETION = 6
    NO_SUCH_PARTICIPANT = 7
    CIRCUIT_OPEN = 8
    CONCURRENCY_LIMIT = 9
    RATE_LIMIT = 10
    INCIDENT = 11
    QUIESCENCE = 12
    PREDECESSORS = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One thing that a saga waits for."""

    reason: WaitReason
    description: str
    """Why, in one sentence or two, for people."""
    expected: str = ""
    """What ends it by itself, for people; empty: nothing does."""
    step_id: StepId | None = None
    """None: the whole saga waits."""
    until: Instant | None = None
    """None: nobody knows."""
    failure: Failure | None = None
    """The last error of the step; None without one."""
    participant: str = ""
    """The participant that it waits for; empty: none."""
    incident_id: int | None = None
    """The incident that is open; None: none. 0: the journal itself has set the saga aside."""
    person: PersonAction | None = None
    """Who did it; None: nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a saga stands where it stands."""

    summary: str
    """In one sentence, for people."""
    waits: tuple[Wait, ...]
    """The most important first."""
    next: str
    """What will happen next by itself, for people; empty: nothing will."""
    next_at: Instant | None
    """When that will be; None: it depends on a participant or a person."""
    choices: tuple[str, ...]
    """What a person can do now, the most helpful first."""


class HeldCall(NamedTuple):
    """Why a call that was handed over has not ended, as those who have it say."""

    reason: WaitReason
    description: str
    """Continues a sentence that begins with the call. Example: "is with payments"."""
    until: Instant | None = None
    """When that will change by itself; None: nobody knows."""
    failure: Failure | None = None
    """What went wrong with the participant; None: nothing that matters here."""


HeldBy = Callable[[StepPlan, AttemptKey], HeldCall | None]
"""Where a call is that is due; None: it has not been handed over."""


def in_words(instant: Instant, now: Instant) -> str:
    """An instant for people, by the clock and counted from now. Example: "2026-05-01 03:12:09 UTC (in 12 s)"."""
    moment = _EPOCH + timedelta(microseconds=instant)
    length = duration_in_words(abs(instant - now))
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC ({f'in {length}' if instant >= now else f'{length} ago'})"


def duration_in_words(micros: int) -> str:
    """A duration in its two largest units. Example: "3 min 20 s"."""
    seconds = round(micros / MICROS_PER_SECOND)
    if seconds == 0:
        return f"{micros // 1_000} ms"
    parts: list[str] = []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def failure_in_words(failure: Failure) -> str:
    """What went wrong, for a sentence."""
    message = failure.message.strip().rstrip(".")
    if not message:
        return f"gRPC status {failure.code}, without a message"
    return message if len(message) <= MESSAGE_CHARS_QUOTED_MAX else f"{message[:MESSAGE_CHARS_QUOTED_MAX]}..."


def person_in_words(action: PersonAction, now: Instant) -> str:
    """Who did something, when, and why, for a sentence."""
    why = f": {action.reason.strip().rstrip('.')}" if action.reason.strip() else ", without a reason"
    return f"by {action.actor or 'somebody'} at {in_words(action.at, now)}{why}"
