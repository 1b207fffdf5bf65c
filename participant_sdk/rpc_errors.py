"""Errors on the wire: google.rpc.Status with details, built and read in one place.

Programs decide by the reason of the ErrorInfo and by the code, never by the message.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

ERROR_DOMAIN: Final = "saga.v1"
"""Domain of every ErrorInfo that this project makes."""

MESSAGE_BYTES_MAX: Final = 1024
"""Longest message of a status, in UTF-8. It travels in the trailing metadata twice, once percent-encoded to three times
its size."""

STATUS_BYTES_MAX: Final = 3072
"""Largest status with its details. gRPC refuses trailing metadata from 8 KiB on, and with them the whole answer, so
details that do not fit are left out."""

DetailT = TypeVar("DetailT", bound=Message)
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class ErrorReason(StrEnum):
    """Why a call was refused, for programs. `Rejected` of a participant may carry reasons of its own."""

    DEFINITION_NOT_FOUND = "DEFINITION_NOT_FOUND"
    SAGA_NOT_FOUND = "SAGA_NOT_FOUND"
    DEFINITION_CONFLICT = "DEFINITION_CONFLICT"
    DEFINITION_INVALID = "DEFINITION_INVALID"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    SAGA_ID_REUSED = "SAGA_ID_REUSED"
    INPUT_TYPE_MISMATCH = "INPUT_TYPE_MISMATCH"
    INPUT_INVALID = "INPUT_INVALID"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    SAGA_ALREADY_ENDED = "SAGA_ALREADY_ENDED"
    SAGA_STATUS = "SAGA_STATUS"
    SAGA_QUARANTINED = "SAGA_QUARANTINED"
    POINT_OF_NO_RETURN_PASSED = "POINT_OF_NO_RETURN_PASSED"
    STEP_NOT_FOUND = "STEP_NOT_FOUND"
    INCIDENT_NOT_FOUND = "INCIDENT_NOT_FOUND"
    NODE_NOT_FOUND = "NODE_NOT_FOUND"
    STEP_STATUS = "STEP_STATUS"
    STEP_INPUT_FIXED = "STEP_INPUT_FIXED"
    STEP_NOT_WAITING = "STEP_NOT_WAITING"
    ATTEMPT_UNDER_WAY = "ATTEMPT_UNDER_WAY"
    COMPLETION_TOKEN_INVALID = "COMPLETION_TOKEN_INVALID"  # noqa: S105 - a reason, not a secret
    SELECTION_TOO_LARGE = "SELECTION_TOO_LARGE"
    NO_LONGER_SELECTED = "NO_LONGER_SELECTED"
    OVERLOADED = "OVERLOADED"
    REQUEST_INVALID = "REQUEST_INVALID"
    JOURNAL_UNAVAILABLE = "JOURNAL_UNAVAILABLE"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    REGISTRATION_FORBIDDEN = "REGISTRATION_FORBIDDEN"
    PARTICIPANT_CONFLICT = "PARTICIPANT_CONFLICT"
    KEY_EXPIRED = "KEY_EXPIRED"
    KEY_PAYLOAD_MISMATCH = "KEY_PAYLOAD_MISMATCH"
    SEALED = "SEALED"
    UNKNOWN_ACTION = "UNKNOWN_ACTION"
    REPLY_TOO_LARGE = "REPLY_TOO_LARGE"
    REPLY_TYPE_MISMATCH = "REPLY_TYPE_MISMATCH"
    ACCEPTANCE_INVALID = "ACCEPTANCE_INVALID"
    REJECTED = "REJECTED"


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def status_with(code: grpc.StatusCode | int, message: str, *details: Message) -> status_pb2.Status:
    """Builds a status; `message` is cut to MESSAGE_BYTES_MAX and may hold any text, also what UTF-8 cannot encode."""
    number = code if isinstance(code, int) else code.value[0]
    status = status_pb2.Status(code=number, message=_bounded(message))
    for detail in details:
        status.details.add().Pack(detail)
    return status


def error_details(reason: ErrorReason | str, /, **metadata: str) -> error_details_pb2.ErrorInfo:
    """The detail that programs decide by."""
    return error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=metadata)


def find_detail(status: status_pb2.Status, message_class: type[DetailT]) -> DetailT | None:
    """The first detail of that type; None if there is none that can be decoded."""
    return next(_details(status, message_class), None)


def _details(status: status_pb2.Status, message_class: type[DetailT]) -> Iterator[DetailT]:
    for packed in status.details:
        detail = message_class()
        if packed.TypeName() == detail.DESCRIPTOR.full_name:
            try:
                packed.Unpack(detail)
            except DecodeError:
                continue
            yield detail


def error_reason(status: status_pb2.Status) -> str:
    """The reason of its ErrorInfo of this project's domain, which need not be the only one; empty without one."""
    found = _details(status, error_details_pb2.ErrorInfo)
    return next((detail.reason for detail in found if detail.domain == ERROR_DOMAIN), "")


def from_rpc_error(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The status of a call that failed, with its details if the other side sent any. Garbage there never raises."""
    try:
        # The variant for aio raises on an AioRpcError: its metadata are there already, nothing is to be awaited.
        status: status_pb2.Status | None = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        status = None  # Details that contradict the status, or that no one can read: the plain status is what counts.
    if status is not None:
        return status
    return status_with(error.code(), error.details() or "")


def to_rpc_error(status: status_pb2.Status) -> grpc.aio.AioRpcError:
    """The error with which a call by itself would have ended in that status."""
    details = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), details, details=status.message)


async def abort_with(context: "grpc.aio.ServicerContext[RequestT, ResponseT]", status: status_pb2.Status) -> NoReturn:
    """Ends the call with `status`. Always raises; details that do not fit into trailing metadata are left out."""
    if status.code == code_pb2.OK:
        raise ValueError("abort_with needs an error: OK is answered by returning the response")
    await context.abort_with_status(rpc_status.to_status(_fitting(status)))
    raise AssertionError("abort_with_status returned")


def _bounded(text: str) -> str:
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= MESSAGE_BYTES_MAX:
        return encoded.decode("utf-8")
    return encoded[: MESSAGE_BYTES_MAX - 3].decode("utf-8", "ignore") + "..."


def _fitting(status: status_pb2.Status) -> status_pb2.Status:
    if status.ByteSize() <= STATUS_BYTES_MAX:
        return status
    fitting = status_pb2.Status(code=status.code, message=_bounded(status.message))
    for packed in status.details:
        kept = fitting.details.add()
        kept.CopyFrom(packed)
        if fitting.ByteSize() > STATUS_BYTES_MAX and not _shorten_violations(fitting, kept):
            del fitting.details[-1]
    return fitting


def _shorten_violations(status: status_pb2.Status, packed: any_pb2.Any) -> bool:
    """Drops field violations from the end until the status fits; False if that does not help."""
    violations = error_details_pb2.BadRequest()
    if packed.TypeName() != violations.DESCRIPTOR.full_name:
        return False
    packed.Unpack(violations)
    while violations.field_violations and status.ByteSize() > STATUS_BYTES_MAX:
        del violations.field_violations[-1]
        packed.Pack(violations)
    return bool(violations.field_violations)
