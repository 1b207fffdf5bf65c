"""What an answer of a participant means: rule R6 as one table, and the few exceptions from it."""

from collections.abc import Container
from enum import Enum
from itertools import islice
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from google.rpc.code_pb2 import Code

from coordinator.codec.values import payload_of
from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import (
    Accepted,
    Compensated,
    KeyExpired,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Succeeded,
    Unknown,
)
from coordinator.core.values import MICROS_PER_SECOND, Failure, Payload
from participant_sdk.rpc_errors import ErrorReason, error_reason, find_detail
from saga.v1 import participant_pb2

RETRY_DELAY_US_MAX: Final = 3_600 * MICROS_PER_SECOND
"""Longest delay that a participant can ask for; beyond it the coordinator asks again by itself."""
ACCEPTED_US_MIN: Final = MICROS_PER_SECOND
ACCEPTED_US_MAX: Final = 366 * 24 * 3_600 * MICROS_PER_SECOND
"""How long an accepted step may take."""
FAILURE_MESSAGE_CHARS_MAX: Final = 1_024
"""What is kept of a message of a participant: it is written to the journal with every attempt."""
FAILURE_DETAILS_MAX: Final = 16
"""Details that are looked at; more are left out."""
FAILURE_DETAILS_BYTES_MAX: Final = 3_072
"""What is kept of the details together."""


class StatusMeaning(Enum):
    """What a plain gRPC status says about the effect."""

    REJECTED = "refused; whether nothing happened is for R5 to say"
    MISCONFIGURED = "the participant is set up wrongly; nothing happened"
    UNKNOWN = "nobody knows"


STATUS_MEANINGS: Final[dict[int, StatusMeaning]] = {
    Code.OK: StatusMeaning.UNKNOWN,  # OK without an outcome
    Code.CANCELLED: StatusMeaning.UNKNOWN,
    Code.UNKNOWN: StatusMeaning.UNKNOWN,
    Code.INVALID_ARGUMENT: StatusMeaning.REJECTED,
    Code.DEADLINE_EXCEEDED: StatusMeaning.UNKNOWN,
    Code.NOT_FOUND: StatusMeaning.REJECTED,
    Code.ALREADY_EXISTS: StatusMeaning.REJECTED,
    Code.PERMISSION_DENIED: StatusMeaning.MISCONFIGURED,
    Code.UNAUTHENTICATED: StatusMeaning.MISCONFIGURED,
    Code.RESOURCE_EXHAUSTED: StatusMeaning.UNKNOWN,  # gRPC sends it for an oversized reply too, after the effect
    Code.FAILED_PRECONDITION: StatusMeaning.REJECTED,
    Code.ABORTED: StatusMeaning.UNKNOWN,
    Code.OUT_OF_RANGE: StatusMeaning.REJECTED,
    Code.UNIMPLEMENTED: StatusMeaning.MISCONFIGURED,
    Code.INTERNAL: StatusMeaning.UNKNOWN,
    Code.UNAVAILABLE: StatusMeaning.UNKNOWN,
    Code.DATA_LOSS: StatusMeaning.UNKNOWN,
}
"""R6. A code that is not in the table is UNKNOWN."""


def outcome_of_status(status: status_pb2.Status) -> Outcome:
    """The outcome of a call that ended in a gRPC status instead of an answer."""
    failure = failure_of_participant(status)
    if error_reason(status) == ErrorReason.KEY_EXPIRED:
        return KeyExpired(failure=failure)  # R21
    retry_info = find_detail(status, error_details_pb2.RetryInfo)
    if retry_info is not None:
        return RetryLater(failure=failure, delay_us=_bounded_us(retry_info.retry_delay))
    match STATUS_MEANINGS.get(status.code, StatusMeaning.UNKNOWN):
        case StatusMeaning.REJECTED:
            return Rejected(failure=failure)
        case StatusMeaning.MISCONFIGURED:
            return Misconfigured(failure=failure)
        case StatusMeaning.UNKNOWN:
            return Unknown(failure=failure)


def outcome_of_execution(call: CallParticipant, response: participant_pb2.ExecuteResponse, *, payload_bytes_max: int) -> Outcome:
    """The outcome of an answer to Execute. One that does not hold what was agreed tells nothing (R6)."""
    try:
        return _read_execution(call, response, payload_bytes_max)
    except ValueError as error:
        return _unknown(f"the answer cannot be read: {error}")


