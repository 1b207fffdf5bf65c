"""What answers of participants mean: R6 as a table of its own, and the bounds of what is believed and kept."""

from collections.abc import Callable

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from google.rpc import error_details_pb2, status_pb2
from google.rpc.code_pb2 import Code

from coordinator.codec.outcomes import (
    FAILURE_DETAILS_BYTES_MAX,
    FAILURE_DETAILS_MAX,
    FAILURE_MESSAGE_CHARS_MAX,
    outcome_of_compensation,
    outcome_of_execution,
    outcome_of_status,
)
from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import Accepted, Compensated, KeyExpired, Misconfigured, Outcome, Rejected, RetryLater, Succeeded, Unknown
from coordinator.core.plan import OutputCheck, accept_any_output
from coordinator.core.values import Failure, Payload
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import participant_pb2
from tests.builders import sequence, started, step

PAYLOAD_BYTES_MAX = 1_024
HOUR_US = 3_600_000_000
DAY = Duration(seconds=86_400)
TYPELESS = Any(value=b"no type")

MEANINGS: dict[int, type[Outcome]] = {
    Code.OK: Unknown,
    Code.CANCELLED: Unknown,
    Code.UNKNOWN: Unknown,
    Code.INVALID_ARGUMENT: Rejected,
    Code.DEADLINE_EXCEEDED: Unknown,
    Code.NOT_FOUND: Rejected,
    Code.ALREADY_EXISTS: Rejected,
    Code.PERMISSION_DENIED: Misconfigured,
    Code.UNAUTHENTICATED: Misconfigured,
    Code.RESOURCE_EXHAUSTED: Unknown,
    Code.FAILED_PRECONDITION: Rejected,
    Code.ABORTED: Unknown,
    Code.OUT_OF_RANGE: Rejected,
    Code.UNIMPLEMENTED: Misconfigured,
    Code.INTERNAL: Unknown,
    Code.UNAVAILABLE: Unknown,
    Code.DATA_LOSS: Unknown,
}


def call(check_output: OutputCheck = accept_any_output) -> CallParticipant:
    return started(sequence(step("charge", check_output=check_output))).effect("charge")


def executed(response: participant_pb2.ExecuteResponse, check_output: OutputCheck = accept_any_output) -> Outcome:
    return outcome_of_execution(call(check_output), response, payload_bytes_max=PAYLOAD_BYTES_MAX)


def output(packed: Any) -> participant_pb2.ExecuteResponse:
    return participant_pb2.ExecuteResponse(succeeded=participant_pb2.Succeeded(output=packed))


def packed(message: Message) -> Any:
    made = Any()
    made.Pack(message)
    return made


def retry_info(delay: Duration) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=delay)


def failure_in(outcome: Outcome) -> Failure:
    assert not isinstance(outcome, Succeeded | Compensated | Accepted)
    return outcome.failure


# ── Statuses ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_table_names_every_grpc_code() -> None:
    assert set(MEANINGS) == set(Code.values())


@pytest.mark.parametrize("code", Code.values(), ids=Code.Name)
def test_plain_status_means_what_the_protocol_says(code: int) -> None:  # R6
    expected = MEANINGS[code](failure=Failure(code, "said so"))  # type: ignore[call-arg] # each of these takes a failure
    assert outcome_of_status(status_pb2.Status(code=code, message="said so")) == expected


@pytest.mark.parametrize("code", [-1, 17, 2**31 - 1])
def test_code_that_grpc_does_not_know_is_unknown(code: int) -> None:  # R6
    assert isinstance(outcome_of_status(status_pb2.Status(code=code)), Unknown)


@pytest.mark.parametrize("code", [code for code in Code.values() if code != Code.OK], ids=Code.Name)
def test_status_with_retry_info_is_retried_later_whatever_its_code(code: int) -> None:  # R6
    outcome = outcome_of_status(status_with(code, "busy", retry_info(Duration(seconds=2, nanos=500_000_000))))
    assert isinstance(outcome, RetryLater)
    assert (outcome.delay_us, outcome.failure.code) == (2_500_000, code)


@pytest.mark.parametrize("code", [Code.FAILED_PRECONDITION, Code.NOT_FOUND, Code.UNAVAILABLE, Code.UNIMPLEMENTED], ids=Code.Name)
def test_expired_key_is_told_by_its_reason_and_not_by_its_code(code: int) -> None:  # R21
    outcome = outcome_of_status(status_with(code, "forgotten", error_details(ErrorReason.KEY_EXPIRED)))
    assert isinstance(outcome, KeyExpired)


