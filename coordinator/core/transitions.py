"""Which fact moves a saga or a step from which status to which: the one table, from which the diagrams in the docs are drawn."""

from typing import Final

from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import (
    AttemptFailed,
    Fact,
    IncidentOpened,
    SagaBegan,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaRecovered,
    SagaStarted,
    SagaTurnedBack,
    StepCompensated,
    StepCompensationFailed,
    StepRejected,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.values import SagaStatus, StepStatus

_S = SagaStatus
_T = StepStatus

SAGA_TRANSITIONS: Final[dict[tuple[SagaStatus | None, type[Fact]], frozenset[SagaStatus]]] = {
    (None, SagaStarted): frozenset({_S.PENDING, _S.RUNNING}),
    (_S.PENDING, SagaBegan): frozenset({_S.RUNNING}),
    (_S.PENDING, SagaTurnedBack): frozenset({_S.COMPENSATING}),
    (_S.RUNNING, SagaTurnedBack): frozenset({_S.COMPENSATING}),
    (_S.RUNNING, SagaCompleted): frozenset({_S.COMPLETED}),
    (_S.COMPENSATING, SagaCompensated): frozenset({_S.COMPENSATED}),
    (_S.COMPENSATING, SagaFailed): frozenset({_S.FAILED}),
}
"""(status before or None for a saga that is not there yet, fact) → the statuses after it that are allowed."""

STEP_TRANSITIONS: Final[dict[tuple[StepStatus, type[Fact]], StepStatus]] = {
    (_T.EXECUTING, AttemptFailed): _T.EXECUTING,
    (_T.EXECUTING, StepSucceeded): _T.SUCCEEDED,
    (_T.EXECUTING, StepRejected): _T.REJECTED,
    (_T.EXECUTING, StepUnknown): _T.UNKNOWN,
    (_T.COMPENSATING, AttemptFailed): _T.COMPENSATING,
    (_T.COMPENSATING, StepCompensated): _T.COMPENSATED,
    (_T.COMPENSATING, StepCompensationFailed): _T.COMPENSATION_FAILED,
}
"""(status before, fact about that step) → status after. Steps also move when a fact about another step or the saga makes them due:
WAITING → EXECUTING, SUCCEEDED or UNKNOWN → COMPENSATING, and, when the saga turns back, EXECUTING → UNKNOWN or REJECTED (R12)."""

_STATUS_KEPT: Final = frozenset({AttemptFailed, StepSucceeded, StepRejected, StepUnknown, StepCompensated, StepCompensationFailed,
                                 IncidentOpened, SagaRecovered})  # fmt: skip


def saga_status_after(before: SagaStatus | None, fact: Fact, proposed: SagaStatus | None = None) -> SagaStatus:
    """The status of the saga after a fact. `proposed` chooses where the table allows several.

    Raises CorruptJournalError if the fact cannot follow that status.
    """
    if type(fact) in _STATUS_KEPT and before is not None:
        return before
    allowed = SAGA_TRANSITIONS.get((before, type(fact)), frozenset())
    after = proposed if proposed is not None else next(iter(allowed), None)
    if after is None or after not in allowed:
        raise CorruptJournalError(f"{type(fact).__name__} cannot follow saga status {before.name if before else 'none'}")
    return after


def step_status_after(before: StepStatus, fact: Fact) -> StepStatus:
    """The status of a step after a fact about it. Raises CorruptJournalError if the fact cannot follow that status."""
    after = STEP_TRANSITIONS.get((before, type(fact)))
    if after is None:
        raise CorruptJournalError(f"{type(fact).__name__} cannot follow step status {before.name}")
    return after
