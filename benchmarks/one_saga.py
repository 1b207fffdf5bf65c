"""One saga of three steps as the core and the journal see it, for what is measured without processes."""

from dataclasses import dataclass
from typing import Final

from coordinator.core.decide import advance
from coordinator.core.events import Event
from coordinator.core.inputs import Replied, Start, Succeeded
from coordinator.core.pending import call_participant, pending
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.trace import start_trace
from coordinator.core.values import Instant, Payload, SagaId
from coordinator.engine.ports import Append, SagaStart
from tests.builders import SAGA, sequence

PLAN: Final[SagaPlan] = sequence("one", "two", "three")
MESSAGE: Final = Payload("google.protobuf.Mixin", bytes(190))
FINGERPRINT: Final = bytes(32)
TRACED: Final = start_trace(SAGA, "", "", sample=True)
UNTRACED: Final = start_trace(SAGA, "", "", sample=False)
CALL_US: Final = 2_000
"""Between an input and the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """A saga that has ended."""

    state: SagaState
    turns: tuple[tuple[Event, ...], ...]
    """What was to be committed together, in order."""

    def appends(self, saga_id: SagaId) -> list[Append]:
        """The same as the journal is given it. A saga of another id has other rows and equal events."""
        status = self.state.status
        assert status is not None, "it has lived"
        return [
            Append(
                saga_id=saga_id,
                events=events,
                status=status,
                is_unfinished=False,
                is_paused=False,
                has_ended=True,
                wake_at=None,
                start=_START if events[0].sequence == 1 else None,
            )
            for events in self.turns
        ]


def live(*, is_traced: bool = False) -> Lived:
    """Leads a saga from its start to its end."""
    state = SagaState(PLAN, SAGA)
    start = Start(input=MESSAGE, trace=TRACED if is_traced else UNTRACED)
    now, turns = Instant(CALL_US), []
    turns.append(advance(PLAN, state, start, now))
    while calls := pending(PLAN, state).calls:
        call = call_participant(PLAN, state, calls[0].attempt)
        sent_at, now = now, Instant(now + CALL_US)
        turns.append(advance(PLAN, state, Replied(attempt=call.attempt, outcome=Succeeded(output=MESSAGE), sent_at=sent_at), now))
    return Lived(state=state, turns=tuple(turns))


_START: Final = SagaStart(definition=PLAN.key, fingerprint=FINGERPRINT, labels=(), key=None, created_at=Instant(CALL_US))
