"""Which ends of calls say that a participant is not well."""

import pytest
from google.rpc.code_pb2 import Code

from coordinator.core.inputs import (
    Accepted,
    Compensated,
    KeyExpired,
    Misconfigured,
    Mismatched,
    NotSent,
    Outcome,
    Rejected,
    RetryLater,
    Succeeded,
    Unknown,
)
from coordinator.core.values import Payload
from coordinator.dispatcher.circuit import Health
from coordinator.dispatcher.health import health_of
from tests.builders import failure, seconds
from tests.contract.dispatcher.stand import call

TEN_S = seconds(10)


@pytest.mark.parametrize(
    "outcome",
    [
        Succeeded(output=Payload("t", b"")),
        Accepted(time_limit_us=TEN_S),
        Compensated(handler_ran=True),
        Rejected(failure=failure(Code.FAILED_PRECONDITION)),
        RetryLater(failure=failure(Code.UNAVAILABLE), delay_us=1),
        RetryLater(failure=failure(Code.RESOURCE_EXHAUSTED), delay_us=1),
        KeyExpired(failure=failure(Code.FAILED_PRECONDITION)),
        Misconfigured(failure=failure(Code.UNIMPLEMENTED)),
    ],
)
def test_any_answer_says_that_it_is_there(outcome: Outcome) -> None:
    assert health_of(outcome, call(timeout_s=10), TEN_S) is Health.WELL


@pytest.mark.parametrize("outcome", [NotSent(failure=failure(Code.UNAVAILABLE)), Mismatched(failure=failure(Code.FAILED_PRECONDITION))])
def test_call_that_was_not_sent_says_nothing(outcome: Outcome) -> None:  # R7
    assert health_of(outcome, call(timeout_s=10), TEN_S) is Health.UNTOLD


@pytest.mark.parametrize("code", Code.values(), ids=Code.Name)
def test_unknown_outcome_says_what_its_code_says(code: int) -> None:
    expected = {
        Code.UNAVAILABLE: Health.AWAY,
        Code.DEADLINE_EXCEEDED: Health.OVERWHELMED,
        Code.RESOURCE_EXHAUSTED: Health.OVERWHELMED,
        Code.CANCELLED: Health.UNTOLD,
    }
    assert health_of(Unknown(failure=failure(code)), call(timeout_s=10), TEN_S) is expected.get(code, Health.WELL)


def test_being_too_slow_for_the_rest_of_a_limit_says_nothing() -> None:  # R13
    slow = Unknown(failure=failure(Code.DEADLINE_EXCEEDED))
    assert health_of(slow, call(timeout_s=10), TEN_S - 1) is Health.UNTOLD
    assert health_of(Unknown(failure=failure(Code.UNAVAILABLE)), call(timeout_s=10), TEN_S - 1) is Health.AWAY
