"""What several facts have in common: attempts, and fields without which a message is not complete.

Every check stands on both ways: what reading refuses is not written either.
"""

from coordinator.codec.values import failure_of, fill_timestamp, instant_of, payload_of
from coordinator.core.values import AttemptKey, Direction, Failure, Instant, Payload, StepId
from saga.v1 import saga_pb2

_OfAttempt = (
    saga_pb2.AttemptFailed
    | saga_pb2.StepSucceeded
    | saga_pb2.StepRejected
    | saga_pb2.StepUnknown
    | saga_pb2.StepAccepted
    | saga_pb2.LateOutcome
    | saga_pb2.StepCompensated
    | saga_pb2.StepCompensationFailed
)
_OfFailure = (
    saga_pb2.AttemptFailed
    | saga_pb2.StepRejected
    | saga_pb2.StepUnknown
    | saga_pb2.CompletionRejected
    | saga_pb2.TurnBackRequested
    | saga_pb2.SagaTurnedBack
    | saga_pb2.StepCompensationFailed
    | saga_pb2.Incident
)
_OfOutput = saga_pb2.StepSucceeded | saga_pb2.OutputResolved
_OfLimit = saga_pb2.StepAccepted | saga_pb2.StepHeartbeat


def fill_attempt(message: saga_pb2.Attempt, attempt: AttemptKey, sent_at: Instant | None) -> None:
    """Writes an attempt into a message that belongs to another one already."""
    if not attempt.step_id or not attempt.round or not attempt.number:
        raise ValueError(f"an attempt names step, round and number, found {attempt}")
    message.step_id, message.round, message.number = attempt.step_id, attempt.round, attempt.number
    message.direction = saga_pb2.Direction.ValueType(attempt.direction)
    if sent_at is not None:
        fill_timestamp(message.sent_at, sent_at)


def attempt_of(message: saga_pb2.Attempt) -> AttemptKey:
    """The attempt. Raises ValueError if it is not complete."""
    if not message.step_id or not message.round or not message.number:
        raise ValueError(f"an attempt names step, round and number, found {message.step_id!r}, {message.round} and {message.number}")
    return AttemptKey(StepId(message.step_id), Direction(message.direction), message.round, message.number)


def sent_at_of(message: saga_pb2.Attempt) -> Instant | None:
    """When the attempt was handed to the network; None: it never was."""
    return instant_of(message.sent_at) if message.HasField("sent_at") else None


def required_attempt(message: _OfAttempt) -> AttemptKey:
    """The attempt that the fact is about. Raises ValueError without one."""
    if not message.HasField("attempt"):
        raise ValueError("the attempt is missing")
    return attempt_of(message.attempt)


def required_failure(message: _OfFailure) -> Failure:
    """Why it did not go well. Raises ValueError if that is not said."""
    if not message.HasField("error"):
        raise ValueError("the error is missing")
    return failure_of(message.error)


def required_output(message: _OfOutput) -> Payload:
    """What is returned. Raises ValueError without it."""
    if not message.HasField("output"):
        raise ValueError("the output is missing")
    return payload_of(message.output)


def required_accepted_until(message: _OfLimit) -> Instant:
    """Until when an accepted step must be completed. Raises ValueError if that is not said."""
    if not message.HasField("accepted_until"):
        raise ValueError("the instant until which the step is accepted is missing")
    return instant_of(message.accepted_until)


def checked_step(step_id: str) -> StepId:
    """The id of a step, in either direction. Raises ValueError if it is empty."""
    if not step_id:
        raise ValueError("the step is missing")
    return StepId(step_id)


def optional_step(step_id: str) -> StepId | None:
    """The id of a step; None if it is empty: about the whole saga."""
    return StepId(step_id) if step_id else None


def checked_round(number: int) -> int:
    """The round of a key, in either direction. Raises ValueError if it is 0."""
    if not number:
        raise ValueError("rounds count from 1, found 0")
    return number
