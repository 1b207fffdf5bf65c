"""Instants, durations, payloads and failures in both forms."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from coordinator.codec.values import (
    INSTANT_MAX,
    INSTANT_MIN,
    failure_of,
    fill_duration,
    instant_of,
    instant_of_datetime,
    payload_of,
    to_any,
    to_datetime,
    to_duration,
    to_status,
    to_timestamp,
)
from coordinator.core.values import Failure, Instant, Payload
from participant_sdk.definitions.durations import micros_of
from saga.v1.saga_pb2 import RetryPolicy
from tests.strategies import failures, instants, payloads


@given(instants)
def test_instant_survives_both_forms(instant: Instant) -> None:
    assert instant_of(to_timestamp(instant)) == instant
    assert instant_of_datetime(to_datetime(instant)) == instant


def test_limits_are_those_of_the_calendar() -> None:
    assert to_datetime(INSTANT_MIN) == datetime(1, 1, 1, tzinfo=UTC)
    assert to_datetime(INSTANT_MAX) == datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


def test_timestamp_is_cut_to_whole_microseconds() -> None:
    assert instant_of(Timestamp(seconds=1, nanos=1_999)) == 1_000_001


@pytest.mark.parametrize("message", [Timestamp(nanos=-1), Timestamp(nanos=10**9), Timestamp(seconds=2**40), Timestamp(seconds=-(2**40))])
def test_impossible_timestamp_is_refused(message: Timestamp) -> None:
    with pytest.raises(ValueError, match=r"timestamp|instant"):
        instant_of(message)


@pytest.mark.parametrize("instant", [INSTANT_MAX + 1, INSTANT_MIN - 1])
def test_instant_that_nobody_could_read_is_not_written(instant: int) -> None:
    with pytest.raises(ValueError, match="9999"):
        to_timestamp(Instant(instant))


def test_datetime_of_another_zone_is_the_same_instant() -> None:
    eastern = datetime(2026, 11, 23, 12, tzinfo=timezone(timedelta(hours=2)))
    assert instant_of_datetime(eastern) == instant_of_datetime(datetime(2026, 11, 23, 10, tzinfo=UTC))


def test_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        instant_of_datetime(datetime(2026, 11, 23))  # noqa: DTZ001 - that is the point


@given(st.integers(-(10**15), 10**15))
def test_duration_survives_both_forms(micros: int) -> None:
    message = to_duration(micros)
    assert message.seconds * message.nanos >= 0
    assert micros_of(message) == micros


@pytest.mark.parametrize(
    ("message", "micros"), [(Duration(nanos=1_999), 1), (Duration(nanos=-1_999), -1), (Duration(seconds=-1), -(10**6))]
)
def test_duration_is_cut_towards_zero(message: Duration, micros: int) -> None:
    assert micros_of(message) == micros


@pytest.mark.parametrize("micros", [10**18, -(10**18)])
def test_duration_that_nobody_could_read_is_not_written(micros: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        to_duration(micros)


def test_no_time_at_all_is_a_duration_that_is_set() -> None:
    message = RetryPolicy()
    fill_duration(message.initial_backoff, 0)
    assert message.HasField("initial_backoff")


@pytest.mark.parametrize(
    "message", [Duration(seconds=1, nanos=-1), Duration(seconds=-1, nanos=1), Duration(seconds=2**50), Duration(nanos=10**9)]
)
def test_contradictory_duration_is_refused(message: Duration) -> None:
    with pytest.raises(ValueError, match="duration"):
        micros_of(message)


@given(payloads)
def test_payload_survives_both_forms(payload: Payload) -> None:
    assert payload_of(to_any(payload)) == payload


def test_type_stands_behind_the_last_slash() -> None:
    assert payload_of(AnyMessage(type_url="example.com/types/shop.v1.Order", value=b"x")) == Payload("shop.v1.Order", b"x")


def test_type_without_a_slash_is_refused() -> None:
    with pytest.raises(ValueError, match="type URL"):
        payload_of(AnyMessage(type_url="shop.v1.Order"))


@given(failures)
def test_failure_survives_both_forms(failure: Failure) -> None:
    assert failure_of(to_status(failure)) == failure


def test_failure_of_a_bare_status_is_empty() -> None:
    assert failure_of(Status()) == Failure(0, "")