def test_expired_key_is_not_retried_even_with_retry_info() -> None:  # R21
    status = status_with(Code.UNAVAILABLE, "forgotten", retry_info(DAY), error_details(ErrorReason.KEY_EXPIRED))
    assert isinstance(outcome_of_status(status), KeyExpired)


def test_reason_of_a_foreign_domain_is_only_a_detail() -> None:
    foreign = error_details_pb2.ErrorInfo(reason="KEY_EXPIRED", domain="payments.example.com")
    assert isinstance(outcome_of_status(status_with(Code.NOT_FOUND, "no such key", foreign)), Rejected)


def test_details_that_are_garbage_leave_the_meaning_of_the_code() -> None:  # R6
    broken = Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff")
    status = status_pb2.Status(code=Code.NOT_FOUND, message="gone", details=[TYPELESS, broken])
    kept = Payload("google.rpc.RetryInfo", b"\xff\xff")
    assert outcome_of_status(status) == Rejected(failure=Failure(Code.NOT_FOUND, "gone", (kept,)))


# ── Answers to Execute ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_output_as_agreed_is_a_success() -> None:
    expected = Payload("google.protobuf.StringValue", StringValue(value="x").SerializeToString())
    assert executed(output(packed(StringValue(value="x")))) == Succeeded(output=expected)


def test_ok_without_an_outcome_is_unknown() -> None:  # R6
    assert isinstance(executed(participant_pb2.ExecuteResponse()), Unknown)
    assert isinstance(outcome_of_compensation(participant_pb2.CompensateResponse()), Unknown)


@pytest.mark.parametrize("type_url", ["", "google.protobuf.StringValue"])
def test_output_without_a_type_is_unknown(type_url: str) -> None:  # R6
    assert isinstance(executed(output(Any(type_url=type_url, value=b"x"))), Unknown)


def test_output_that_the_plan_does_not_accept_is_unknown() -> None:  # R6
    outcome = executed(output(packed(Int64Value(value=1))), lambda found: f"expected something else, found {found.type_name}")
    assert outcome == Unknown(failure=Failure(Code.INTERNAL, "expected something else, found google.protobuf.Int64Value"))


def test_largest_output_is_accepted_and_one_byte_more_is_unknown() -> None:  # R6
    type_url = "type.googleapis.com/shop.v1.Done"
    assert isinstance(executed(output(Any(type_url=type_url, value=b"x" * PAYLOAD_BYTES_MAX))), Succeeded)
    assert isinstance(executed(output(Any(type_url=type_url, value=b"x" * (PAYLOAD_BYTES_MAX + 1)))), Unknown)


@pytest.mark.parametrize("sealed", [True, False])
def test_rejection_says_whether_it_is_sealed(sealed: bool) -> None:  # R5
    rejected = participant_pb2.Rejected(status=status_pb2.Status(code=Code.NOT_FOUND, message="no card"), sealed=sealed)
    expected = Rejected(failure=Failure(Code.NOT_FOUND, "no card"), sealed=sealed)
    assert executed(participant_pb2.ExecuteResponse(rejected=rejected)) == expected


def test_rejection_without_a_status_is_a_rejection_with_a_code() -> None:
    outcome = executed(participant_pb2.ExecuteResponse(rejected=participant_pb2.Rejected()))
    assert outcome == Rejected(failure=Failure(Code.FAILED_PRECONDITION, "rejected without a reason"))


def test_sealed_rejection_with_garbage_details_is_still_sealed() -> None:  # R5
    rejected = participant_pb2.Rejected(status=status_pb2.Status(code=Code.NOT_FOUND, message="no", details=[TYPELESS]), sealed=True)
    assert executed(participant_pb2.ExecuteResponse(rejected=rejected)) == Rejected(failure=Failure(Code.NOT_FOUND, "no"), sealed=True)


# ── Accepted ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("time_limit", "expected_us"),
    [
        (Duration(seconds=1), 1_000_000),
        (Duration(seconds=90, nanos=500_000_000), 90_500_000),
        (Duration(seconds=366 * 86_400), 366 * 86_400_000_000),
    ],
)
def test_accepted_says_how_long_it_may_take(time_limit: Duration, expected_us: int) -> None:  # R24
    accepted = participant_pb2.ExecuteResponse(accepted=participant_pb2.Accepted(time_limit=time_limit))
    assert executed(accepted) == Accepted(time_limit_us=expected_us)


