"""What the end of a call says about the participant: whether it is well enough to be called."""

from types import MappingProxyType
from typing import Final

from google.rpc.code_pb2 import Code

from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import Mismatched, NotSent, Outcome, Unknown
from coordinator.core.values import Failure
from coordinator.dispatcher.circuit import Health

_UNWELL: Final = MappingProxyType(
    {
        Code.UNAVAILABLE: Health.AWAY,
        Code.DEADLINE_EXCEEDED: Health.OVERWHELMED,
        Code.RESOURCE_EXHAUSTED: Health.OVERWHELMED,
        Code.CANCELLED: Health.UNTOLD,  # by the peer as it goes, or on this side: it comes with UNAVAILABLE if it lasts
    }
)
"""Codes of unknown outcomes. Every other one, INTERNAL and UNKNOWN included, comes from somebody who is there and answers: a handler that
fails is not made well by waiting, and its other actions go on. A business rejection or RetryLater is an answer too."""


def health_of(outcome: Outcome, call: CallParticipant, time_left_us: int) -> Health:
    """What it says. A call that the limit of its saga left less than a whole attempt's time says nothing by being too slow (R13)."""
    if isinstance(outcome, NotSent | Mismatched):
        return Health.UNTOLD
    if not isinstance(outcome, Unknown):
        return Health.WELL
    if outcome.failure.code == Code.DEADLINE_EXCEEDED and time_left_us < call.timeout_us:
        return Health.UNTOLD
    return _UNWELL.get(outcome.failure.code, Health.WELL)


def failure_in(outcome: Outcome) -> Failure | None:
    """Why a call ended unknown; None if it did not."""
    return outcome.failure if isinstance(outcome, Unknown) else None