def _read_execution(call: CallParticipant, response: participant_pb2.ExecuteResponse, payload_bytes_max: int) -> Outcome:
    match response.WhichOneof("outcome"):
        case "succeeded":
            return outcome_of_output(call, payload_of(response.succeeded.output), payload_bytes_max=payload_bytes_max)
        case "rejected":
            failure = failure_of_participant(response.rejected.status)
            if error_reason(response.rejected.status) == ErrorReason.KEY_EXPIRED:
                return KeyExpired(failure=failure)  # R21, however it is said
            if failure.code == Code.OK:
                failure = Failure(Code.FAILED_PRECONDITION, failure.message or "rejected without a reason", failure.details)
            return Rejected(failure=failure, sealed=response.rejected.sealed)
        case "retry_later":
            return _retry_later(response.retry_later)
        case "accepted":
            return _accepted(response.accepted)
        case _:
            return _unknown("the participant answered OK without an outcome")


def outcome_of_output(call: CallParticipant, output: Payload, *, payload_bytes_max: int) -> Outcome:
    """The outcome of an execution that returned something: it is believed only if that is what the definition says."""
    if len(output.value) > payload_bytes_max:
        return _unknown(f"the output is {len(output.value)} bytes; at most {payload_bytes_max} are allowed")
    problem = call.check_output(output)
    return _unknown(problem) if problem else Succeeded(output=output)


def outcome_of_undo(refusal: status_pb2.Status | None, *, nothing_to_undo: Container[int], unreadable: str) -> Outcome:
    """The outcome of a compensation by a method that knows nothing of sagas. `refusal`: None: it answered; `unreadable`: why that answer
    is not what the method returns, empty: it is.

    What it refuses is a failed attempt (R8), but for the statuses by which it says that there is nothing to undo.
    """
    if refusal is None:
        return _unknown(unreadable) if unreadable else Compensated(handler_ran=True)
    outcome = outcome_of_status(refusal)
    return Compensated(handler_ran=False) if isinstance(outcome, Rejected) and refusal.code in nothing_to_undo else outcome


def outcome_of_compensation(response: participant_pb2.CompensateResponse) -> Outcome:
    """The outcome of an answer to Compensate."""
    match response.WhichOneof("outcome"):
        case "compensated":
            return Compensated(handler_ran=response.compensated.handler_ran)
        case "retry_later":
            return _retry_later(response.retry_later)
        case _:
            return _unknown("the participant answered OK without an outcome")


def _accepted(answer: participant_pb2.Accepted) -> Outcome:
    """A time out of bounds is not rounded to one inside: participant and coordinator would count on different ones (R24)."""
    time_limit_us = answer.time_limit.seconds * MICROS_PER_SECOND + answer.time_limit.nanos // 1_000
    if not ACCEPTED_US_MIN <= time_limit_us <= ACCEPTED_US_MAX:
        return _unknown(
            f"the participant answered Accepted; expected a time limit from 1 s to 366 days, found {time_limit_us / MICROS_PER_SECOND:g} s"
        )
    return Accepted(time_limit_us=time_limit_us)


def _retry_later(answer: participant_pb2.RetryLater) -> RetryLater:
    failure = failure_of_participant(answer.status)
    if failure.code == Code.OK:
        failure = Failure(Code.UNAVAILABLE, failure.message or "the participant asked to be called again later", failure.details)
    return RetryLater(failure=failure, delay_us=_bounded_us(answer.delay))


def _unknown(message: str) -> Unknown:
    return Unknown(failure=Failure(Code.INTERNAL, _bounded_text(message)))


def failure_of_participant(status: status_pb2.Status) -> Failure:
    """What a participant says of a failure, as much of it as is kept. Details that are garbage change nothing in what the code says."""
    details: list[Payload] = []
    bytes_left = FAILURE_DETAILS_BYTES_MAX
    for packed in islice(status.details, FAILURE_DETAILS_MAX):
        bytes_left -= len(packed.type_url) + len(packed.value)
        if bytes_left < 0:
            break
        try:
            details.append(payload_of(packed))
        except ValueError:  # it names no type, so nobody could read it
            continue
    return Failure(status.code, _bounded_text(status.message), tuple(details))


def _bounded_text(text: str) -> str:
    return text[:FAILURE_MESSAGE_CHARS_MAX].replace("\0", "\N{REPLACEMENT CHARACTER}")  # databases refuse NUL in text (R28)


def _bounded_us(delay: Duration) -> int:
    return min(max(delay.seconds * MICROS_PER_SECOND + delay.nanos // 1_000, 0), RETRY_DELAY_US_MAX)
