"""Definitions that the integration tests start sagas of."""

from datetime import timedelta
from typing import Unpack

from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import RetryPolicy, Saga, StepDefaults
from participant_sdk.builder import StepOptions
from tests.participants import Bookkeeper

QUICK = RetryPolicy(initial_backoff=timedelta(milliseconds=20), max_backoff=timedelta(milliseconds=100))
"""Retries that do not make tests wait."""
SHORT_ATTEMPTS = StepDefaults(attempt_timeout=timedelta(seconds=3))
"""Whoever turns back after a crash waits for the end of the calls that nobody has heard of since (R12)."""


def three_steps(name: str = "three-steps") -> Saga[StringValue]:
    """first, second, third of the bookkeeper, one after the other; the third can refuse."""
    saga = Saga(name, input=StringValue, defaults=SHORT_ATTEMPTS)
    for step in (Bookkeeper.first, Bookkeeper.second, Bookkeeper.third):
        saga.step(step, execute_retry=QUICK, compensate_retry=QUICK)
    return saga


def plain(name: str, *actions: str, **options: Unpack[StepOptions]) -> Saga[StringValue]:
    """Steps that call a participant without the SDK, one after the other."""
    saga = Saga(name, input=StringValue)
    options.setdefault("execute_retry", QUICK)
    options.setdefault("compensate_retry", QUICK)
    for action in actions:
        saga.step(f"plain.{action}", request=StringValue, response=StringValue, **options)
    return saga
