"""How far a saga has come, told from its events alone: for readers of the journal who need no plan and no state."""

from typing import Final

from coordinator.core.events import (
    Event,
    OutputResolved,
    SagaStarted,
    SagaTerminated,
    SagaTurnedBack,
    StepDue,
    StepRejected,
    StepResolved,
    StepRetried,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.plan import ON_FAILURE, ON_SUCCESS
from coordinator.core.transitions import saga_status_after
from coordinator.core.values import ENDED, SagaStatus

_HOOKS: Final = frozenset({ON_SUCCESS, ON_FAILURE})


class SagaCourse:
    """Follows the events of one saga, from the first one on."""

    def __init__(self) -> None:
        self.status: SagaStatus | None = None
        """None before the first event."""
        self._has_turned_back = False
        self._is_terminated = False
        self._hook_moves = False

    def follow(self, event: Event) -> SagaStatus:
        """The status after the next event. Raises CorruptJournalError if it cannot follow."""
        fact = event.fact
        proposed = None
        if isinstance(fact, SagaStarted):
            proposed = SagaStatus.RUNNING if fact.start_at is None else SagaStatus.PENDING
        elif isinstance(fact, StepRetried | StepResolved | OutputResolved) and self.status is SagaStatus.FAILED:
            proposed = SagaStatus.COMPENSATING if self._has_turned_back else SagaStatus.RUNNING
        if not (self._is_terminated and proposed is not None):  # what is said about the hook of a terminated saga moves no status
            self.status = saga_status_after(self.status, fact, proposed)
        self._has_turned_back |= isinstance(fact, SagaTurnedBack)
        self._is_terminated |= isinstance(fact, SagaTerminated)
        self._follow_hook(event)
        assert self.status is not None, "every event leads to a status"
        return self.status

    @property
    def is_over(self) -> bool:
        """Whether its outcome is final and its hook, if it has one, is at rest."""
        return (self.status in ENDED or self._is_terminated) and not self._hook_moves

    def _follow_hook(self, event: Event) -> None:
        fact = event.fact
        if any(isinstance(one, StepDue) and one.step_id in _HOOKS for one in event.reached):
            self._hook_moves = True
        match fact:
            case StepRetried(step_id=step_id) if step_id in _HOOKS:
                self._hook_moves = True
            case StepResolved(step_id=step_id) if step_id in _HOOKS:
                self._hook_moves = False
            case StepSucceeded() | StepRejected() | StepUnknown() if fact.attempt.step_id in _HOOKS:
                self._hook_moves = False
            case _:
                pass
