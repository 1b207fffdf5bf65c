"""Errors on the wire, as values; over a socket they are tested with the servers."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.rpc_errors import (
    MESSAGE_BYTES_MAX,
    STATUS_BYTES_MAX,
    ErrorReason,
    _fitting,
    abort_with,
    error_details,
    error_reason,
    find_detail,
    from_rpc_error,
    status_with,
)


def test_status_carries_code_message_and_reason() -> None:
    status = status_with(grpc.StatusCode.NOT_FOUND, "no saga", error_details(ErrorReason.SAGA_NOT_FOUND, reason="unknown"))
    assert (status.code, status.message, error_reason(status)) == (5, "no saga", "SAGA_NOT_FOUND")
    found = find_detail(status, error_details_pb2.ErrorInfo)
    assert found is not None
    assert dict(found.metadata) == {"reason": "unknown"}
    assert find_detail(status, error_details_pb2.RetryInfo) is None


def test_reason_of_another_domain_is_not_ours() -> None:
    status = status_with(5, "no", error_details_pb2.ErrorInfo(reason="SAGA_NOT_FOUND", domain="somebody.else"))
    assert error_reason(status) == ""


@pytest.mark.parametrize("text", ["x" * 5_000, "é" * 5_000, "\udc80" * 2_000, "💸" * 2_000])
def test_long_and_unencodable_messages_are_cut_and_still_travel(text: str) -> None:
    status = status_with(13, text)
    assert len(status.message.encode()) <= MESSAGE_BYTES_MAX
    assert status.message.endswith("...")
    assert status_pb2.Status.FromString(status.SerializeToString()) == status


def test_detail_that_cannot_be_decoded_is_as_if_it_were_not_there() -> None:
    status = status_with(5, "no", error_details(ErrorReason.SAGA_NOT_FOUND))
    status.details[0].value = b"\xff\xff\xff"
    assert find_detail(status, error_details_pb2.ErrorInfo) is None


def test_details_that_do_not_fit_are_left_out_from_the_end() -> None:
    violations = error_details_pb2.BadRequest()
    for number in range(1_000):
        violations.field_violations.add(field=f"steps[{number}]", description="wrong")
    status = status_with(3, "bad", error_details("DEFINITION_INVALID"), violations, error_details_pb2.DebugInfo(detail="x" * 9_000))
    fitting = _fitting(status)
    assert fitting.ByteSize() <= STATUS_BYTES_MAX
    assert error_reason(fitting) == "DEFINITION_INVALID"
    kept = find_detail(fitting, error_details_pb2.BadRequest)
    assert kept is not None
    assert len(kept.field_violations) > 10
    assert find_detail(fitting, error_details_pb2.DebugInfo) is None


def _error(code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, bytes], ...]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, trailing_metadata=grpc.aio.Metadata(*trailing), details=details)


@pytest.mark.parametrize("garbage", [b"\xff\xff", status_with(7, "other").SerializeToString()])
def test_details_that_are_garbage_or_contradict_leave_the_plain_status(garbage: bytes) -> None:
    error = _error(grpc.StatusCode.NOT_FOUND, "no", (("grpc-status-details-bin", garbage),))
    assert from_rpc_error(error) == status_with(5, "no")


def test_details_of_an_error_are_read() -> None:
    status = status_with(5, "no", error_details(ErrorReason.SAGA_NOT_FOUND))
    error = _error(grpc.StatusCode.NOT_FOUND, "no", (("grpc-status-details-bin", status.SerializeToString()),))
    assert from_rpc_error(error) == status


async def test_abort_with_ok_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="OK"):
        await abort_with(None, status_with(0, ""))  # type: ignore[arg-type]
