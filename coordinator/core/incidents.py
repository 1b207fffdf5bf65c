"""Opening and closing incidents: who decides that a person is needed, or is not any more, makes the facts here."""

from collections.abc import Callable

from coordinator.core.events import IncidentClosed, IncidentOpened
from coordinator.core.state import SagaState
from coordinator.core.values import Failure, IncidentKind, StepId


def opened(state: SagaState, kind: IncidentKind, step_id: StepId | None, failure: Failure) -> IncidentOpened:
    """A person is needed. To be recorded before another one is opened: incidents are counted."""
    return IncidentOpened(id=len(state.incidents) + 1, kind=kind, step_id=step_id, failure=failure)


def closed(state: SagaState, is_settled: Callable[[IncidentOpened], bool]) -> tuple[IncidentClosed, ...]:
    """No person is needed any more for those that are open and settled."""
    return tuple(
        IncidentClosed(id=incident.fact.id) for incident in state.incidents if incident.closed_at is None and is_settled(incident.fact)
    )
