"""Which fact moves a saga or a step from which status to which: the one table, from which the diagrams in the docs are drawn."""

from typing import Final

from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import (
    AttemptFailed,
    Fact,
    IncidentClosed,
    IncidentOpened,
    LateOutcome,
    OutputResolved,
    SagaBegan,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaPaused,
    SagaRecovered,
    SagaResumed,
    SagaStarted,
    SagaTerminated,
    SagaTurnedBack,
    StepAccepted,
    StepCompensated,
    StepCompensationFailed,
    StepCompletedEarly,
    StepHeartbeat,
    StepPolicyChanged,
    StepRejected,
    StepResolved,
    StepRetried,
    StepSucceeded,
    StepUnknown,
    TurnBackRequested,
)
from coordinator.core.values import SagaStatus, StepStatus

_S = SagaStatus
_T = StepStatus

SAGA_TRANSITIONS: Final[dict[tuple[SagaStatus | None, type[Fact]], frozenset[SagaStatus]]] = {
    (None, SagaStarted): frozenset({_S.PENDING, _S.RUNNING}),
    (_S.PENDING, SagaBegan): frozenset({_S.RUNNING}),
    (_S.PENDING, SagaTurnedBack): frozenset({_S.COMPENSATING}),
    (_S.PENDING, SagaTerminated): frozenset({_S.FAILED}),
    (_S.RUNNING, SagaTurnedBack): frozenset({_S.COMPENSATING}),
    (_S.RUNNING, SagaCompleted): frozenset({_S.COMPLETED}),
    (_S.RUNNING, SagaFailed): frozenset({_S.FAILED}),
    (_S.RUNNING, SagaTerminated): frozenset({_S.FAILED}),
    (_S.COMPENSATING, SagaCompensated): frozenset({_S.COMPENSATED}),
    (_S.COMPENSATING, SagaFailed): frozenset({_S.FAILED}),
    (_S.COMPENSATING, SagaTerminated): frozenset({_S.FAILED}),
    (_S.FAILED, SagaTurnedBack): frozenset({_S.COMPENSATING}),
    (_S.FAILED, StepRetried): frozenset({_S.RUNNING, _S.COMPENSATING}),
    (_S.FAILED, StepResolved): frozenset({_S.RUNNING, _S.COMPENSATING}),
    (_S.FAILED, OutputResolved): frozenset({_S.RUNNING}),
    (_S.FAILED, SagaTerminated): frozenset({_S.FAILED}),
}
"""(status before or None for a saga that is not there yet, fact) → the statuses after it that are allowed. A person leads out of FAILED:
the saga goes on in its direction. What is said about the hook of a saga that has ended moves no status."""

STEP_TRANSITIONS: Final[dict[tuple[StepStatus, type[Fact]], StepStatus]] = {
    (_T.EXECUTING, AttemptFailed): _T.EXECUTING,
    (_T.EXECUTING, StepSucceeded): _T.SUCCEEDED,
    (_T.EXECUTING, StepRejected): _T.REJECTED,
    (_T.EXECUTING, StepUnknown): _T.UNKNOWN,
    (_T.EXECUTING, StepCompletedEarly): _T.EXECUTING,
    (_T.EXECUTING, StepAccepted): _T.ACCEPTED,
    (_T.ACCEPTED, StepHeartbeat): _T.ACCEPTED,
    (_T.ACCEPTED, StepSucceeded): _T.SUCCEEDED,
    (_T.ACCEPTED, StepRejected): _T.REJECTED,
    (_T.ACCEPTED, StepUnknown): _T.UNKNOWN,
    (_T.COMPENSATING, AttemptFailed): _T.COMPENSATING,
    (_T.COMPENSATING, StepCompensated): _T.COMPENSATED,
    (_T.COMPENSATING, StepCompensationFailed): _T.COMPENSATION_FAILED,
}
"""(status before, fact about that step) → status after. Steps also move when the saga reaches them (WAITING → EXECUTING, SKIPPED or
REJECTED), when it turns back (EXECUTING or ACCEPTED → UNKNOWN or REJECTED, then SUCCEEDED or UNKNOWN → COMPENSATING, R12), when it is
terminated, and when a person has them tried again or says how they ended (PERSON_TRANSITIONS)."""

PERSON_TRANSITIONS: Final[dict[type[StepRetried] | type[StepResolved], frozenset[tuple[StepStatus, StepStatus]]]] = {
    StepRetried: frozenset(
        {
            (_T.EXECUTING, _T.EXECUTING),
            (_T.REJECTED, _T.EXECUTING),
            (_T.UNKNOWN, _T.EXECUTING),
            (_T.COMPENSATING, _T.COMPENSATING),
            (_T.COMPENSATION_FAILED, _T.COMPENSATING),
        }
    ),
    StepResolved: frozenset(
        {(before, after) for before in (_T.EXECUTING, _T.REJECTED, _T.UNKNOWN) for after in (_T.SUCCEEDED, _T.SKIPPED, _T.REJECTED)}
        | {
            (before, after)
            for before in (_T.UNKNOWN, _T.COMPENSATING, _T.COMPENSATION_FAILED)
            for after in (_T.SUCCEEDED, _T.SKIPPED, _T.REJECTED, _T.COMPENSATED)
        }
    ),
}
"""What a person may make of a step: pairs of its status before and after."""

_STATUS_KEPT: Final = frozenset({AttemptFailed, StepSucceeded, StepRejected, StepUnknown, StepAccepted, StepHeartbeat, StepCompletedEarly,
                                 LateOutcome, TurnBackRequested, StepCompensated, StepCompensationFailed, IncidentOpened, IncidentClosed,
                                 SagaPaused, SagaResumed, StepRetried, StepResolved, StepPolicyChanged, SagaRecovered,
                                 OutputResolved})  # fmt: skip


def saga_status_after(before: SagaStatus | None, fact: Fact, proposed: SagaStatus | None = None) -> SagaStatus:
    """The status of the saga after a fact. `proposed` chooses where the table allows several.

    Raises CorruptJournalError if the fact cannot follow that status.
    """
    allowed = SAGA_TRANSITIONS.get((before, type(fact)))
    if allowed is None and before is not None and type(fact) in _STATUS_KEPT:
        return before
    after = proposed if proposed is not None else next(iter(allowed or ()), None)
    if after is None or allowed is None or after not in allowed:
        raise CorruptJournalError(f"{type(fact).__name__} cannot follow saga status {before.name if before else 'none'}")
    return after


def step_status_after(before: StepStatus, fact: Fact) -> StepStatus:
    """The status of a step after a fact about it. Raises CorruptJournalError if the fact cannot follow that status."""
    after = STEP_TRANSITIONS.get((before, type(fact)))
    if after is None:
        raise CorruptJournalError(f"{type(fact).__name__} cannot follow step status {before.name}")
    return after


def check_person_transition(before: StepStatus, after: StepStatus, fact: StepRetried | StepResolved) -> None:
    """Raises CorruptJournalError if a person cannot have moved a step so."""
    if (before, after) not in PERSON_TRANSITIONS[type(fact)]:
        raise CorruptJournalError(f"{type(fact).__name__} cannot lead from step status {before.name} to {after.name}")
