"""Everything that can be a fact in the journal, in one file. Mirrors `saga.v1.Event`; the codec maps one onto the other."""

from dataclasses import dataclass
from typing import NamedTuple

from coordinator.core.values import (
    AttemptKey,
    AttemptOutcome,
    DefinitionKey,
    Failure,
    IncidentKind,
    Instant,
    Payload,
    StepId,
    TraceContext,
    TurnBackCause,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaStarted:
    """The saga was accepted; it is RUNNING, or PENDING if `start_at` is set."""

    definition: DefinitionKey
    input: Payload
    labels: tuple[tuple[str, str], ...]
    idempotency_key: str
    start_at: Instant | None
    deadline: Instant | None
    trace: TraceContext


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaBegan:
    """The start time of a PENDING saga was reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """An attempt ended without settling its step; the next one is due at `retry_at`."""

    attempt: AttemptKey
    sent_at: Instant | None
    outcome: AttemptOutcome
    failure: Failure
    retry_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSucceeded:
    """A step took effect."""

    attempt: AttemptKey
    sent_at: Instant | None
    output: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRejected:
    """A step is known to have had no effect, and stays so (R5)."""

    attempt: AttemptKey
    sent_at: Instant | None
    failure: Failure
    sealed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUnknown:
    """A step came to rest without anybody knowing whether it took effect (R7)."""

    attempt: AttemptKey
    sent_at: Instant | None
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaTurnedBack:
    """The saga undoes what it did. Attempts that may be in flight are waited for until `quiet_at` (R12)."""

    cause: TurnBackCause
    step_id: StepId | None
    """The step that caused it; None if none did."""
    failure: Failure
    quiet_at: Instant
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompensated:
    """A step was undone."""

    attempt: AttemptKey
    sent_at: Instant | None
    handler_ran: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompensationFailed:
    """A compensation ran out of attempts (R15)."""

    attempt: AttemptKey
    sent_at: Instant | None
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened:
    """A person is needed."""

    id: int
    """Unique in its saga, from 1."""
    kind: IncidentKind
    step_id: StepId | None
    """None: about the whole saga."""
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaCompleted:
    """Every step is done."""

    output: Payload | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaCompensated:
    """Everything is undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaFailed:
    """Nothing can move without a person (R15)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaRecovered:
    """A coordinator took the saga up after a crash. These attempts may have been under way (R29)."""

    in_doubt: tuple[AttemptKey, ...]


Fact = (
    SagaStarted
    | SagaBegan
    | AttemptFailed
    | StepSucceeded
    | StepRejected
    | StepUnknown
    | SagaTurnedBack
    | StepCompensated
    | StepCompensationFailed
    | IncidentOpened
    | SagaCompleted
    | SagaCompensated
    | SagaFailed
    | SagaRecovered
)


class Event(NamedTuple):
    """A fact with its place in the journal of its saga."""

    sequence: int
    """From 1, without gaps."""
    occurred_at: Instant
    """Never goes back within one saga."""
    fact: Fact
