"""Everything that can be a fact in the journal, in one file. Mirrors `saga.v1.Event`; the codec maps one onto the other."""

from typing import NamedTuple

from coordinator.core.frozen import dataclass
from coordinator.core.inputs import PolicyChange, Rejected, Resolution, Succeeded
from coordinator.core.values import (
    AttemptKey,
    AttemptOutcome,
    DefinitionKey,
    Direction,
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
class StepAccepted:
    """A participant will finish a step later (R24)."""

    attempt: AttemptKey
    sent_at: Instant | None
    accepted_until: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class StepHeartbeat:
    """A participant still works on an accepted step."""

    step_id: StepId
    accepted_until: Instant
    progress: Payload | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompletedEarly:
    """A step was completed while its call was still under way; that counts when the call has come to rest (R24)."""

    step_id: StepId
    round: int
    result: Succeeded | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class LateOutcome:
    """Something was said about a step that is settled already. It changes nothing (R17, R24)."""

    attempt: AttemptKey
    sent_at: Instant | None
    """None for a completion by token."""
    outcome: Payload | Failure | None
    """What it returned, why it failed; None: it is undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnBackRequested:
    """The saga shall turn back if its pivot turns out not to have taken effect (R10)."""

    cause: TurnBackCause
    step_id: StepId | None
    failure: Failure
    actor: str = ""


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
class SagaPaused:
    """A person stopped the saga for a while."""

    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaResumed:
    """A person let the saga go on."""

    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaTerminated:
    """A person ended the saga as it stood."""

    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRetried:
    """A person had a step tried again."""

    step_id: StepId
    direction: Direction
    round: int
    """Higher than before only if the round before is known to have had no effect (R1)."""
    input: Payload | None
    """Its input from now on; None: as before."""
    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResolved:
    """A person said how a step ended (R17)."""

    step_id: StepId
    resolution: Resolution
    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPolicyChanged:
    """A person changed how a step of this saga is repeated."""

    step_id: StepId
    change: PolicyChange
    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputResolved:
    """A person said what the saga returns, because the expression for it failed."""

    output: Payload
    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentClosed:
    """A person is no longer needed."""

    id: int
    reason: str = ""
    actor: str = ""
    """Who acknowledged it; empty if it was closed by what was done to the step or the saga."""


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
    | StepAccepted
    | StepHeartbeat
    | StepCompletedEarly
    | LateOutcome
    | TurnBackRequested
    | SagaTurnedBack
    | StepCompensated
    | StepCompensationFailed
    | IncidentOpened
    | IncidentClosed
    | SagaCompleted
    | SagaCompensated
    | SagaFailed
    | SagaPaused
    | SagaResumed
    | SagaTerminated
    | StepRetried
    | StepResolved
    | StepPolicyChanged
    | OutputResolved
    | SagaRecovered
)


class StepDue(NamedTuple):
    """All before the step is done: it is executed."""

    step_id: StepId
    input: Payload | None
    """What every attempt of its first round is sent (R3). None: a payload that is in the journal already, as the plan says
    (`StepPlan.copies_input`)."""


class StepLeftOut(NamedTuple):
    """All before the step is done, and its condition is false: it is SKIPPED."""

    step_id: StepId


class StepUnfit(NamedTuple):
    """All before the step is done, but its condition or its input cannot be evaluated: it is REJECTED without being executed."""

    step_id: StepId
    failure: Failure


Reached = StepDue | StepLeftOut | StepUnfit
"""What follows for a step, or for the hook, when all that comes before it is done. Evaluated once, and journalled (R3)."""


class Event(NamedTuple):
    """A fact with its place in the journal of its saga, and the steps that the saga reached by it."""

    sequence: int
    """From 1, without gaps."""
    occurred_at: Instant
    """Never goes back within one saga."""
    fact: Fact
    reached: tuple[Reached, ...] = ()
    """In the order in which they were reached."""
