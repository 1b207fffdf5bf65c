"""Values of the wire in words for people."""

from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.rpc_errors import find_detail

ERROR_CHARACTERS_MAX: Final = 200

NumberT = TypeVar("NumberT", bound=int)
NumberT_contra = TypeVar("NumberT_contra", bound=int, contravariant=True)


class EnumNames(Protocol[NumberT_contra]):
    """A protobuf enum, as generated code has it."""

    def Name(self, number: NumberT_contra) -> str: ...  # noqa: N802 - protobuf's own name


def short_name(enum: EnumNames[NumberT], number: NumberT, prefix: str) -> str:
    """The name of an enum value without its prefix; its number, if it is newer than this program."""
    try:
        return enum.Name(number).removeprefix(prefix)
    except ValueError:
        return str(number)


def plain_name(enum: EnumNames[NumberT], number: NumberT, prefix: str) -> str:
    """The same in small letters, for the middle of a sentence: "step rejected"."""
    return short_name(enum, number, prefix).lower().replace("_", " ")


def words_of(error: status_pb2.Status) -> str:
    """An error as its reason and its message."""
    info = find_detail(error, error_details_pb2.ErrorInfo)
    text = error.message[:ERROR_CHARACTERS_MAX]
    if info is not None and info.reason:
        return f"{info.reason} {text}" if text and text != info.reason else info.reason
    return text or f"code {error.code}"


def by_whom(actor: str, reason: str) -> str:
    """Who and why, to follow a verb: " by ann: maintenance"."""
    return (f" by {actor}" if actor else "") + (f": {reason}" if reason else "")


def instant(timestamp: Timestamp) -> datetime:
    """The instant, aware."""
    return timestamp.ToDatetime(tzinfo=UTC)


def seconds_until(timestamp: Timestamp, now: datetime) -> float:
    """How long it is until then; negative if it is past."""
    return (instant(timestamp) - now).total_seconds()


def duration(seconds: float) -> str:
    """Seconds in the unit that reads well: "12 ms", "1.24 s", "3 min 5 s", "2 d 4 h"."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    for name, size, smaller_name, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {smaller_name}"
    return f"{whole} s"