@pytest.mark.parametrize(
    "time_limit",
    [
        None,
        Duration(),
        Duration(nanos=999_999_999),
        Duration(seconds=-1),
        Duration(seconds=366 * 86_400, nanos=1_000),
        Duration(seconds=2**63 - 1, nanos=2**31 - 1),
        Duration(seconds=-(2**63), nanos=-(2**31)),
    ],
)
def test_accepted_for_no_time_that_was_agreed_is_unknown_and_says_why(time_limit: Duration | None) -> None:  # R6, R24
    outcome = executed(participant_pb2.ExecuteResponse(accepted=participant_pb2.Accepted(time_limit=time_limit)))
    assert isinstance(outcome, Unknown)
    assert "expected a time limit from 1 s to 366 days, found" in outcome.failure.message


# ── Retry later ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("delay", "expected_us"),
    [
        (Duration(), 0),
        (Duration(nanos=1_500), 1),
        (Duration(seconds=60), 60_000_000),
        (Duration(seconds=-5), 0),
        (Duration(nanos=-(2**31)), 0),
        (Duration(seconds=1, nanos=-500_000_000), 500_000),
        (Duration(seconds=2**63 - 1, nanos=2**31 - 1), HOUR_US),
        (Duration(seconds=-(2**63)), 0),
    ],
)
def test_delay_is_bounded_whatever_was_sent(delay: Duration, expected_us: int) -> None:
    later = participant_pb2.RetryLater(delay=delay)
    expected = RetryLater(failure=Failure(Code.UNAVAILABLE, "the participant asked to be called again later"), delay_us=expected_us)
    assert executed(participant_pb2.ExecuteResponse(retry_later=later)) == expected
    assert outcome_of_compensation(participant_pb2.CompensateResponse(retry_later=later)) == expected
    by_status = outcome_of_status(status_with(Code.ABORTED, "busy", retry_info(delay)))
    assert isinstance(by_status, RetryLater)
    assert by_status.delay_us == expected_us


def test_retry_later_with_garbage_details_is_still_no_attempt() -> None:  # R7
    later = participant_pb2.RetryLater(status=status_pb2.Status(code=Code.ABORTED, message="busy", details=[TYPELESS]))
    expected = RetryLater(failure=Failure(Code.ABORTED, "busy"), delay_us=0)
    assert executed(participant_pb2.ExecuteResponse(retry_later=later)) == expected
    assert outcome_of_compensation(participant_pb2.CompensateResponse(retry_later=later)) == expected


# ── Answers to Compensate ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("handler_ran", [True, False])
def test_compensation_says_whether_there_was_something_to_undo(handler_ran: bool) -> None:
    answer = participant_pb2.CompensateResponse(compensated=participant_pb2.Compensated(handler_ran=handler_ran))
    assert outcome_of_compensation(answer) == Compensated(handler_ran=handler_ran)


# ── Bounds: what a participant says of a failure is journalled with every attempt ────────────────────────────────────────────────


def by_status(status: status_pb2.Status) -> Outcome:
    return outcome_of_status(status)


def by_rejection(status: status_pb2.Status) -> Outcome:
    return executed(participant_pb2.ExecuteResponse(rejected=participant_pb2.Rejected(status=status)))


def by_retry_later(status: status_pb2.Status) -> Outcome:
    return executed(participant_pb2.ExecuteResponse(retry_later=participant_pb2.RetryLater(status=status)))


ways = pytest.mark.parametrize("answered", [by_status, by_rejection, by_retry_later])


@ways
def test_long_message_is_cut_and_holds_no_nul(answered: Callable[[status_pb2.Status], Outcome]) -> None:  # R28
    failure = failure_in(answered(status_pb2.Status(code=Code.NOT_FOUND, message="a\0b" + "ü" * 1_000_000)))
    assert len(failure.message) == FAILURE_MESSAGE_CHARS_MAX
    assert failure.message.startswith("a\ufffdbü")


@ways
def test_large_details_are_left_out(answered: Callable[[status_pb2.Status], Outcome]) -> None:
    small = Any(type_url="x/shop.v1.Small", value=b"small")
    large = Any(type_url="x/shop.v1.Large", value=b"x" * FAILURE_DETAILS_BYTES_MAX)
    failure = failure_in(answered(status_pb2.Status(code=Code.NOT_FOUND, details=[small, large, small])))
    assert failure.details == (Payload("shop.v1.Small", b"small"),)


@ways
def test_very_many_details_are_cut(answered: Callable[[status_pb2.Status], Outcome]) -> None:
    failure = failure_in(answered(status_pb2.Status(code=Code.NOT_FOUND, details=[Any(type_url="/")] * 1_000)))
    assert len(failure.details) == FAILURE_DETAILS_MAX


def test_type_of_an_output_that_is_far_too_long_does_not_reach_the_journal() -> None:
    outcome = executed(output(Any(type_url="x" * 1_000_000)))
    assert isinstance(outcome, Unknown)
    assert len(outcome.failure.message) == FAILURE_MESSAGE_CHARS_MAX
