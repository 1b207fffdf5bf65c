"""How a step is repeated, in both forms."""

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given

from coordinator.codec.policies import fill_policy, policy_change_of, retry_policy_of
from coordinator.core.inputs import PolicyChange
from coordinator.core.plan import RetryPolicy
from saga.v1 import saga_pb2
from tests.builders import seconds
from tests.strategies import policy_changes


@given(policy_changes)
def test_change_survives_both_forms(change: PolicyChange) -> None:
    message = saga_pb2.StepPolicy()
    fill_policy(message, change)
    assert policy_change_of(message) == change


def test_what_is_unset_stays_as_it_was() -> None:
    assert policy_change_of(saga_pb2.StepPolicy(attempt_timeout=Duration(seconds=3))) == PolicyChange(attempt_timeout_us=seconds(3))


def test_limit_of_compensation_is_that_of_all_recovery() -> None:
    assert policy_change_of(saga_pb2.StepPolicy(compensate_time_limit=Duration(seconds=3))) == PolicyChange(
        recovery_time_limit_us=seconds(3)
    )


def test_retry_policy_has_a_default_for_each_field() -> None:
    assert retry_policy_of(saga_pb2.RetryPolicy()) == RetryPolicy()


WRONG = {
    "a negative backoff": saga_pb2.RetryPolicy(initial_backoff=Duration(seconds=-1)),
    "a longest wait beyond all time": saga_pb2.RetryPolicy(max_backoff=Duration(seconds=2**60)),
    "a multiplier below 1": saga_pb2.RetryPolicy(multiplier=0.5),
    "a negative multiplier": saga_pb2.RetryPolicy(multiplier=-2),
    "a multiplier that is no number": saga_pb2.RetryPolicy(multiplier=float("nan")),
    "a multiplier without end": saga_pb2.RetryPolicy(multiplier=float("inf")),
}


@pytest.mark.parametrize("message", WRONG.values(), ids=WRONG.keys())
def test_impossible_policy_is_refused(message: saga_pb2.RetryPolicy) -> None:
    with pytest.raises(ValueError, match=r"found|range"):
        policy_change_of(saga_pb2.StepPolicy(execute_retry=message))
