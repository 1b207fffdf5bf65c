"""Facts about attempts, and about steps that participants settled."""

from collections.abc import Callable
from typing import Any, Final

from coordinator.codec.events.parts import (
    checked_round,
    checked_step,
    fill_attempt,
    required_accepted_until,
    required_attempt,
    required_failure,
    required_output,
    sent_at_of,
)
from coordinator.codec.values import failure_of, fill_any, fill_status, fill_timestamp, instant_of, payload_of
from coordinator.core.events import (
    AttemptFailed,
    Fact,
    LateOutcome,
    StepAccepted,
    StepCompensated,
    StepCompensationFailed,
    StepCompletedEarly,
    StepHeartbeat,
    StepRejected,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.inputs import Rejected, Succeeded
from coordinator.core.values import AttemptOutcome, Failure, Payload
from saga.v1 import saga_pb2


def _fill_attempt_failed(message: saga_pb2.Event, fact: AttemptFailed) -> None:
    filled = message.attempt_failed
    fill_attempt(filled.attempt, fact.attempt, fact.sent_at)
    filled.outcome = saga_pb2.AttemptOutcome.ValueType(fact.outcome)
    fill_status(filled.error, fact.failure)
    fill_timestamp(filled.retry_at, fact.retry_at)


def _read_attempt_failed(message: saga_pb2.Event) -> AttemptFailed:
    read = message.attempt_failed
    if not read.HasField("retry_at"):
        raise ValueError("the instant of the next attempt is missing")
    return AttemptFailed(
        attempt=required_attempt(read),
        sent_at=sent_at_of(read.attempt),
        outcome=AttemptOutcome(read.outcome),
        failure=required_failure(read),
        retry_at=instant_of(read.retry_at),
    )


def _fill_step_succeeded(message: saga_pb2.Event, fact: StepSucceeded) -> None:
    filled = message.step_succeeded
    fill_attempt(filled.attempt, fact.attempt, fact.sent_at)
    fill_any(filled.output, fact.output)


def _read_step_succeeded(message: saga_pb2.Event) -> StepSucceeded:
    read = message.step_succeeded
    return StepSucceeded(attempt=required_attempt(read), sent_at=sent_at_of(read.attempt), output=required_output(read))


def _fill_step_rejected(message: saga_pb2.Event, fact: StepRejected) -> None:
    filled = message.step_rejected
    fill_attempt(filled.attempt, fact.attempt, fact.sent_at)
    fill_status(filled.error, fact.failure)
    filled.sealed = fact.sealed


def _read_step_rejected(message: saga_pb2.Event) -> StepRejected:
    read = message.step_rejected
    return StepRejected(
        attempt=required_attempt(read),
        sent_at=sent_at_of(read.attempt),
        failure=required_failure(read),
        sealed=read.sealed,
    )


def _fill_step_unknown(message: saga_pb2.Event, fact: StepUnknown) -> None:
    filled = message.step_unknown
    fill_attempt(filled.attempt, fact.attempt, fact.sent_at)
    fill_status(filled.error, fact.failure)


def _read_step_unknown(message: saga_pb2.Event) -> StepUnknown:
    read = message.step_unknown
    return StepUnknown(attempt=required_attempt(read), sent_at=sent_at_of(read.attempt), failure=required_failure(read))


def _fill_step_compensated(message: saga_pb2.Event, fact: StepCompensated) -> None:
    filled = message.step_compensated
    fill_attempt(filled.attempt, fact.attempt, fact.sent_at)
    filled.handler_ran = fact.handler_ran


def _read_step_compensated(message: saga_pb2.Event) -> StepCompensated:
    read = message.step_compensated
    return StepCompensated(attempt=required_attempt(read), sent_at=sent_at_of(read.attempt), handler_ran=read.handler_ran)


def _fill_step_compensation_failed(message: saga_pb2.Event, fact: StepCompensationFailed) -> None:
    filled = message.step_compensation_failed
    fill_attempt(filled.attempt, fact.attempt, fact.sent_at)
    fill_status(filled.error, fact.failure)


def _read_step_compensation_failed(message: saga_pb2.Event) -> StepCompensationFailed:
    read = message.step_compensation_failed
    return StepCompensationFailed(attempt=required_attempt(read), sent_at=sent_at_of(read.attempt), failure=required_failure(read))


# ── Steps that finish later (R24) ────────────────────────────────────────────────────────────────────────────────────────────────


def _fill_step_accepted(message: saga_pb2.Event, fact: StepAccepted) -> None:
    filled = message.step_accepted
    fill_attempt(filled.attempt, fact.attempt, fact.sent_at)
    fill_timestamp(filled.accepted_until, fact.accepted_until)


def _read_step_accepted(message: saga_pb2.Event) -> StepAccepted:
    read = message.step_accepted
    return StepAccepted(attempt=required_attempt(read), sent_at=sent_at_of(read.attempt), accepted_until=required_accepted_until(read))


def _fill_step_heartbeat(message: saga_pb2.Event, fact: StepHeartbeat) -> None:
    filled = message.step_heartbeat
    filled.step_id = checked_step(fact.step_id)
    fill_timestamp(filled.accepted_until, fact.accepted_until)
    if fact.progress is not None:
        fill_any(filled.progress, fact.progress)


def _read_step_heartbeat(message: saga_pb2.Event) -> StepHeartbeat:
    read = message.step_heartbeat
    return StepHeartbeat(
        step_id=checked_step(read.step_id),
        accepted_until=required_accepted_until(read),
        progress=payload_of(read.progress) if read.HasField("progress") else None,
    )


def _fill_step_completed_early(message: saga_pb2.Event, fact: StepCompletedEarly) -> None:
    filled = message.step_completed_early
    filled.step_id = checked_step(fact.step_id)
    filled.round = checked_round(fact.round)
    if isinstance(fact.result, Succeeded):
        fill_any(filled.output, fact.result.output)
    else:
        fill_status(filled.rejected.error, fact.result.failure)
        filled.rejected.sealed = fact.result.sealed


def _read_step_completed_early(message: saga_pb2.Event) -> StepCompletedEarly:
    read = message.step_completed_early
    return StepCompletedEarly(step_id=checked_step(read.step_id), round=checked_round(read.round), result=_result_of(read))


def _result_of(message: saga_pb2.StepCompletedEarly) -> Succeeded | Rejected:
    match message.WhichOneof("result"):
        case "output":
            return Succeeded(output=payload_of(message.output))
        case "rejected":
            return Rejected(failure=required_failure(message.rejected), sealed=message.rejected.sealed)
        case _:
            raise ValueError("the result of a completion is missing")


def _fill_late_outcome(message: saga_pb2.Event, fact: LateOutcome) -> None:
    filled = message.late_outcome
    fill_attempt(filled.attempt, fact.attempt, fact.sent_at)
    match fact.outcome:
        case Payload():
            fill_any(filled.output, fact.outcome)
        case Failure():
            fill_status(filled.error, fact.outcome)
        case None:
            filled.compensated.SetInParent()


def _read_late_outcome(message: saga_pb2.Event) -> LateOutcome:
    read = message.late_outcome
    return LateOutcome(attempt=required_attempt(read), sent_at=sent_at_of(read.attempt), outcome=_late_outcome_of(read))


def _late_outcome_of(message: saga_pb2.LateOutcome) -> Payload | Failure | None:
    match message.WhichOneof("outcome"):
        case "output":
            return payload_of(message.output)
        case "error":
            return failure_of(message.error)
        case "compensated":
            return None
        case _:
            raise ValueError("what was said too late is missing")


FILL: Final[dict[type[Fact], Callable[[saga_pb2.Event, Any], None]]] = {
    AttemptFailed: _fill_attempt_failed,
    StepSucceeded: _fill_step_succeeded,
    StepRejected: _fill_step_rejected,
    StepUnknown: _fill_step_unknown,
    StepAccepted: _fill_step_accepted,
    StepHeartbeat: _fill_step_heartbeat,
    StepCompletedEarly: _fill_step_completed_early,
    LateOutcome: _fill_late_outcome,
    StepCompensated: _fill_step_compensated,
    StepCompensationFailed: _fill_step_compensation_failed,
}
READ: Final[dict[str, Callable[[saga_pb2.Event], Fact]]] = {
    "attempt_failed": _read_attempt_failed,
    "step_succeeded": _read_step_succeeded,
    "step_rejected": _read_step_rejected,
    "step_unknown": _read_step_unknown,
    "step_accepted": _read_step_accepted,
    "step_heartbeat": _read_step_heartbeat,
    "step_completed_early": _read_step_completed_early,
    "late_outcome": _read_late_outcome,
    "step_compensated": _read_step_compensated,
    "step_compensation_failed": _read_step_compensation_failed,
}
