"""Small values in both forms: instants, durations, payloads, failures.

Functions named `…_of` read a message and raise ValueError if it cannot be what it should be; functions named `to_…` build or fill one.
Where a message is filled in place and not built and copied in, that is the hot path: 2.5 against 5.9 µs for a whole event.
"""

from datetime import UTC, datetime
from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from coordinator.core.values import MICROS_PER_SECOND, Failure, Instant, Payload
from participant_sdk.definitions.durations import DURATION_SECONDS_MAX, NANOS_MAX

TYPE_URL_PREFIX: Final = "type.googleapis.com/"
"""What google.protobuf.Any puts before the full name of a message."""
NANOS_PER_MICRO: Final = 1_000
INSTANT_MIN: Final = Instant(-62_135_596_800 * MICROS_PER_SECOND)
"""0001-01-01T00:00Z, the earliest that google.protobuf.Timestamp allows."""
INSTANT_MAX: Final = Instant(253_402_300_800 * MICROS_PER_SECOND - 1)
"""The last microsecond of the year 9999, the latest that google.protobuf.Timestamp allows."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def fill_timestamp(message: Timestamp, instant: Instant) -> None:
    """Writes an instant into a message that belongs to another one already. Raises ValueError outside of the years 1 to 9999."""
    if not INSTANT_MIN <= instant <= INSTANT_MAX:
        raise _out_of_range(instant)
    message.seconds, micros = divmod(instant, MICROS_PER_SECOND)
    message.nanos = micros * NANOS_PER_MICRO


def to_timestamp(instant: Instant) -> Timestamp:
    """An instant as a message of its own. Raises ValueError outside of the years 1 to 9999."""
    message = Timestamp()
    fill_timestamp(message, instant)
    return message


def instant_of(message: Timestamp) -> Instant:
    """The instant, cut to whole microseconds. Raises ValueError outside of the years 1 to 9999 or with impossible nanoseconds."""
    if not 0 <= message.nanos <= NANOS_MAX:
        raise ValueError(f"nanos of a timestamp must be 0 to {NANOS_MAX}, found {message.nanos}")
    instant = Instant(message.seconds * MICROS_PER_SECOND + message.nanos // NANOS_PER_MICRO)
    if not INSTANT_MIN <= instant <= INSTANT_MAX:
        raise _out_of_range(instant)
    return instant


def _out_of_range(instant: Instant) -> ValueError:
    return ValueError(f"an instant must lie in the years 1 to 9999, found {instant} µs since 1970")


def to_datetime(instant: Instant) -> datetime:
    """An instant for people: aware, UTC. Exact; floating point is not involved."""
    seconds, micros = divmod(instant, MICROS_PER_SECOND)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


def instant_of_datetime(moment: datetime) -> Instant:
    """The instant of an aware datetime. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"an aware datetime is expected, found {moment.isoformat()} without a time zone")
    passed = moment - _EPOCH
    return Instant((passed.days * 86_400 + passed.seconds) * MICROS_PER_SECOND + passed.microseconds)


def fill_duration(message: Duration, micros: int) -> None:
    """Writes microseconds into a message that belongs to another one already; seconds and nanos have the same sign, as
    google.protobuf.Duration wants it. Raises ValueError beyond 10,000 years."""
    seconds, rest = divmod(abs(micros), MICROS_PER_SECOND)
    if seconds > DURATION_SECONDS_MAX:
        raise ValueError(f"a duration of {micros} µs is out of range")
    sign = -1 if micros < 0 else 1
    message.seconds, message.nanos = sign * seconds, sign * rest * NANOS_PER_MICRO
    message.SetInParent()  # also no time at all is a duration


def to_duration(micros: int) -> Duration:
    """Microseconds as a message of its own. Raises ValueError beyond 10,000 years."""
    message = Duration()
    fill_duration(message, micros)
    return message


def fill_any(message: AnyMessage, payload: Payload) -> None:
    """Writes a payload into a message that belongs to another one already."""
    message.type_url = TYPE_URL_PREFIX + payload.type_name
    message.value = payload.value


def to_any(payload: Payload) -> AnyMessage:
    """A payload as a message of its own."""
    return AnyMessage(type_url=TYPE_URL_PREFIX + payload.type_name, value=payload.value)


def payload_of(message: AnyMessage) -> Payload:
    """The payload: as google.protobuf.Any defines it, the name of the type stands behind the last slash.

    Raises ValueError without a slash. The bytes are a copy, so that they do not keep the message they came in alive.
    """
    _, slash, type_name = message.type_url.rpartition("/")
    if not slash:
        raise ValueError(f'a type URL like "{TYPE_URL_PREFIX}shop.v1.PlaceOrder" is expected, found {message.type_url!r}')
    return Payload(type_name, message.value)


def fill_status(message: Status, failure: Failure) -> None:
    """Writes a failure into a message that belongs to another one already."""
    message.code = failure.code
    message.message = failure.message
    for detail in failure.details:
        fill_any(message.details.add(), detail)
    message.SetInParent()  # also a status of which every field is zero is one


def to_status(failure: Failure) -> Status:
    """A failure as a message of its own."""
    status = Status()
    fill_status(status, failure)
    return status


def failure_of(message: Status) -> Failure:
    """The failure. Raises ValueError if a detail names no type."""
    return Failure(message.code, message.message, tuple(payload_of(detail) for detail in message.details))
