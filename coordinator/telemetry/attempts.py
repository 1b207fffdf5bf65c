"""What spans and log lines say about an attempt that has ended: read off its fact once, here."""

from typing import Final, NamedTuple, TypeGuard, assert_never

from google.rpc import code_pb2

from coordinator.core.events import (
    AttemptFailed,
    LateOutcome,
    StepAccepted,
    StepCompensated,
    StepCompensationFailed,
    StepRejected,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState, StepState
from coordinator.core.values import Failure, StepId

_CODE_NAMES: Final = {number: name for name, number in code_pb2.Code.items()}

SettlingFact = StepSucceeded | StepRejected | StepUnknown
"""The facts that bring an execution to rest."""
AttemptFact = AttemptFailed | SettlingFact | StepAccepted | StepCompensated | StepCompensationFailed | LateOutcome
"""The facts that end an attempt, if they say when it was sent."""


class Ending(NamedTuple):
    """How an attempt ended."""

    outcome: str
    """A value of `saga.outcome`."""
    failure: Failure | None
    """None: it did what it was asked."""


_SUCCEEDED: Final = Ending("SUCCEEDED", None)
_ACCEPTED: Final = Ending("ACCEPTED", None)
_COMPENSATED: Final = Ending("COMPENSATED", None)


def ending_of(fact: AttemptFact) -> Ending:
    """How the attempt of a fact ended."""
    match fact:
        case StepSucceeded():
            return _SUCCEEDED
        case StepCompensated():
            return _COMPENSATED
        case AttemptFailed():
            return Ending(fact.outcome.name, fact.failure)
        case StepAccepted():
            return _ACCEPTED
        case StepRejected():
            return Ending("REJECTED", fact.failure)
        case StepUnknown():
            return Ending("UNKNOWN", fact.failure)
        case StepCompensationFailed():
            return Ending("COMPENSATION_FAILED", fact.failure)
        case LateOutcome():
            return _ending_of_late(fact)
        case _:
            assert_never(fact)


def _ending_of_late(fact: LateOutcome) -> Ending:
    if fact.outcome is None:
        return _COMPENSATED
    # A failure that changed nothing was not judged: whether it tells of no effect is not known (R5).
    return Ending("UNKNOWN", fact.outcome) if isinstance(fact.outcome, Failure) else _SUCCEEDED


def is_completion(fact: AttemptFact, step: StepState) -> TypeGuard[SettlingFact]:
    """Whether a fact tells how a step ended that its participant had accepted (R24): no call of its own ended with it.

    The step may be ahead of the fact. If it was accepted anew by then, the answer is False: of the older acceptance nothing is left.
    """
    return fact.sent_at is None and isinstance(fact, SettlingFact) and step.accepted_attempt == fact.attempt


def step_of(step_id: StepId, plan: SagaPlan, state: SagaState) -> StepState:
    """The step, or the hook, that a fact is about."""
    step = state.step(plan, step_id)
    assert step is not None, "a committed fact is about a step that the saga has"
    return step


def code_name(code: int) -> str:
    """Name of a google.rpc.Code. A number that has none is shown as it is: it came from another process."""
    return _CODE_NAMES.get(code) or str(code)
