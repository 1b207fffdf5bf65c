"""Moments: what the span of a saga tells of the time between its start and its end."""

from collections import defaultdict
from typing import Final

from opentelemetry.sdk.trace import Event as SpanEvent

from coordinator.core.events import Event, IncidentClosed, StepDue
from coordinator.core.state import SagaState
from coordinator.core.values import Instant, SagaId
from coordinator.telemetry import names
from coordinator.telemetry.descriptions import Described, Fields, describe

SAGAS_WITH_MOMENTS_MAX: Final = 10_000
"""Sagas at once whose moments are kept for their span; beyond, the oldest lose theirs."""
MOMENTS_PER_SAGA_MAX: Final = 32
"""A saga with more of them than this shows the first."""
TEXT_CHARS_MAX: Final = 1_024
"""What participants and persons say is cut to this: collectors refuse a whole batch that is too large."""
NANOS_PER_MICRO: Final = 1_000

Moment = SpanEvent
"""Not to be taken for an event of the journal."""


class MomentMemory:
    """Moments of sagas whose span is not written yet, as far as the state does not tell them.

    Decoration: those of an earlier process are not known any more. Bounded in both directions.
    """

    def __init__(self, sagas_max: int) -> None:
        self._sagas_max = sagas_max
        self._kept: defaultdict[SagaId, list[Moment]] = defaultdict(list)

    def keep(self, saga_id: SagaId, moment: Moment) -> None:
        """Remembers a moment until the span of its saga is written."""
        moments = self._kept[saga_id]
        if len(moments) < MOMENTS_PER_SAGA_MAX:
            moments.append(moment)
        if len(self._kept) > self._sagas_max:
            del self._kept[next(iter(self._kept))]

    def take(self, saga_id: SagaId) -> list[Moment]:
        """What was remembered, and forgets it."""
        return self._kept.pop(saga_id, [])


def moment_of(at: Instant, described: Described) -> Moment:
    """A fact or a consequence as a moment."""
    words, fields = describe(described)
    return _moment(words, at, fields)


def moments_reached(event: Event) -> list[Moment]:
    """What an event tells of steps that are not executed though all before them is done."""
    return [moment_of(event.occurred_at, reached) for reached in event.reached if not isinstance(reached, StepDue)]


def moments_of_state(state: SagaState, since: Instant, until: Instant) -> list[Moment]:
    """What the state tells for good, so that no crash loses it."""
    moments = []
    if state.started_at is not None and state.started_at != state.created_at and since <= state.started_at <= until:
        moments.append(_moment(names.MOMENT_BEGAN, state.started_at, {}))
    for incident in state.incidents:
        if since <= incident.opened_at <= until:
            moments.append(moment_of(incident.opened_at, incident.fact))
        if incident.closed_at is not None and since <= incident.closed_at <= until:
            moments.append(moment_of(incident.closed_at, IncidentClosed(id=incident.fact.id)))
    return moments


def _moment(words: str, at: Instant, fields: Fields) -> Moment:
    cut = {name: value[:TEXT_CHARS_MAX] if isinstance(value, str) else value for name, value in fields.items()}
    return Moment(words, attributes=cut, timestamp=at * NANOS_PER_MICRO)
