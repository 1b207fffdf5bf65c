"""What spans and log lines say about an attempt that has ended: read off its fact once, here."""

from typing import Final, NamedTuple, assert_never

from google.rpc import code_pb2

from coordinator.core.events import AttemptFailed, StepCompensated, StepCompensationFailed, StepRejected, StepSucceeded, StepUnknown
from coordinator.core.values import Failure

_CODE_NAMES: Final = {number: name for name, number in code_pb2.Code.items()}

AttemptFact = AttemptFailed | StepSucceeded | StepRejected | StepUnknown | StepCompensated | StepCompensationFailed
"""The facts that end an attempt."""


class Ending(NamedTuple):
    """How an attempt ended."""

    outcome: str
    """A value of `saga.outcome`."""
    failure: Failure | None
    """None: it did what it was asked."""


_SUCCEEDED: Final = Ending("SUCCEEDED", None)
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
        case StepRejected():
            return Ending("REJECTED", fact.failure)
        case StepUnknown():
            return Ending("UNKNOWN", fact.failure)
        case StepCompensationFailed():
            return Ending("COMPENSATION_FAILED", fact.failure)
        case _:
            assert_never(fact)


def code_name(code: int) -> str:
    """Name of a google.rpc.Code. A number that has none is shown as it is: it came from another process."""
    return _CODE_NAMES.get(code) or str(code)
