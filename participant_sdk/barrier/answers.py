"""What the barrier answers by itself, as messages."""

from datetime import timedelta

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import status_pb2

from participant_sdk.barrier.verdict import CompensateCall, ExecuteCall
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import participant_pb2


def rejection(status: status_pb2.Status, *, sealed: bool) -> participant_pb2.ExecuteResponse:
    """Refused by the handler; `sealed` says that it was stored (R5)."""
    return participant_pb2.ExecuteResponse(rejected=participant_pb2.Rejected(status=status, sealed=sealed))


def sealed_refusal(call: ExecuteCall) -> participant_pb2.ExecuteResponse:
    """Refused, since the compensation came first."""
    status = status_with(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"{call.action} with key {call.key} is sealed: its compensation came first",
        error_details(ErrorReason.SEALED, key=call.key),
    )
    return rejection(status, sealed=True)


def compensated(*, handler_ran: bool) -> participant_pb2.CompensateResponse:
    """Undone, or nothing to undo."""
    return participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=handler_ran))


def retry_later(after: timedelta, status: status_pb2.Status) -> participant_pb2.RetryLater:
    """Nothing happened in this call; call again."""
    delay = Duration()
    delay.FromTimedelta(after)
    return participant_pb2.RetryLater(delay=delay, status=status)


def locked(call: ExecuteCall | CompensateCall, after: timedelta) -> participant_pb2.RetryLater:
    """Another attempt may be running."""
    return retry_later(after, status_with(grpc.StatusCode.UNAVAILABLE, f"another attempt of key {call.key} may still be running"))


def busy(call: ExecuteCall | CompensateCall, after: timedelta) -> participant_pb2.RetryLater:
    """The database did not let the call through in time."""
    return retry_later(after, status_with(grpc.StatusCode.UNAVAILABLE, f"the database was too busy for key {call.key}; nothing happened"))


def key_expired(call: ExecuteCall | CompensateCall, retention: timedelta) -> status_pb2.Status:
    """R21: nobody can say whether the key took effect."""
    return status_with(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"the first attempt of key {call.key} is older than the {retention.days} days for which keys are remembered, and "
        "nothing is known of it; find out by hand whether it took effect, then resolve the step",
        error_details(ErrorReason.KEY_EXPIRED, key=call.key),
    )


def key_mismatch(call: ExecuteCall | CompensateCall) -> status_pb2.Status:
    """R22: the key was used for something else."""
    return status_with(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"key {call.key} was used before with another input or for another action than {call.action}",
        error_details(ErrorReason.KEY_PAYLOAD_MISMATCH, key=call.key),
    )


def outcome_unknown(message: str) -> status_pb2.Status:
    """Nobody knows what this call did."""
    return status_with(grpc.StatusCode.UNKNOWN, message)


def unavailable(message: str) -> status_pb2.Status:
    """The database cannot be used now; nothing happened in this call, but an earlier one may have had an effect."""
    return status_with(grpc.StatusCode.UNAVAILABLE, message)
